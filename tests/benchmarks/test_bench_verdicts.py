"""Who is called faster, in one run and against an earlier one, from rounds that the test makes up."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.bench.against import Earlier
from benchmarks.bench.cells import Cell, Subject
from benchmarks.bench.chart import chart
from benchmarks.bench.compare import compare
from benchmarks.bench.conditions import Conditions
from benchmarks.bench.devices import DEVICES
from benchmarks.bench.record import BenchResult, Floor
from benchmarks.bench.table import COST, SPEED, lines, show, table
from benchmarks.commands import bench
from benchmarks.machine import describe_machine
from benchmarks.measure import Latency
from benchmarks.result import Machine
from deploy.bundle import open_bundle
from deploy.errors import GateError, UsageError

MACHINE = Machine(cpu="Some CPU", flags=["avx2"], cores=2, versions={"onnxruntime": "1.0"}, system="Linux x86_64")
ROUNDS = 10


@pytest.fixture
def noise() -> NDArray[np.float64]:
    """One per cent, for ten rounds of several things."""
    drawn: NDArray[np.float64] = np.exp(np.random.default_rng(0).normal(0, 0.01, (8, ROUNDS)))
    return drawn


def timed(rounds: NDArray[np.float64]) -> Latency:
    return Latency(rounds, np.arange(len(rounds)))


def cells(bundle: Path, *kinds: tuple[str, int, int]) -> list[Cell]:
    """(precision, threads, batch) each."""
    subject = Subject(bundle, bundle, open_bundle(bundle))
    return [Cell(subject, name, DEVICES["cpu"], threads, batch, 5, 10, 0) for name, threads, batch in kinds]


def test_winners_and_ties(bundle: Path, noise: NDArray[np.float64]) -> None:
    load = np.exp(np.random.default_rng(1).normal(0, 0.5, ROUNDS))  # what all rounds share
    a, b, c, other = cells(bundle, ("fp32", 1, 1), ("int8", 1, 1), ("int8", 2, 1), ("fp32", 1, 8))
    rounds = {a: load * noise[0], b: load * noise[1], c: 0.5 * load * noise[2], other: 9 * load}
    found = compare({cell: timed(values) for cell, values in rounds.items()}, 0.05)
    assert len(found) == 3  # another batch is other work
    verdicts = {(one.a.precision, one.a.threads, one.b.precision, one.b.threads): one.verdict for one in found}
    assert verdicts == {
        ("fp32", 1, "int8", 1): "tie",
        ("fp32", 1, "int8", 2): "slower",
        ("int8", 1, "int8", 2): "slower",
    }
    assert all(one.ci95[0] < one.ratio < one.ci95[1] and one.p <= one.p_holm for one in found)
    assert next(one.ratio for one in found if one.verdict == "slower") == pytest.approx(0.5, rel=0.02)


def result(noise: NDArray[np.float64], *, times: float = 1.0, yard: float = 1.0, **changes: Any) -> BenchResult:
    """Two rows and a process, `times` slower than 1 ms on a machine `yard` times slower than its yardstick's .5 ms."""
    shape = {"path": "cached", "runtime": "onnxruntime", "device": "cpu", "threads": 1, "history": 20, "items": 30}
    figures = {"precision": "fp32", "p95_ms": 2.0, "p99_ms": 3.0, "per_second": 1.0, "runs": 10}
    rows = [
        shape | figures | {"batch": batch, "p50_ms": times, "round_p50_ms": (times * values).tolist()}
        for batch, values in zip((1, 8), noise[:2], strict=True)
    ]
    process = {"device": "cpu", "precision": "fp32", "threads": 1, "items": 30, "rss_mb": 80.0, "load_ms": 500.0}
    process |= {"rss_mb_runs": [80.0, 80.1, 79.9], "load_ms_runs": [500.0, 510.0, 490.0]}
    method = {"rounds": ROUNDS, "max_seconds": 1.0, "max_runs": 1000, "seed": 0, "warm_up": "none", "tolerance": 0.05}
    document = {
        "bundle": {"path": "b.slim", "digest": "sha256:0", "size_bytes": 1, "text_encoder_bytes": 0},
        "machine": MACHINE,
        "latency": rows,
        "processes": [process],
        "method": method | {"yardstick_ms": (0.5 * yard * noise[2]).tolist()},
    }
    return BenchResult.model_validate(document | changes)


