"""`slimrec bench` on a real bundle: what it prints and writes, and that absent devices are told with their reason."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from benchmarks.bench.bare import bare_graph
from benchmarks.bench.cells import Cell, Subject, devices_of, sample_queries
from benchmarks.bench.conditions import Conditions
from benchmarks.bench.devices import DEVICES, Device, used_memory_mb
from benchmarks.bench.record import BenchResult, Roof
from benchmarks.commands import bench
from benchmarks.measure import Case, reopened
from benchmarks.result import NotMeasured
from deploy.bundle import open_bundle
from deploy.errors import GateError, UsageError
from deploy.ranker import CPU, CUDA, ONE_BY_ONE

ROOT = Path(__file__).parents[2]
QUICK = ("--seconds", "0.03", "--rounds", "3", "--cold-starts", "0", "--no-roofline", "--device", "cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(bench, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def subject(bundle: Path) -> Subject:
    return Subject(bundle, bundle, open_bundle(bundle))


def test_the_real_command(bundle: Path, tmp_path: Path) -> None:
    """A process of its own: the published fields, a process's memory, the machine's limits and a chart."""
    chart = tmp_path / "chart.svg"
    options = ["--seconds", "0.05", "--rounds", "3", "--history", "5", "--batch", "1,2", "--cold-starts", "1"]
    command = [sys.executable, "-m", "deploy", "bench", str(bundle), *options, "--chart", str(chart), "--json"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    published = {"schema", "bundle", "machine", "latency", "rss_mb", "load_ms", "not_measured"}
    assert published <= json.loads(line).keys()
    found = BenchResult.model_validate_json(line)
    rows = [row for row in found.latency if row.device == "cpu"]
    assert [(row.precision, row.batch) for row in rows] == [("fp32", 1), ("fp32", 2), ("int8", 1), ("int8", 2)]
    for row in rows:
        assert 0 < row.p50_ms <= row.p95_ms <= row.p99_ms
        assert (row.history, row.items, row.k) == (5, 30, 10)
        assert len(row.round_p50_ms) == 3 and row.noise is not None
        assert row.floor is not None and row.floor.times_floor > 1
        assert row.graph_ms is not None and row.times_graph_ci95 is not None
        assert row.times_graph is not None and row.times_graph_ci95[0] <= row.times_graph <= row.times_graph_ci95[1]
        assert row.nodes == {"CPUExecutionProvider": sum(row.nodes.values())}
    assert len(found.comparisons) == 2  # fp32 against int8 at each batch
    assert found.bundle.size_bytes == bundle.stat().st_size
    assert found.rss_mb is not None and found.rss_mb > 20
    assert found.method is not None and len(found.method.yardstick_ms) == 3
    assert [roof.threads for roof in found.roofs] == [1]
    assert chart.read_text().startswith("<svg")


def test_it_loads_nothing_that_a_device_has_not(bundle: Path) -> None:
    probe = "import sys; from deploy.cli import run_command; run_command(sys.argv[1:]); print(' '.join(sys.modules))"
    options = [*QUICK[:-3], "--roofline", "--items", "50", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", probe, "bench", str(bundle), *options],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert {"benchmarks", "onnxruntime"} <= loaded
    assert not loaded & {"torch", "transformers", "compress", "onnx", "scipy", "starlette", "uvicorn", "pyarrow"}


def test_a_table_for_people(bundle: Path) -> None:
    done = run(bundle, *QUICK, "--threads", "1,2", "--items", "30,100")
    assert done.exit_code == 0
    for shown in ("p50 ms", "threads", "items", "history 20", "cores", "interleaved rounds", "30 items", "100 items"):
        assert shown in done.output
    # Two precisions of one graph: whatever the clock says, somebody is named or nobody is.
    assert done.output.count("is the fastest") + done.output.count("no winner, within noise") == 2


def test_several_bundles_are_a_line_each(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.slim"
    copy.write_bytes(bundle.read_bytes())
    done = run(bundle, copy, *QUICK, "--json")
    results = [BenchResult.model_validate_json(line) for line in done.output.splitlines()]
    assert [result.bundle.path for result in results] == [str(bundle), str(copy)]
    # Of four cells there are six pairs; each bundle is in five of them.
    assert [len(result.comparisons) for result in results] == [5, 5]
    with pytest.raises(UsageError, match="another path"):
        run(bundle, bundle, *QUICK)


@pytest.mark.parametrize("given", ["0", "1,", "1,x", "1,1", "4097", "-1", ""])
def test_refuses_numbers_that_make_no_grid(bundle: Path, given: str) -> None:
    done = run(bundle, *QUICK, "--batch", given)
    assert done.exit_code == 2 and "different numbers from 1 to 4096" in done.output


def test_refuses_more_history_than_the_bundle_reads(bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"--history: the bundle reads 1 to 20 items \(got 21\)"):
        run(bundle, *QUICK, "--history", "21")


def test_queries_are_seeded_and_fit(subject: Subject) -> None:
    queries = sample_queries(subject.catalogue, 7, 3, seed=0)
    assert {len(batch) for batch in queries} == {3}
    assert all(len(set(history)) == 7 for batch in queries for history in batch)
    assert queries == sample_queries(subject.catalogue, 7, 3, seed=0)
    assert {item for batch in queries for history in batch for item in history} == set(subject.catalogue.ids[1:])
    assert len(sample_queries(subject.catalogue, 20, 4096, seed=0)) == 2  # large batches: bounded in memory


def test_an_absent_provider_is_a_reason(subject: Subject) -> None:
    absent = Device("npu", ("NoSuchExecutionProvider", *CPU), extra="slimrec[npu]")
    why = absent.why_absent(subject.graph("fp32"))
    assert why == "this onnxruntime has no NoSuchExecutionProvider; install slimrec[npu]"


def test_a_provider_without_a_device_is_a_reason(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime says that it has the provider and gives a session without it: no GPU is there."""
    monkeypatch.setattr("benchmarks.bench.devices.ort.get_available_providers", lambda: ["GpuExecutionProvider", *CPU])
    given = onnxruntime.InferenceSession(str(subject.graph("fp32")), providers=list(CPU))
    monkeypatch.setattr("benchmarks.bench.devices.open_session", lambda *_args, **_options: given)
    assert Device("gpu", ("GpuExecutionProvider", *CPU)).why_absent(subject.graph("fp32")) == "no GPU device"


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_absent_cuda_is_a_row_of_what_is_not_measured(bundle: Path) -> None:
    done = run(bundle, *QUICK[:-1], "cuda", "--json")
    found = BenchResult.model_validate_json(done.output)
    assert done.exit_code == 0 and found.latency == []
    assert [absent.what for absent in found.not_measured] == ["cuda latency"]
    shown = run(bundle, *QUICK[:-1], "cuda")
    assert (
        "not measured: cuda latency (this onnxruntime has no CUDAExecutionProvider; install slimrec[gpu])"
        in shown.output
    )


