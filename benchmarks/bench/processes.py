"""Memory and load time: fresh processes that open the bundle and answer once."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.bench.cells import Subject
from benchmarks.bench.conditions import Conditions
from benchmarks.bench.devices import Device
from benchmarks.bench.record import ProcessRow
from benchmarks.cold_start import ColdStart, fresh_processes
from benchmarks.result import NotMeasured

Placed = tuple[Subject, Device, str]
"""A catalogue, a device and a precision that reproduces its golden answers there."""


def process_rows(
    placed: Sequence[Placed],
    conditions: Conditions,
    missing: list[NotMeasured],
    progress: Callable[[str, int, int], object],
) -> list[ProcessRow]:
    """A row each, with the first number of threads that was asked for; what cannot be told goes to `missing`."""
    rows = []
    for number, (subject, device, precision) in enumerate(placed if conditions.cold_starts else (), start=1):
        length = conditions.lengths(subject.bundle.manifest.model, subject.n_items)[0]
        spec = ColdStart(
            str(subject.path),
            tuple(subject.catalogue.ids[1 : 1 + length]),
            k=conditions.k,
            threads=conditions.threads[0],
            precision=precision,
            providers=device.providers,
        )
        runs = fresh_processes(spec, repeats=conditions.cold_starts)
        gained = [run.device_memory_mb for run in runs if run.device_memory_mb is not None]
        if device.name != "cpu" and not gained:
            missing.append(NotMeasured(what=f"{device.name} memory", why="nvidia-smi does not tell"))
        rows.append(
            ProcessRow(
                device=device.name,
                precision=precision,
                threads=conditions.threads[0],
                items=subject.n_items,
                rss_mb=statistics.median(run.rss_mb for run in runs),
                load_ms=statistics.median(run.load_ms for run in runs),
                rss_mb_runs=[run.rss_mb for run in runs],
                load_ms_runs=[run.load_ms for run in runs],
                device_memory_mb=statistics.median(gained) if gained else None,
            )
        )
        progress("fresh processes", number, len(placed))
    return rows
