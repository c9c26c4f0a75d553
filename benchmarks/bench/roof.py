"""The machine's own rates, and the floor they put under a graph: S. Williams, A. Waterman, D. Patterson, Roofline: An
Insightful Visual Performance Model (CACM 52, 2009).

Rates are those of a fresh process whose BLAS has one thread, so that N threads are N and not N times its own.
`python -m benchmarks.bench.roof THREADS` is that process; it takes about three seconds.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.bench.cells import Cell
from benchmarks.bench.record import Floor, Roof
from benchmarks.bench.wire import INT8, INT32, UINT8, Tensor, one_node
from benchmarks.bench.work import Work, work_of
from benchmarks.result import NotMeasured
from deploy.errors import SlimrecError

SIZES = tuple(1 << power for power in range(18, 29, 2))
"""Bytes read again and again, 256 KB to 256 MB: caches first, then memory."""

_SECONDS, _TRIES = 0.005, 25  # of one measurement, of which the best counts: short ones slip between what disturbs
_SIDE = 512  # of the square matrices
_ONE_THREAD = ("OPENBLAS", "OMP", "MKL", "BLIS", "VECLIB")
_ENOUGH_MEMORY = 4  # times the largest size, or it is left out


class Roofline:
    """The machine's rates for each number of threads, and each graph's work, found once."""

    def __init__(self, threads: Sequence[int], measure: Callable[[int], Roof] | None = None) -> None:
        self.roofs: list[Roof] = []
        for count in sorted(threads):
            self.roofs.append(at_least((measure or fresh_roof)(count), self.roofs[-1:]))
        self._by_threads = {roof.threads: roof for roof in self.roofs}
        self._works: dict[tuple[Path, str, int, int, int], Work] = {}

    def facts(self, cell: Cell, p50_ms: float, missing: list[NotMeasured]) -> dict[str, Any]:
        """The fields of a row that follow from the graph's profile; what cannot be told goes to `missing`."""
        graph = cell.subject.graph(cell.precision)
        key = (graph, cell.device.name, cell.batch, cell.history, cell.k)
        if key not in self._works:
            rows = np.random.default_rng(cell.seed).integers(1, cell.subject.n_items + 1, (cell.batch, cell.history))
            self._works[key] = work_of(graph, cell.device.providers, rows, min(cell.k, cell.subject.n_items))
        work = self._works[key]
        found: dict[str, Any] = {"nodes": dict(work.nodes), "device_ms": work.device_ms, "copy_ms": work.copy_ms}
        if cell.device.name == "cpu":
            return found | {"floor": floor(work, self._by_threads[cell.threads], p50_ms)}
        missing.append(NotMeasured(what=f"{cell.device.name} roofline", why="its rates are measured on the CPU only"))
        if work.device_ms is None:
            why = "this onnxruntime's profile tells of no kernels"
            missing.append(NotMeasured(what=f"{cell.device.name} time of kernels and copies", why=why))
        return found


def floor(work: Work, roof: Roof, p50_ms: float) -> Floor:
    """The longer of reading and multiplying: a machine may do both at once.

    Bytes come at the best rate of any size from the largest that is no larger: too fast rather than too slow.
    """
    sizes = [int(size) for size in roof.gb_per_s]
    near = max((size for size in sizes if size <= work.bytes_read), default=min(sizes))
    rate = max(rate for size, rate in roof.gb_per_s.items() if int(size) >= near)
    memory_ms = work.bytes_read / rate / 1e6
    arithmetic_ms = (work.flops / roof.gflops + work.int8_ops / (roof.int8_gops or roof.gflops)) / 1e6
    floor_ms = max(memory_ms, arithmetic_ms)
    return Floor(
        bytes_read=work.bytes_read,
        flops=work.flops,
        int8_ops=work.int8_ops,
        floor_ms=floor_ms,
        bound="memory" if memory_ms >= arithmetic_ms else "arithmetic",
        times_floor=p50_ms / floor_ms,
    )


