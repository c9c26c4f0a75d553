"""Baselines by hand, on the synthetic world, and on MovieLens-100k against the published figures."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from benchmarks.accuracy import ndcg, ranks_of, recall
from compress.accuracy import DEPTH
from compress.baselines.models import Ease, ease_weights, recent_popularity
from compress.baselines.run import BaselinesConfig, fitted, train_baselines
from compress.data.dataset import Dataset
from compress.data.load import DataConfig, load_data
from compress.stage import RunOptions
from compress.training import top_of_cases
from deploy.errors import UsageError

NAMES = ("popularity", "recent_popularity", "ease")


def make(folder: Path, domain: dict[str, Any], **config: Any) -> tuple[Path, Path]:
    data, out = folder / "data", folder / "baselines"
    data.mkdir()
    out.mkdir()
    load_data(DataConfig.model_validate({"domains": {"target": domain}, **config}), {}, data, RunOptions())
    train_baselines(BaselinesConfig(), {"data": data}, out, RunOptions())
    return data, out


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make(tmp_path_factory.mktemp("synthetic"), {"from": "synthetic"}, cold_fraction=0.1)


def test_ease_weights_minimise_the_ridge_loss_with_a_zero_diagonal() -> None:
    x = np.random.default_rng(0).integers(0, 2, (30, 6)).astype(float)
    weights = ease_weights(x.T @ x, 2.0)
    assert np.abs(np.diag(weights)).max() == 0
    for column in range(6):
        # with its diagonal fixed at 0, each column is a ridge regression on the other columns
        others = np.delete(x, column, axis=1)
        solution = np.linalg.solve(others.T @ others + 2.0 * np.eye(5), others.T @ x[:, column])
        np.testing.assert_allclose(np.delete(weights[:, column], column), solution, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_ranked_unseen_rows(synthetic: tuple[Path, Path], name: str) -> None:
    data, out = Dataset.open(synthetic[0]), synthetic[1]
    with np.load(out / f"{name}.npz", allow_pickle=False) as tops:
        for kind in ("valid", "test", "cold"):
            cases, top = data.cases(kind), tops[f"{kind}_top"]
            assert top.shape == (len(cases), data.n_items)
            assert top.dtype == np.int32
            for row, seen in zip(top, cases.seen, strict=True):
                answered = row[row > 0]
                assert set(answered) == set(range(1, data.n_items + 1)) - set(seen.tolist())
                assert len(set(answered)) == len(answered)


def test_validation_chooses(synthetic: tuple[Path, Path]) -> None:
    data, out = Dataset.open(synthetic[0]), synthetic[1]
    valid = data.cases("valid")
    report = json.loads((out / "baselines.json").read_text())
    assert tuple(sorted(report)) == tuple(sorted(NAMES))
    for name, found in report.items():
        best = max(found["trials"], key=lambda trial: trial["valid_ndcg@10"])
        assert found["settings"] == best["settings"]
        with np.load(out / f"{name}.npz", allow_pickle=False) as tops:
            mean = ndcg(ranks_of(tops["valid_top"], valid.targets), 10).mean()
        assert mean == pytest.approx(found["valid_ndcg@10"])


def test_popularity_orders_by_training_counts(synthetic: tuple[Path, Path]) -> None:
    data, out = Dataset.open(synthetic[0]), synthetic[1]
    with np.load(out / "popularity.npz", allow_pickle=False) as tops:
        first = tops["test_top"][0]
    counts = data.popularity[first[first > 0]]
    assert (np.diff(counts) <= 0).all()


def test_recent_popularity_counts_the_last_window(synthetic: tuple[Path, Path]) -> None:
    data = Dataset.open(synthetic[0])
    times, rows = data.times[data.train], data.items[data.train]
    start = times.max() - 0.1 * (times.max() - times.min())
    recent = recent_popularity(data, 0.1)
    for row in range(1, data.n_items + 1):
        assert int(recent[row]) == sum(1 for r, t in zip(rows, times, strict=True) if r == row and t >= start)
    assert np.floor(recent_popularity(data, 1.0)).tolist() == data.popularity.tolist()


def test_ease_scores_the_last_items_of_the_history(synthetic: tuple[Path, Path]) -> None:
    data = Dataset.open(synthetic[0])
    cases = data.cases("test")
    (three,) = Ease(lambdas=(5.0,), last=3).trials(data)
    (one,) = Ease(lambdas=(5.0,), last=1).trials(data)
    x = np.zeros((len(data.users), data.n_items))
    for user, rows in enumerate(data.train_sequences()):
        x[user, rows - 1] = 1
    weights = ease_weights(x.T @ x, 5.0)
    for trial, last in ((three, 3), (one, 1)):
        for case in (0, 7):
            want = weights[cases.seen[case][-last:] - 1].sum(axis=0)
            histories = torch.from_numpy(cases.histories(trial.model.max_history)[case : case + 1])
            np.testing.assert_allclose(trial.model.scores(histories)[0, 1:], want, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_chosen_model_can_be_fitted_again(synthetic: tuple[Path, Path], name: str) -> None:
    data, report = Dataset.open(synthetic[0]), json.loads((synthetic[1] / "baselines.json").read_text())
    model, cases = fitted(name, report, data), data.cases("test")
    assert model.n_items == data.n_items
    with np.load(synthetic[1] / f"{name}.npz", allow_pickle=False) as tops:
        assert np.array_equal(top_of_cases(model, cases, DEPTH), tops["test_top"])


def test_large_catalogues_are_refused(synthetic: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match=r"baselines\.models\.ease.*got 40 items"):
        list(Ease(max_items=39).trials(Dataset.open(synthetic[0])))


def test_config_takes_names_and_refuses_doubles() -> None:
    config = BaselinesConfig.model_validate({"models": ["popularity", {"name": "ease", "lambdas": [5]}]})
    assert [model.name for model in config.models] == ["popularity", "ease"]
    with pytest.raises(ValidationError, match="at most once"):
        BaselinesConfig.model_validate({"models": ["ease", "ease"]})


@pytest.mark.skipif(importlib.util.find_spec("recbole") is None, reason="MovieLens-100k comes with the recbole wheel")
def test_movielens_reproduces_the_published_figures(tmp_path: Path) -> None:
    folder, out = make(tmp_path, {"from": "ml-100k"})
    data = Dataset.open(folder)
    cases = data.cases("test")
    assert (len(data.users), data.n_items, len(data.items), len(cases)) == (943, 1682, 100_000, 943)
    for name, want_ndcg, want_hits in (("popularity", 0.045, 0.086), ("ease", 0.099, 0.187)):
        with np.load(out / f"{name}.npz", allow_pickle=False) as tops:
            ranks = ranks_of(tops["test_top"], cases.targets)
        assert ndcg(ranks, 10).mean() == pytest.approx(want_ndcg, abs=0.005)
        assert recall(ranks, 10).mean() == pytest.approx(want_hits, abs=0.01)
