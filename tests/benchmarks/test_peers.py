"""Peers as real processes: a fake one, one that fails and ours, each in an "environment" that is this interpreter."""

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.accuracy import ndcg, paired_difference, ranks_of, summarise
from benchmarks.case_table import CaseTable
from benchmarks.evaluate import answer
from benchmarks.peers.adapters.fit import Watch, windows
from benchmarks.peers.environment import Installed, build
from benchmarks.peers.export import Exported, export
from benchmarks.peers.measure import Conditions
from benchmarks.peers.plan import Environment, Peer, Plan, plan
from benchmarks.peers.process import AdapterProcess, PeerError
from benchmarks.peers.record import TIMED_ALONE, PeerRow, Rows, read_rows
from benchmarks.peers.run import Bench
from benchmarks.peers.split import Ragged, Split, padded
from benchmarks.peers.table import markdown
from benchmarks.peers.train import Limits
from benchmarks.result import Dataset, Protocol
from deploy.errors import SlimrecError
from deploy.runtime import Recommender

ROOT = Path(__file__).parents[2]
FAKE = "tests.benchmarks.fake_peer"
BRIEF = Conditions(history=5, k=3, rounds=2, runs=4, seconds=0.02, fresh=1)


def this_interpreter(folder: Path, environment: Environment) -> None:
    """An environment that was installed before."""
    python = folder / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    installed = Installed(install=environment.install, python=sys.version.split()[0], size_bytes=5_000_000)
    folder.joinpath("environment.json").write_text(installed.to_json())