@pytest.fixture
def second_device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device that is not the CPU, run by the CPU's provider: what a GPU goes through, without one."""
    device = Device("cuda", CPU)
    monkeypatch.setitem(DEVICES, "cuda", device)
    return device


def test_another_device_takes_the_same_path(bundle: Path, second_device: Device) -> None:
    done = run(bundle, *QUICK[:4], "--cold-starts", "1", "--no-roofline", "--json")
    found = BenchResult.model_validate_json(done.output)
    assert [(row.device, row.precision) for row in found.latency] == [
        ("cpu", "fp32"),
        ("cpu", "int8"),
        (second_device.name, "fp32"),
        (second_device.name, "int8"),
    ]
    assert [(row.device, row.precision) for row in found.processes] == [
        (row.device, row.precision) for row in found.latency
    ]
    assert NotMeasured(what="cuda memory", why="nvidia-smi does not tell") in found.not_measured


def test_another_device_has_no_floor_and_says_why(
    bundle: Path, second_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    roof = Roof(threads=1, gb_per_s={"1024": 10.0}, gflops=50.0)
    monkeypatch.setattr("benchmarks.bench.roof.fresh_roof", lambda _threads: roof)
    done = run(bundle, *QUICK[:6], "--device", second_device.name, "--roofline", "--json")
    found = BenchResult.model_validate_json(done.output)
    assert all(row.floor is None and row.device_ms is None and row.nodes for row in found.latency)
    assert all(row.graph_ms is not None and row.graph_ms > 0 for row in found.latency)
    assert {absent.what for absent in found.not_measured} == {"cuda roofline", "cuda time of kernels and copies"}


def test_a_device_that_answers_otherwise_is_not_timed(
    subject: Subject, second_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(_self: object) -> None:
        raise GateError("golden.json: cases.0: fp32: place 1 must score 1 within 0.001 (got 2)")

    monkeypatch.setattr("deploy.runtime.Recommender.self_test", differs)
    found = list(devices_of(subject, Conditions(device="cuda")))
    assert found == [
        NotMeasured(
            what=f"{second_device.name} latency of {precision}",
            why="golden.json: cases.0: fp32: place 1 must score 1 within 0.001 (got 2)",
        )
        for precision in ("fp32", "int8")
    ]
    with pytest.raises(GateError):
        list(devices_of(subject, Conditions(device="cpu")))


def test_gpu_memory_is_what_nvidia_smi_tells() -> None:
    def told(text: str) -> Any:
        return lambda command, **_options: subprocess.CompletedProcess(command, 0, text, "")

    def absent(*_arguments: object, **_options: object) -> Any:
        raise FileNotFoundError

    assert used_memory_mb(CUDA, run=told("1000\n7\n")) == pytest.approx(1048.576)
    assert used_memory_mb(CUDA, run=told("[N/A]\n")) is None
    assert used_memory_mb(CUDA, run=absent) is None
    assert used_memory_mb(CPU, run=told("1000\n")) is None


def test_the_graph_alone_is_asked_as_often_as_a_call_asks_it(
    subject: Subject, history_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run of a whole batch; of a graph that must be asked one by one, a run each."""
    model = onnx.load(history_graph)
    onnx.helper.set_model_props(model, {ONE_BY_ONE: ""})
    onnx.save(model, tmp_path / "alone.onnx")
    monkeypatch.setattr(
        Subject, "graph", lambda _self, name: {"int8": tmp_path / "alone.onnx"}.get(name, history_graph)
    )
    asked: list[int] = []

    class Watched(onnxruntime.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types
        def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
            super().run_with_iobinding(binding, options)
            asked.append(len(binding.get_outputs()[0].numpy()))

    def opened(graph: Path, **_options: Any) -> Any:
        return Watched(str(graph), providers=list(CPU))

    monkeypatch.setattr("benchmarks.bench.bare.open_session", opened)
    for precision, wanted in (("fp32", [3]), ("int8", [1, 1, 1])):
        bare_graph(Cell(subject, precision, DEVICES["cpu"], threads=1, batch=3, history=5, k=4, seed=0))()
        assert asked == wanted
        asked.clear()


def test_every_round_opens_a_session_of_its_own(subject: Subject) -> None:
    opened: list[object] = []

    class Watched(Subject):
        def open(self, precision: str, device: Device, threads: int = 1) -> Any:
            recommender = super().open(precision, device, threads)
            opened.append(recommender.ranker)
            return recommender

    watched = Watched(subject.given, subject.path, subject.bundle)
    cell = Cell(watched, "fp32", DEVICES["cpu"], threads=1, batch=2, history=5, k=3, seed=0)
    found = reopened({"cell": Case(cell.open, 2)}, rounds=3, min_runs=6, min_seconds=0.05)["cell"]
    assert len(set(map(id, opened))) == 3
    assert found.batch == 2 and np.unique(found.rounds).tolist() == [0, 1, 2]