def at_least(roof: Roof, fewer: Sequence[Roof]) -> Roof:
    """The rates of `roof`, and where threads stood in each other's way those of fewer threads: all may use them."""
    for other in fewer:
        rates = {size: max(rate, other.gb_per_s.get(size, 0.0)) for size, rate in roof.gb_per_s.items()}
        int8 = max((rate for rate in (roof.int8_gops, other.int8_gops) if rate is not None), default=None)
        gflops = max(roof.gflops, other.gflops)
        roof = roof.model_copy(update={"gb_per_s": rates, "gflops": gflops, "int8_gops": int8})
    return roof


def fresh_roof(threads: int) -> Roof:
    """The machine's rates on `threads` threads. Raises SlimrecError with the process's own words where it fails."""
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in _ONE_THREAD}
    environment["VECLIB_MAXIMUM_THREADS"] = "1"
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "benchmarks.bench.roof", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise SlimrecError(f"roofline: a fresh process could not measure it ({words[-1]})")
    return Roof.model_validate_json(done.stdout.splitlines()[-1])


def measure_roof(threads: int, sizes: Sequence[int] = SIZES, side: int = _SIDE, seconds: float = _SECONDS) -> Roof:
    """As `fresh_roof`, in this process."""
    with ThreadPoolExecutor(threads) as pool:
        fit = [size for size in sizes if size * _ENOUGH_MEMORY <= _free_bytes()] or [min(sizes)]
        rates = {str(size): _read_rate(pool, threads, size, seconds) for size in fit}
        left = [np.random.default_rng(number).random((side, side), np.float32) for number in range(threads)]
        outs = [np.empty_like(matrix) for matrix in left]
        works = [lambda a=a, out=out: np.dot(a, a, out=out) for a, out in zip(left, outs, strict=True)]
        gflops = _rate(pool, works, 2 * side**3, seconds)
    return Roof(threads=threads, gb_per_s=rates, gflops=gflops, int8_gops=_int8_rate(threads, side, seconds))


def _read_rate(pool: ThreadPoolExecutor, threads: int, size: int, seconds: float) -> float:
    """10^9 bytes a second, each thread its own part: the faster of a dot product and a maximum, which only read."""
    parts = np.array_split(np.ones(size // 4, np.float32), threads)
    each = size / threads
    kernels = ([lambda x=x: x.dot(x) for x in parts], [lambda x=x: x.max() for x in parts])
    return max(_rate(pool, works, each, seconds) for works in kernels)


def _int8_rate(threads: int, side: int, seconds: float) -> float | None:
    """10^9 operations a second of ONNX Runtime's own integer product, since numpy has no fast one."""
    weight = Tensor("b", INT8, (side, side), np.ones((side, side), np.int8).tobytes())
    model = one_node("MatMulInteger", [("a", UINT8, (side, side))], [weight], ("out", INT32, (side, side)))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's exceptions share no public base class; a build may lack the kernel
        return None
    feed = {"a": np.ones((side, side), np.uint8)}
    with ThreadPoolExecutor(1) as one:
        return _rate(one, [lambda: session.run(None, feed)], 2 * side**3, seconds)


def _rate(pool: ThreadPoolExecutor, works: Sequence[Callable[[], object]], amount: float, seconds: float) -> float:
    """10^9 units a second of all threads together; `amount` units a call of one. The best of all tries."""
    once = min(_seconds(works[0]) for _ in range(3))
    calls = max(1, int(seconds / max(once, 1e-7)))

    def repeat(work: Callable[[], object]) -> None:
        for _ in range(calls):
            work()

    best = 0.0
    for _ in range(_TRIES):
        taken = _seconds(lambda: list(pool.map(repeat, works)))
        best = max(best, len(works) * calls * amount / taken / 1e9)
    return best


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _free_bytes() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not tell: the smaller half of the sizes
        return SIZES[len(SIZES) // 2] * _ENOUGH_MEMORY


if __name__ == "__main__":
    print(json.dumps(measure_roof(int(sys.argv[1])).model_dump(mode="json")))