def read(tmp_path: Path, then: BenchResult, machine: Machine = MACHINE) -> Earlier:
    file = tmp_path / "then.json"
    file.write_text(then.to_json() + "\n")
    return Earlier.read(file, machine, ["b.slim"], Conditions(batch=(1, 8)))


@pytest.mark.parametrize(
    ("times", "yard", "verdict"),
    [
        (1.0, 1.0, "tie"),
        (1.03, 1.0, "tie"),  # within the tolerance
        (1.3, 1.0, "worse"),
        (1.3, 1.3, "slower machine"),
        (0.7, 1.0, "better"),
        (0.7, 0.7, "tie"),  # the machine is faster, not the bundle
    ],
)
def test_verdicts_against_an_earlier_run(
    tmp_path: Path, noise: NDArray[np.float64], times: float, yard: float, verdict: str
) -> None:
    earlier = read(tmp_path, result(noise))
    [now] = earlier.beside([result(noise[::-1], times=times, yard=yard)])
    assert now.against is not None
    latency = [change for change in now.against.changes if change.what == "p50_ms"]
    assert [change.verdict for change in latency] == [verdict] * 2
    assert [change.ratio for change in latency] == pytest.approx([times] * 2, rel=0.02)
    assert now.against.yardstick_ratio == pytest.approx(yard, rel=0.02)
    if verdict == "worse":
        with pytest.raises(GateError) as refused:
            earlier.refuse_regressions([now])
        assert len(refused.value.lines) == 2 and "1.000 -> 1.300" in refused.value.lines[0]
    else:
        earlier.refuse_regressions([now])


def test_a_slow_down_inside_the_noise_is_none(tmp_path: Path, noise: NDArray[np.float64]) -> None:
    rough = noise**30  # thirty per cent
    [now] = read(tmp_path, result(rough)).beside([result(rough[::-1], times=1.2)])
    assert now.against is not None and now.against.worse == []


def test_memory_and_load_are_judged_too(tmp_path: Path, noise: NDArray[np.float64]) -> None:
    process = result(noise).processes[0].model_dump() | {"rss_mb": 100.0, "rss_mb_runs": [100.0, 100.1, 99.9]}
    [now] = read(tmp_path, result(noise)).beside([result(noise[::-1], processes=[process])])
    assert now.against is not None
    assert {change.what: change.verdict for change in now.against.changes} == {
        "p50_ms": "tie",
        "rss_mb": "worse",
        "load_ms": "tie",
    }


def test_another_machine_is_not_comparable(tmp_path: Path, noise: NDArray[np.float64]) -> None:
    other = MACHINE.model_copy(update={"cpu": "Another CPU", "cores": 4})
    with pytest.raises(UsageError) as refused:
        read(tmp_path, result(noise), machine=other)
    first, second = refused.value.lines
    assert "measured on another machine: cpu must be 'Another CPU' (got 'Some CPU')" in first
    assert "cores must be 4 (got 2)" in second


def test_what_else_differs_is_told(tmp_path: Path, noise: NDArray[np.float64]) -> None:
    machine = MACHINE.model_copy(update={"versions": {"onnxruntime": "2.0"}, "governor": "powersave"})
    row = result(noise).latency[0].model_copy(update={"batch": 64})
    bundle = result(noise).bundle.model_copy(update={"digest": "sha256:1"})
    [now] = read(tmp_path, result(noise)).beside(
        [result(noise, machine=machine, bundle=bundle, latency=[*result(noise).latency, row])]
    )
    assert now.against is not None and now.against.notes == [
        "the bundle is another than then",
        "governor: None then, powersave now",
        "onnxruntime: 1.0 then, 2.0 now",
        "1 row(s) were not measured then",
    ]
    told = list(lines([now]))
    assert any("yardstick takes 1.00 times" in line for line in told)
    assert any("onnxruntime: 1.0 then" in line for line in told)


