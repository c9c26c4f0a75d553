"""Data without order, and training on a share of the users."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data.dataset import Dataset
from compress.data.domains import Events
from compress.data.load import DataConfig, load_data
from compress.data.order import in_random_order, train_on_some_users
from compress.data.splits import LeaveOneOut
from compress.distil.sequence import SequenceStudent, new_student, train_student
from compress.distil.step import Teaching
from compress.models.folder import read_json
from compress.models.sequence import SequenceShape
from compress.prune.layers import prune_widths
from compress.prune.views import Width
from compress.stage import RunOptions
from compress.training import Training
from deploy.errors import UsageError

WORLD = {"name": "synthetic", "users": 200, "items": 40, "events": 10}


def data(tmp_path: Path, domain: dict[str, Any] | None = None, **config: Any) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    config = {"domains": {"target": {"from": WORLD, **(domain or {})}}, **config}
    load_data(DataConfig.model_validate(config), {}, out, RunOptions())
    return out


def some_events(counts: list[int]) -> Events:
    rows = np.arange(1, sum(counts) + 1, dtype=np.int32)
    return Events([f"u{i}" for i in range(len(counts))], np.cumsum([0, *counts]), rows, rows.astype(np.float64))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(0, 9))
def test_a_random_order_moves_events_within_their_user(counts: list[int], seed: int) -> None:
    before = some_events(counts)
    after = in_random_order(before, seed)
    np.testing.assert_array_equal(after.offsets, before.offsets)
    for start, stop in zip(before.offsets[:-1], before.offsets[1:], strict=True):
        assert set(after.rows[start:stop]) == set(before.rows[start:stop])
    np.testing.assert_array_equal(after.times, after.rows)  # a row keeps its time
    np.testing.assert_array_equal(in_random_order(before, seed).rows, after.rows)


def test_every_place_is_equally_likely_to_be_the_test_case() -> None:
    events = some_events([4] * 4000)
    last = in_random_order(events, 0).rows[3::4] - 1
    shares = np.bincount(last % 4) / 4000
    np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 4000))


def test_random_liked_asks_for_any_of_a_users_likes(tmp_path: Path) -> None:
    out = data(tmp_path, split="random_liked", min_rating=3)
    assert read_json(out / "dataset.json")["protocol"]["split"] == "random-liked"
    assert not read_json(out / "dataset.json")["domains"]["target"]["timed"]
    found = Dataset.open(out)
    order = [
        np.argsort(np.argsort(found.times[a:b])) for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)
    ]
    assert len({int(places[-1]) for places in order}) > 3  # the test case is no longer the newest
    cases = found.cases("test")
    np.testing.assert_array_equal(cases.stops, found.offsets[cases.users + 1] - 1)
    assert not found.train[cases.stops].any() and not found.train[found.cases("valid").stops].any()


def test_a_domain_without_order_says_so_itself(tmp_path: Path) -> None:
    out = data(tmp_path, {"order": "none"})
    assert read_json(out / "dataset.json")["protocol"]["split"] == "random-liked"
    (tmp_path / "second").mkdir()
    with pytest.raises(UsageError, match="needs a time column"):
        data(tmp_path / "second", {"order": "none"}, split="time")


def test_a_share_of_the_users_trains_and_all_are_asked(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    whole, part = Dataset.open(data(tmp_path / "all")), Dataset.open(data(tmp_path, {"train_users": 0.1}))
    trained = {u for u in range(200) if part.train[part.offsets[u] : part.offsets[u + 1]].any()}
    assert len(trained) == 20
    np.testing.assert_array_equal(part.items, whole.items)
    assert set(part.cases("valid").users.tolist()) == trained
    np.testing.assert_array_equal(part.cases("test").targets, whole.cases("test").targets)
    for user in trained:
        mine = slice(part.offsets[user], part.offsets[user + 1])
        np.testing.assert_array_equal(part.train[mine], whole.train[mine])
    assert part.popularity.sum() == part.train.sum() < whole.train.sum() / 5


def test_shares_are_nested_and_at_least_one_user() -> None:
    events = some_events([5] * 40)
    division = LeaveOneOut()(events, True)
    few, more = (train_on_some_users(division, events, share, 3).train for share in (0.01, 0.5))
    assert few.sum() == 3 and more.sum() == 60 and (more | ~few).all()
    assert train_on_some_users(division, events, 1.0, 3) is division
    assert (train_on_some_users(division, events, 0.5, 4).train != more).any()


def test_without_distances_no_bias_is_ever_learned(tmp_path: Path) -> None:
    found = Dataset.open(data(tmp_path, split="random_liked"))
    config = SequenceStudent(dim=8, heads=2, neurons=8, max_history=5, distances=False)
    student = new_student(config, found, Teaching(tmp_path), 0)
    training = Training(epochs=1, learning_rate=0.01, warmup_epochs=0)
    rng = np.random.default_rng(0)
    train_student(student, found, Teaching(tmp_path), (), training, rng, RunOptions(threads=1), "student")
    prune_widths(student.encoder, [Width((1,), (0, 1, 2))])
    student.shape = student.encoder.shape
    train_student(student, found, Teaching(tmp_path), (), training, rng, RunOptions(threads=1), "recover")
    for block in student.encoder.each_block():
        assert not block.distance_bias.any() and block.up.weight.grad is not None
    assert SequenceShape.model_validate_json(student.shape.model_dump_json()) == student.shape
    assert "distances" not in student.shape.model_copy(update={"distances": True}).model_dump_json()
