"""Measure bundles on this machine: latency, memory, load, and how near to the machine's limits they come."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench.bare import bare_graph
from benchmarks.bench.cells import Cell, Subject, cells_of, devices_of
from benchmarks.bench.compare import compare
from benchmarks.bench.conditions import Conditions
from benchmarks.bench.devices import Device
from benchmarks.bench.processes import Placed, process_rows
from benchmarks.bench.record import BenchResult, BenchRow, Method
from benchmarks.bench.roof import Roofline
from benchmarks.bench.scaled import scaled
from benchmarks.bench.yardstick import NAME as YARDSTICK
from benchmarks.bench.yardstick import yardstick
from benchmarks.bundle_info import bundle_info
from benchmarks.machine import CpuTime, commit, describe_machine
from benchmarks.measure import Case, Latency, percentiles, reopened
from benchmarks.ratios import paired, spread
from benchmarks.result import Machine, NotMeasured
from deploy.bundle import Bundle, open_bundle
from deploy.errors import UsageError

RUNS = 1000
WARM_UP = "each block: until three windows of 5 runs agree within 5 %, for at most half of its timed seconds"

Progress = Callable[[str, int, int], object]
"""(what, done, of how many): called between blocks, never while one is timed."""


def bench_bundles(
    paths: Sequence[Path],
    conditions: Conditions,
    *,
    progress: Progress = lambda _what, _done, _total: None,
    machine: Machine | None = None,
) -> list[BenchResult]:
    """The grid over all bundles, interleaved in one process. `machine`: described before anything else ran.

    Raises UsageError, and GateError where the CPU does not reproduce a bundle's golden answers.
    """
    if len(set(paths)) < len(paths):
        raise UsageError("BUNDLE: each must be another path")
    machine = machine or describe_machine()
    with tempfile.TemporaryDirectory(prefix="slimrec-bench-") as scratch:
        plans = [_plan(path, conditions, Path(scratch) / str(number)) for number, path in enumerate(paths)]
        cells = {cell.name: cell for plan in plans for cell in plan.cells}
        cases = {YARDSTICK: Case(yardstick)} | {name: Case(cell.open, cell.batch) for name, cell in cells.items()}
        if conditions.roofline:
            cases |= {cell.bare: Case(partial(bare_graph, cell), cell.batch) for cell in cells.values()}
        start, blocks, done = CpuTime.now(), len(cases) * conditions.rounds, iter(range(1, 1 << 62))
        timed = reopened(
            cases,
            rounds=conditions.rounds,
            min_runs=RUNS,
            min_seconds=conditions.seconds,
            seed=conditions.seed,
            progress=lambda: progress("latency", next(done), blocks),
        )
        method = _method(conditions, timed.pop(YARDSTICK), start)
        measured = {cell: timed[name] for name, cell in cells.items()}
        comparisons = compare(measured, conditions.tolerance)
        roofline = Roofline(conditions.threads) if conditions.roofline else None
        results, code = [], commit()
        for plan in plans:
            rows = [_row(cell, timed, roofline, plan.missing) for cell in plan.cells]
            processes = process_rows(plan.placed, conditions, plan.missing, progress)
            first = next((row for row in processes if row.precision == plan.bundle.manifest.model.default), None)
            own = str(plan.given)
            results.append(
                BenchResult(
                    bundle=bundle_info(plan.given, plan.bundle),
                    machine=machine,
                    latency=rows,
                    rss_mb=first.rss_mb if first else None,
                    load_ms=first.load_ms if first else None,
                    processes=processes,
                    comparisons=[one for one in comparisons if own in (one.a.bundle, one.b.bundle)],
                    roofs=roofline.roofs if roofline else [],
                    method=method,
                    commit=code,
                    not_measured=list(dict.fromkeys(plan.missing)),
                )
            )
    return results


class _Plan:
    """One bundle's cells, and what could not be planned."""

    def __init__(self, given: Path, bundle: Bundle) -> None:
        self.given, self.bundle = given, bundle
        self.cells: list[Cell] = []
        self.placed: list[Placed] = []
        self.missing: list[NotMeasured] = []


def _plan(given: Path, conditions: Conditions, scratch: Path) -> _Plan:
    plan = _Plan(given, open_bundle(given))
    for size in conditions.sizes(plan.bundle.manifest.model):
        found = scaled(given, plan.bundle, size, scratch / str(size))
        if isinstance(found, NotMeasured):
            plan.missing.append(found)
            continue
        subject = Subject(given, *found)
        placed: list[tuple[Device, str]] = []
        for one in devices_of(subject, conditions):
            if isinstance(one, NotMeasured):
                plan.missing.append(one)
            else:
                placed.append(one)
        plan.placed += [(subject, device, precision) for device, precision in placed]
        plan.cells += cells_of(subject, placed, conditions)
    return plan


def _method(conditions: Conditions, found: Latency, start: CpuTime | None) -> Method:
    now = CpuTime.now()
    elsewhere, steal = now.since(start) if now and start else (None, None)
    return Method(
        rounds=conditions.rounds,
        max_seconds=conditions.seconds,
        max_runs=RUNS,
        seed=conditions.seed,
        tolerance=conditions.tolerance,
        warm_up=WARM_UP,
        yardstick_ms=found.round_medians().tolist(),
        busy_elsewhere=elsewhere,
        steal=steal,
    )


def _row(cell: Cell, timed: Mapping[str, Latency], roofline: Roofline | None, missing: list[NotMeasured]) -> BenchRow:
    found = timed[cell.name]
    rounds = found.round_medians()
    facts: dict[str, Any] = roofline.facts(cell, found.p50_ms, missing) if roofline else {}
    if (bare := timed.get(cell.bare)) is not None:
        beyond = paired(rounds, bare.round_medians())
        facts |= {"graph_ms": bare.p50_ms, "times_graph": beyond.ratio, "times_graph_ci95": beyond.interval()}
    return BenchRow.model_validate(
        {
            "path": "cached",
            "runtime": "onnxruntime",
            "device": cell.device.name,
            "threads": cell.threads,
            "batch": cell.batch,
            "history": cell.history,
            "items": cell.subject.n_items,
            "k": cell.k,
            "p50_ms": found.p50_ms,
            "p95_ms": found.p95_ms,
            "p99_ms": found.p99_ms,
            "per_second": found.per_second,
            "runs": found.runs,
            "percentiles_ms": percentiles(found.samples_ms),
            "precision": cell.precision,
            "round_p50_ms": rounds.tolist(),
            "noise": spread(rounds) if len(rounds) > 1 else None,
            "unsettled": found.unsettled,
            "size_bytes": cell.subject.graph_bytes(cell.precision),
            **facts,
        }
    )