def test_refuses_what_is_no_earlier_result(tmp_path: Path, noise: NDArray[np.float64]) -> None:
    def refused(text: str) -> str:
        file = tmp_path / "bad.json"
        file.write_text(text)
        with pytest.raises(UsageError) as error:
            Earlier.read(file, MACHINE, ["a.slim", "b.slim"], Conditions())
        return error.value.lines[0]

    assert "holds no result" in refused("")
    assert "line 1" in refused('{"schema": 2}')
    assert "has no row of this bundle (got a.slim)" in refused(result(noise).to_json())
    with pytest.raises(UsageError, match="cannot be read"):
        Earlier.read(tmp_path / "absent", MACHINE, ["b.slim"], Conditions())
    file = tmp_path / "then.json"
    file.write_text(result(noise).to_json())
    with pytest.raises(UsageError, match="no row of these threads"):
        Earlier.read(file, MACHINE, ["b.slim"], Conditions(threads=(7,)))


def test_a_regression_ends_the_command(bundle: Path, tmp_path: Path, refused: Any) -> None:
    """Real rows against rows that were a thousand times faster: exit 3, one line each, after the result was printed."""
    options = ["--seconds", "0.02", "--rounds", "5", "--cold-starts", "0", "--no-roofline", "--history", "5", "--json"]
    done = CliRunner().invoke(bench, [str(bundle), *options], catch_exceptions=False)
    then = BenchResult.model_validate_json(done.output)
    rows = [
        row.model_copy(update={"round_p50_ms": [value / 1000 for value in row.round_p50_ms]}) for row in then.latency
    ]
    file = tmp_path / "then.json"
    file.write_text(then.model_copy(update={"latency": rows}).to_json())
    with pytest.raises(GateError) as error:
        CliRunner().invoke(bench, [str(bundle), *options, "--against", str(file)], catch_exceptions=False)
    assert len(error.value.lines) == 2 and all(line.endswith("worse") for line in error.value.lines)
    elsewhere = then.machine.model_copy(update={"cpu": "Another CPU"})
    file.write_text(then.model_copy(update={"machine": elsewhere}).to_json())
    [line] = refused(2, "bench", bundle, *options, "--against", file)
    assert "measured on another machine: cpu must be" in line and describe_machine().cpu in line


def test_a_narrow_terminal_gets_two_tables(noise: NDArray[np.float64]) -> None:
    def shown(width: int) -> str:
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
        show([found], console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    floor = {"bytes_read": 1, "flops": 1, "int8_ops": 0, "floor_ms": 0.1, "bound": "memory", "times_floor": 9.0}
    more = {"noise": 0.01, "times_graph": 1.2, "size_bytes": 10**6, "floor": Floor.model_validate(floor)}
    found = result(noise)
    found = found.model_copy(update={"latency": [row.model_copy(update=more) for row in found.latency]})
    wide, narrow = shown(160), shown(80)
    assert (wide.count("precision"), narrow.count("precision")) == (1, 2)
    for name in (*SPEED, *COST):
        there = name != "beside best"  # each row has its work to itself
        assert (name in wide, name in narrow) == (there, there)
    assert "…" not in narrow
    bare = found.model_copy(update={"latency": result(noise).latency, "processes": []})
    assert [column.header for column in table([bare], COST).columns] == ["precision", "batch"]


def test_charts(noise: NDArray[np.float64]) -> None:
    swept = chart([result(noise)])
    assert ">batch<" in swept and ">p50 ms<" in swept and swept.count("<circle") == 2
    one = chart([result(noise, latency=result(noise).latency[:1])])
    assert "99th percentile" in one and one.count('class="cross s0"') == 2  # no distribution was kept
    kept = {1: 0.5, 5: 0.6, 25: 0.8, 75: 1.2}
    row = result(noise).latency[0].model_copy(update={"percentiles_ms": kept})
    assert chart([result(noise, latency=[row])]).count("<rect") == 1 + 3
    with pytest.raises(UsageError, match="no row was measured"):
        chart([result(noise, latency=[])])
