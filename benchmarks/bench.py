"""Latency, memory and load of a bundle on this machine: what `slimrec bench` measures. Torch-free."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from benchmarks.bundle_info import bundle_info
from benchmarks.candidates import CachedPath
from benchmarks.cold_start import ColdStart, fresh_process
from benchmarks.machine import describe_machine
from benchmarks.measure import Latency, latency
from benchmarks.result import BenchResult, LatencyRow, NotMeasured
from deploy.bundle import Bundle, open_bundle
from deploy.errors import UsageError
from deploy.manifest import ITEMS
from deploy.ranker import open_session
from deploy.runtime import Recommender
from deploy.tables import read_items

Device = Literal["cpu", "cuda", "auto"]
Call = Callable[[], object]

_CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")
_HISTORY = 20
_QUERIES = 64  # different histories asked in turn, so that no answer stays in the caches


@dataclass(frozen=True)
class Conditions:
    """What is measured. `seconds`: the most that one precision is timed for; 1,000 runs end it earlier.

    `history`: items in each history; None takes 20, or as many as the bundle reads where that is fewer.
    """

    device: Device = "auto"
    threads: int = 1
    batch: int = 1
    history: int | None = None
    k: int = 10
    seconds: float = 10.0
    seed: int = 0


def bench_bundles(paths: Sequence[Path], conditions: Conditions) -> list[BenchResult]:
    """Every precision of every bundle, interleaved in one process. Raises UsageError or GateError."""
    bundles = [open_bundle(path) for path in paths]
    calls: dict[tuple[int, str, str], Call] = {}
    absent: list[list[NotMeasured]] = []
    for number, bundle in enumerate(bundles):
        queries = sample_queries(bundle, conditions)
        missing: list[NotMeasured] = []
        if conditions.device != "cuda":
            for precision in sorted(bundle.manifest.model.precisions):
                calls[number, "cpu", precision] = _on_cpu(bundle, precision, queries, conditions)
        if conditions.device != "cpu":
            for precision in sorted(bundle.manifest.model.precisions):
                call = _on_cuda(bundle, precision, queries, conditions)
                if isinstance(call, NotMeasured):
                    missing.append(call)
                else:
                    calls[number, "cuda", precision] = call
        if conditions.device == "cuda":
            missing.append(NotMeasured(what="memory and load", why="measured with --device cpu or auto"))
        absent.append(list(dict.fromkeys(missing)))
    machine = describe_machine()
    names = {" ".join(map(str, key)): key for key in calls}
    measured = latency(
        {name: calls[key] for name, key in names.items()},
        min_seconds=conditions.seconds,
        batch=conditions.batch,
        seed=conditions.seed,
    )
    results = []
    for number, (path, bundle) in enumerate(zip(paths, bundles, strict=True)):
        rows = [
            latency_row(measured[name], key[1], key[2], bundle, conditions)
            for name, key in names.items()
            if key[0] == number
        ]
        history = tuple(sample_queries(bundle, conditions)[0][0])
        spec = ColdStart(str(path), history, k=conditions.k, threads=conditions.threads)
        rss_mb, load_ms = fresh_process(spec) if conditions.device != "cuda" else (None, None)
        results.append(
            BenchResult(
                bundle=bundle_info(path, bundle),
                machine=machine,
                latency=rows,
                rss_mb=rss_mb,
                load_ms=load_ms,
                not_measured=absent[number],
            )
        )
    return results


def history_length(bundle: Bundle, conditions: Conditions) -> int:
    """Items in each history. Raises UsageError where the bundle does not read as many as asked for."""
    model = bundle.manifest.model
    most = min(model.max_history, model.n_items - 1)
    wanted = min(_HISTORY, most) if conditions.history is None else conditions.history
    if not 1 <= wanted <= most:
        raise UsageError(f"--history: the bundle reads 1 to {most} items (got {wanted})")
    return wanted


def sample_queries(bundle: Bundle, conditions: Conditions) -> list[list[list[str]]]:
    """Batches of random histories (seeded) of the bundle's own items. Raises as `history_length`."""
    ids = np.array(read_items(bundle.path(ITEMS)).ids)
    length = history_length(bundle, conditions)
    rng = np.random.default_rng(conditions.seed)
    return [[rng.choice(ids, length, replace=False).tolist() for _ in range(conditions.batch)] for _ in range(_QUERIES)]


def latency_row(measured: Latency, device: str, precision: str, bundle: Bundle, conditions: Conditions) -> LatencyRow:
    """One row in the form of `result.json`."""
    return LatencyRow.model_validate(
        {
            "path": "cached",
            "runtime": "onnxruntime",
            "device": device,
            "threads": conditions.threads,
            "batch": conditions.batch,
            "history": history_length(bundle, conditions),
            "items": bundle.manifest.model.n_items,
            "k": conditions.k,
            "p50_ms": measured.p50_ms,
            "p95_ms": measured.p95_ms,
            "p99_ms": measured.p99_ms,
            "per_second": measured.per_second,
            "runs": measured.runs,
            "precision": precision,
        }
    )


def _on_cpu(bundle: Bundle, precision: str, queries: list[list[list[str]]], conditions: Conditions) -> Call:
    recommender = Recommender(bundle, precision=precision, threads=conditions.threads)
    recommender.self_test()
    turns = cycle(queries)
    return lambda: recommender.recommend_many(next(turns), conditions.k)


def _on_cuda(
    bundle: Bundle, precision: str, queries: list[list[list[str]]], conditions: Conditions
) -> Call | NotMeasured:
    what = "cuda latency"
    if _CUDA[0] not in ort.get_available_providers():
        return NotMeasured(what=what, why="this onnxruntime has no CUDA provider; install slimrec[gpu]")
    model = bundle.manifest.model
    graph = bundle.path(model.precisions[precision])
    # ONNX Runtime falls back to the CPU without an error where the provider finds no device.
    if _CUDA[0] not in open_session(graph, providers=_CUDA).get_providers():
        return NotMeasured(what=what, why="no CUDA device")
    ids = read_items(bundle.path(ITEMS)).ids
    path = CachedPath(graph, ids, max_history=model.max_history, threads=conditions.threads, providers=_CUDA)
    turns = cycle(queries)
    return lambda: path.recommend(next(turns), conditions.k)