def split_of(users: int = 40) -> Split:
    """Histories that repeat the first items most, ids as the tiny bundle has them."""
    rng = np.random.default_rng(1)
    histories = [rng.permutation(30)[:8] // 2 + 1 for _ in range(users)]
    histories = [np.array(list(dict.fromkeys(rows.tolist())), np.int64) for rows in histories]
    return Split(
        ids=[f"item-{row}" for row in range(1, 31)],
        train=Ragged.of([rows[:-2] for rows in histories]),
        valid=Ragged.of([rows[:-2] for rows in histories]),
        valid_targets=np.array([rows[-2] for rows in histories]),
        test=Ragged.of([rows[:-1] for rows in histories]),
    )


@pytest.fixture
def bench(bundle: Path, tmp_path: Path) -> Bench:
    split = split_of()
    split.save(tmp_path / "split.npz")
    environment = Environment(install=["nothing"])
    peers = {
        "slimrec": Peer(environment="ours", adapter="slimrec", what="ours"),
        "fails": Peer(environment="theirs", adapter=FAKE, what="fails", training={"epochs": 9, "fails": True}),
        "popular": Peer(environment="theirs", adapter=FAKE, what="popularity", training={"epochs": 9}),
        "dies": Peer(environment="theirs", adapter=FAKE, what="dies", training={"epochs": 9}, serving={"dies": True}),
    }
    for name in ("ours", "theirs"):
        this_interpreter(tmp_path / "environments" / name, environment)
    data = Exported(
        file=tmp_path / "split.npz",
        split=split,
        targets=np.full(len(split.test), 3, np.int32),
        texts=[],
        dataset=Dataset(name="made", users=40, items=30, interactions=320),
        protocol=Protocol(split="leave-one-out", seeds=[0]),
        digest="0",
    )
    environments = {"ours": environment, "theirs": environment}
    return Bench(
        Plan(environments=environments, peers=peers),
        data,
        bundle,
        tmp_path / "environments",
        tmp_path / "out",
        Limits(patience=3),
        BRIEF,
    )


def test_rows_failures_and_resuming(bench: Bench, bundle: Path, tmp_path: Path) -> None:
    bench.out.mkdir()
    said: list[str] = []
    bench = replace(bench, log=said.append)
    table = CaseTable(tmp_path / "peers-made.json", Rows, markdown)
    bench.rows(list(bench.plan.peers), table)
    rows = {row.name: row for row in read_rows(table.path)}
    assert list(rows) == list(bench.plan.peers)

    # whatever goes wrong is said in its own row
    assert [(m.what, m.why) for m in rows["fails"].not_measured] == [
        ("training", "train: ValueError: it does not like this data")
    ]
    assert rows["fails"].environment_mb == 5.0 and rows["fails"].test is None
    assert {m.what for m in rows["dies"].not_measured} == {"accuracy", "latency", "fresh processes"}
    assert "ended with 3" in rows["dies"].not_measured[0].why
    assert not rows["dies"].done and rows["popular"].done and rows["slimrec"].done

    # the numbers are those of our one implementation, from what each ranked
    split, targets = bench.data.split, bench.data.targets
    ours = Recommender.load(bundle)
    limit = ours.bundle.manifest.model.max_history
    own = ranks_of(answer(ours.ranker, split.test.lists, limit, len(ours.catalogue)), targets)
    assert rows["slimrec"].test is not None and rows["slimrec"].test.ndcg_10 == pytest.approx(ndcg(own).mean())
    counts = np.bincount(split.train.rows, minlength=31).astype(float)
    top = [[row for row in np.argsort(-counts[1:], kind="stable") + 1 if row not in seen] for seen in split.test.lists]
    best = padded([np.array(rows[:10]) for rows in top], 10)
    ranks = ranks_of(best, targets)
    popular = rows["popular"]
    assert popular.test is not None and popular.comparison is not None
    assert popular.test.ndcg_10 == pytest.approx(summarise(ranks, best, 30)["ndcg@10"])
    assert popular.comparison.difference == pytest.approx(paired_difference(ndcg(own), ndcg(ranks))[0])

    # validation chose the second epoch and waited three more
    found = popular.training
    assert found is not None and (found.epoch, found.epochs) == (2, 5)
    assert found.ended == "3 validations without a better one" and len(found.curve) == 5
    latency, fresh = popular.latency, popular.fresh
    assert latency is not None and latency.runs == 4 and len(latency.ours_round_p50_ms) == 2
    assert 0 < latency.p50_ms < latency.ours_p50_ms  # numpy alone, 30 items
    assert fresh is not None and 10 < fresh.rss_mb < 500 and fresh.cold_start_ms > 10
    assert popular.packages["numpy"] == np.__version__ and popular.size_bytes == 252

    text = markdown(list(rows.values()))
    assert "| popular | popularity | " in text and "- dies, latency not measured: " in text

    # a training that its budget ended while it got better is no ground for a verdict
    short = found.model_copy(update={"epoch": 5, "ended": "its budget, 1 CPU s"})
    assert not found.cut_short and short.cut_short
    assert ", cut short | 5 of 5 |" in markdown([popular.model_copy(update={"training": short})])
    assert ", cut short" not in text and popular.comparison.verdict in text

    # again: what is there stays, what failed is tried again
    said.clear()
    bench.rows(list(bench.plan.peers), table)
    assert [line for line in said if "measured already" in line] == [
        "slimrec: measured already",
        "popular: measured already",
    ]
    assert any(line.startswith("fails: training: ") for line in said)
    again = {row.name: row for row in read_rows(table.path)}
    assert again["popular"] == popular
    # other conditions are another row, of the same training
    other = replace(bench, conditions=BRIEF.model_copy(update={"k": 2}))
    other.rows(["popular"], table)
    changed = next(row for row in read_rows(table.path) if row.name == "popular")
    assert changed.key != popular.key and changed.training == found


def test_times_alone(bench: Bench, tmp_path: Path) -> None:
    bench.out.mkdir()
    bench = replace(bench, limits=Limits(batches=1))
    table = CaseTable(tmp_path / "peers-made.json", Rows, markdown)
    bench.rows(["popular"], table)
    (row,) = table.read()
    assert row.training is not None and row.training.valid_ndcg_10 is None and row.training.epochs == 1
    assert [missing.why for missing in row.not_measured] == [f"{TIMED_ALONE}"] and row.done
    assert row.latency is not None and row.fresh is not None and row.test is None


def test_an_adapter_that_does_not_answer(tmp_path: Path) -> None:
    with AdapterProcess(Path(sys.executable), FAKE, tmp_path / "log") as process:
        assert process.ask("versions")["packages"]["numpy"] == np.__version__
        with pytest.raises(PeerError, match="recommend: ValueError: no model is open"):
            process.ask("recommend", history=[], k=1)
        with pytest.raises(PeerError, match="AttributeError"):
            process.ask("dance")
        with pytest.raises(PeerError, match=r"no answer in 0 s"):
            process.ask("open", folder=str(tmp_path), settings={"sleeps": True}, timeout_s=0.1)
    with (
        AdapterProcess(Path(sys.executable), "tests.benchmarks.absent", tmp_path / "log") as process,
        pytest.raises(PeerError, match="No module named"),
    ):
        process.ask("versions")


def test_an_environment_that_cannot_be_installed(tmp_path: Path) -> None:
    wanted = Environment(install=["--no-index no-such-distribution-anywhere"])
    this_interpreter(tmp_path, Environment(install=["something else"]))
    with pytest.raises(SlimrecError, match=r"theirs: .*no-such-distribution-anywhere"):
        build("theirs", wanted, tmp_path, tmp_path / "log")
    same = Environment(install=["something else"])
    assert build("theirs", same, tmp_path, tmp_path / "log").size_bytes == 5_000_000


def test_watch_ends_by_budget_and_by_epochs() -> None:
    split, kept = split_of(), []

    def watch(**settings: object) -> Watch:
        asked = {"epochs": 3, "budget": 1e9, "patience": 9, "validate_every": 2, "batches": None} | settings
        rank = lambda lists, depth: np.zeros((len(lists), depth), np.int32)  # noqa: E731
        return Watch(split, asked, rank, lambda: kept.append(1))

    found = watch()
    assert [found.goes_on() for _ in range(3)] == [True, True, False]
    assert found.told()["ended"] == "all epochs" and [epoch for epoch, _ in found.told()["curve"]] == [2, 3]
    assert len(kept) == 1 and found.told()["epoch"] == 2  # equal is not better
    spent = watch(budget=-1.0)
    assert not spent.goes_on() and spent.told()["epochs"] == 1 and "budget" in spent.told()["ended"]


def test_windows_ask_for_every_event() -> None:
    rows = np.arange(1, 12)
    split = replace(split_of(), train=Ragged.of([rows, rows[:3], rows[:1]]))
    found = [piece.tolist() for piece in windows(split, 4)]
    assert found == [[7, 8, 9, 10, 11], [5, 6, 7, 8, 9], [3, 4, 5, 6, 7], [1, 2, 3, 4, 5], [1, 2, 3]]


def test_export_keeps_the_answers(tmp_path: Path) -> None:
    found = export(str(ROOT / "recipes" / "tiny.yaml"), tmp_path)
    split = Split.load(found.file)
    assert split.ids == found.split.ids and len(found.texts) == split.n_items
    assert len(split.test) == len(found.targets) == found.dataset.users
    # the validation target is the end of the test history; the test target is nowhere
    users = {tuple(rows.tolist()): place for place, rows in enumerate(split.valid.lists)}
    for rows, target in zip(split.test.lists, found.targets, strict=True):
        place = users[tuple(rows[:-1].tolist())]
        assert split.valid_targets[place] in split.valid_targets and target > 0
        assert np.array_equal(split.train[place], split.valid[place])
    with np.load(found.file) as file:
        assert not any("test_targets" in name for name in file.files)
    assert export(str(ROOT / "recipes" / "tiny.yaml"), tmp_path).digest == found.digest


def test_the_shipped_plan() -> None:
    shipped = plan()
    assert {"recbole", "replay-compiled", "rectools", "torch-rechub-int8"} <= set(shipped.peers)
    assert all(find_spec(peer.module) for peer in shipped.peers.values())
    one, other = shipped.peers["torch-rechub"], shipped.peers["torch-rechub-int8"]
    assert one.training_key("a", {}) == other.training_key("a", {}) != one.training_key("b", {})
    with pytest.raises(ValidationError, match=r"peers\.x\.environment"):
        Plan(environments=shipped.environments, peers={"x": one.model_copy(update={"environment": "y"})})


def test_a_row_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        PeerRow.model_validate({"name": "a", "speed": 1})
