"""A domain of which K interactions are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.data.dataset import Dataset
from compress.data.domains import Events
from compress.data.few_shot import FewShot
from compress.data.load import DataConfig, load_data
from compress.data.order import train_on_few_events
from compress.data.splits import LeaveOneOut
from compress.stage import RunOptions

WORLD = {"name": "synthetic", "users": 60, "items": 40, "events": 12}


def data(out: Path, seed: int = 0, **domain: Any) -> Dataset:
    out.mkdir()
    config = {"domains": {"target": {"from": WORLD, **domain}}, "seed": seed}
    load_data(DataConfig.model_validate(config), {}, out, RunOptions())
    return Dataset.open(out)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(2, 30), st.integers(2, 6), st.integers(0, 9))
def test_as_many_as_there_are_up_to_k(counts: list[int], events: int, per_user: int, seed: int) -> None:
    offered = np.minimum(counts, per_user)
    kept = FewShot(events=events, per_user=per_user)(np.array(counts), np.random.default_rng(seed))
    assert kept.sum() == min(events, offered.sum())
    assert (kept <= offered).all()
    assert ((kept > 0) & (kept < offered)).sum() <= 1  # only the last user drawn may give less
    more = FewShot(events=events + 1, per_user=per_user)(np.array(counts), np.random.default_rng(seed))
    assert (more >= kept).all()


def test_users_give_their_oldest_training_events() -> None:
    rows = np.arange(1, 25, dtype=np.int32)
    events = Events([f"u{i}" for i in range(4)], np.arange(0, 25, 6), rows, rows.astype(np.float64))
    division = LeaveOneOut()(events, True)  # four of six train
    few = train_on_few_events(division, events, FewShot(events=5, per_user=3), 1)
    order = np.random.default_rng([1, 3]).permutation(4)
    expected = [6 * order[0], 6 * order[0] + 1, 6 * order[0] + 2, 6 * order[1], 6 * order[1] + 1]
    assert np.flatnonzero(few.train).tolist() == sorted(expected)
    assert few.valid.users.tolist() == sorted(order[:2].tolist())
    assert few.test is division.test
    assert train_on_few_events(division, events, None, 1) is division


def test_all_else_of_the_domain_stays(tmp_path: Path) -> None:
    whole = data(tmp_path / "whole")
    few = data(tmp_path / "few", few_shot={"events": 10})
    assert few.train.sum() == few.popularity.sum() == 10
    np.testing.assert_array_equal(few.items, whole.items)
    np.testing.assert_array_equal(few.cases("test").targets, whole.cases("test").targets)
    np.testing.assert_array_equal(few.cases("test").histories(5), whole.cases("test").histories(5))
    sequences = [events for events in few.train_sequences() if len(events)]
    assert [len(events) for events in sequences] == [5, 5]
    other = data(tmp_path / "other", seed=1, few_shot={"events": 10})
    assert (other.train != few.train).any()


@pytest.mark.parametrize("wrong", [{"events": 1}, {"events": 10, "per_user": 1}, {"per_user": 3}])
def test_one_event_teaches_nothing(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        FewShot.model_validate(wrong)
