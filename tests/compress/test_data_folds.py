"""Folds of users: who is asked, and that nothing of theirs trains, in any domain."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.baselines.run import BaselinesConfig, train_baselines
from compress.data.dataset import Dataset
from compress.data.domains import Events
from compress.data.load import DataConfig, load_data
from compress.data.splits import UserFolds
from compress.models.folder import read_json
from compress.stage import RunOptions
from deploy.errors import UsageError

WORLD = {"name": "synthetic", "users": 120, "items": 60, "events": 10}
DOMAINS = {
    name: {"from": WORLD, "items": {"class": [genre]}} for name, genre in (("source", "Action"), ("target", "Drama"))
}


def data(out: Path, **split: Any) -> Path:
    out.mkdir()
    config = {"domains": DOMAINS, "split": {"name": "user_folds", **split}}
    load_data(DataConfig.model_validate(config), {}, out, RunOptions())
    return out


def some_events(counts: list[int]) -> Events:
    rows = np.arange(1, sum(counts) + 1, dtype=np.int32)
    return Events([f"u{i}" for i in range(len(counts))], np.cumsum([0, *counts]), rows, rows.astype(np.float64))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=60, max_size=80), st.integers(3, 4), st.integers(0, 99))
def test_every_user_is_asked_once_and_trains_in_all_folds_but_two(counts: list[int], folds: int, draw: int) -> None:
    counts = [*counts, 1]  # no history: trains, is never asked
    events = some_events(counts)
    asked, trained = np.zeros(len(counts), int), np.zeros(len(counts), int)
    for fold in range(folds):
        division = UserFolds(folds=folds, fold=fold, draw=draw)(events, True)
        asked[division.test.users] += 1
        trained += np.add.reduceat(division.train, events.offsets[:-1]) == counts  # all of their events
        np.testing.assert_array_equal(division.test.positions, events.offsets[division.test.users + 1] - 1)
        held = np.union1d(division.test.users, division.valid.users)
        assert not np.intersect1d(division.test.users, division.valid.users).size
        assert not division.train[np.isin(events.owners(), held)].any()
    np.testing.assert_array_equal(asked, (np.array(counts) >= 2).astype(int))
    np.testing.assert_array_equal(trained, np.full(len(counts), folds - 2))


def test_a_user_is_in_the_same_fold_of_every_domain(tmp_path: Path) -> None:
    out = data(tmp_path / "out", folds=4, fold=2)
    assert read_json(out / "dataset.json")["protocol"]["split"] == "user-folds"
    source, target = Dataset.open(out, "source"), Dataset.open(out)
    held = {user for user in target.users if UserFolds(folds=4, fold=2).fold_of(user) in (2, 3)}
    assert set(source.users) & held and len(target.cases("test")) and len(target.cases("valid"))
    for domain in (source, target):
        for user, rows in zip(domain.users, domain.train_sequences(), strict=True):
            assert (len(rows) == 0) == (user in held)


def test_what_held_out_users_did_changes_no_baseline(tmp_path: Path) -> None:
    """Everything that trains reads `train`; so do the baselines, item-item weights included."""
    out, answers = data(tmp_path / "data", fold=1), []
    dataset = Dataset.open(out)
    cases = dataset.cases("test")
    for changed in (False, True):
        if changed:  # the asked users' last event becomes another item
            with np.load(out / "domains/target/events.npz") as stored:
                events = {name: stored[name].copy() for name in stored.files}
            events["items"][cases.stops] = events["items"][cases.starts]
            np.savez(out / "domains/target/events.npz", **events)
        made = tmp_path / f"baselines{changed}"
        made.mkdir()
        train_baselines(BaselinesConfig(), {"data": out}, made, RunOptions(threads=1))
        with np.load(made / "ease.npz") as tops:
            answers.append(tops["test_top"])
    np.testing.assert_array_equal(*answers)


def test_folds_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"fold is one of 0 to 4 \(got 5\)"):
        UserFolds(fold=5)
    with pytest.raises(UsageError, match=r"data\.split\.folds: .* \(got 50 for 4 users\)"):
        UserFolds(folds=50)(some_events([3, 3, 3, 3]), True)
