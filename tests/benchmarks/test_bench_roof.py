"""What a graph has to do, by hand and by its profile, and the floor under it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench.record import Roof
from benchmarks.bench.roof import Roofline, floor, fresh_roof, measure_roof
from benchmarks.bench.work import Work, read_profile, work_of
from deploy.errors import SlimrecError
from deploy.ranker import CPU

N_ITEMS, DIM = 30, 8


def test_work_of_a_real_graph_by_hand(history_graph: Path) -> None:
    """The mean of the looked-up rows times the table: batch 3, history 5."""
    found = work_of(history_graph, CPU, np.ones((3, 5), np.int64), 4)
    table = (N_ITEMS + 1) * DIM * 4
    looked_up, bias = 3 * 5 * DIM * 4, (N_ITEMS + 1) * 4
    small = 8 + 4  # the axis of the mean, and what excluded items score
    assert found.flops == 2 * 3 * (N_ITEMS + 1) * DIM and found.int8_ops == 0
    assert found.bytes_read == table + looked_up + bias + small
    assert set(found.nodes) == set(CPU) and found.nodes[CPU[0]] >= 8
    assert found.device_ms is None and found.copy_ms is None


def node(op: str, inputs: list[dict[str, list[int]]], output: list[int], weights: int, ts: int, **more: Any) -> Any:
    out = {"float": output}
    arguments = {
        "op_name": op,
        "input_type_shape": inputs,
        "output_type_shape": [out],
        "parameter_size": str(weights),
        "output_size": str(4 * int(np.prod(output))),
        "provider": "CPUExecutionProvider",
    }
    return {"cat": "Node", "name": f"{op}_kernel_time", "ts": ts, "dur": 1, "args": arguments | more}


def test_the_last_run_counts_and_kernels_are_averaged() -> None:
    """A profile as ONNX Runtime with CUDA's tracing writes it: nodes, kernels, and copies among the kernels."""
    cuda = {"provider": "CUDAExecutionProvider"}
    events = [
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 40, "args": {}},
        node("MatMul", [{"float": [9, 9]}], [9, 9], 9 * 9 * 4, 15),
        {"cat": "Session", "name": "model_run", "ts": 100, "dur": 30, "args": {}},
        {"cat": "Node", "name": "x_fence_before", "ts": 104, "dur": 0, "args": {"op_name": "MatMul"}},
        node("Gather", [{"float": [1000, 8]}, {"int64": [2, 5]}], [2, 5, 8], 32_000, 105, **cuda),
        node("MatMul", [{"float": [2, 5, 8]}, {"float": [8, 16]}], [2, 5, 16], 512, 106, **cuda),
        node("DynamicQuantizeMatMul", [{"float": [2, 8]}, {"int8": [8, 1000]}], [2, 1000], 8_000, 107),
        node("Add", [{"float": [2, 1000]}, {"float": [1000]}], [2, 1000], 4_000, 108),
        *({"cat": "Kernel", "name": "gemm", "ts": 1, "dur": 30, "args": {}} for _ in range(2)),
        *({"cat": "Kernel", "name": "MemcpyHostToDevice", "ts": 1, "dur": 10, "args": {}} for _ in range(2)),
    ]
    assert read_profile(events, runs=2) == Work(
        bytes_read=2 * 5 * 8 * 4 + 512 + 8_000 + 4_000,
        flops=2 * (2 * 5) * 8 * 16,
        int8_ops=2 * 2 * 8 * 1000,
        nodes={"CUDAExecutionProvider": 2, "CPUExecutionProvider": 2},
        device_ms=0.04,
        copy_ms=0.01,
    )


ROOF = Roof(threads=1, gb_per_s={"1000": 50.0, "1000000": 40.0, "100000000": 10.0}, gflops=100.0, int8_gops=200.0)


@pytest.mark.parametrize(
    ("work", "floor_ms", "bound"),
    [
        (Work(bytes_read=2_000_000), 0.05, "memory"),  # fits where 40 GB/s were read
        (Work(bytes_read=500), 500 / 50e6, "memory"),
        (Work(bytes_read=2_000_000_000), 200.0, "memory"),
        (Work(bytes_read=1000, flops=10_000_000, int8_ops=20_000_000), 0.2, "arithmetic"),
    ],
)
def test_floor_by_hand(work: Work, floor_ms: float, bound: str) -> None:
    found = floor(work, ROOF, p50_ms=1.0)
    assert found.floor_ms == pytest.approx(floor_ms)
    assert found.times_floor == pytest.approx(1 / floor_ms)
    assert found.bound == bound


def test_a_small_size_that_was_disturbed_makes_no_floor_too_high() -> None:
    disturbed = ROOF.model_copy(update={"gb_per_s": {"1000": 5.0, "1000000": 40.0}})
    assert floor(Work(bytes_read=2000), disturbed, 1.0).floor_ms == pytest.approx(2000 / 40e6)


def test_more_threads_are_never_slower() -> None:
    """Two threads that stood in each other's way: one of them may do the work alone."""
    disturbed = ROOF.model_copy(update={"threads": 2, "gb_per_s": {"1000": 90.0, "1000000": 30.0}, "gflops": 80.0})
    found = Roofline([2, 1], measure={1: ROOF, 2: disturbed}.__getitem__).roofs
    assert found[0] == ROOF
    assert (found[1].threads, found[1].gb_per_s, found[1].gflops) == (2, {"1000": 90.0, "1000000": 40.0}, 100.0)


def test_integers_without_a_rate_have_the_floats() -> None:
    unknown = ROOF.model_copy(update={"int8_gops": None})
    assert floor(Work(bytes_read=1000, int8_ops=20_000_000), unknown, 1.0).floor_ms == pytest.approx(0.2)


def test_rates_are_measured_here() -> None:
    found = measure_roof(2, sizes=(1 << 12, 1 << 14), side=16, seconds=1e-4)
    assert found.threads == 2 and found.gb_per_s.keys() == {"4096", "16384"}
    assert min(found.gb_per_s.values()) > 0 and found.gflops > 0
    assert found.int8_gops is not None and found.int8_gops > 0


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.bench.roof.sys.executable", "/bin/false")
    with pytest.raises(SlimrecError, match="roofline: a fresh process could not measure it"):
        fresh_roof(1)
