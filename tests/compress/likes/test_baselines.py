"""Like/dislike baselines: by hand on a few rows, and on a world where taste can be learned."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import auc
from compress.baselines.features import LabelCounts, numeric_attributes, row_features
from compress.baselines.likes import BoostedTrees, LikeTask, liked_share, log_odds
from compress.baselines.run import BaselinesConfig, train_baselines
from compress.data.dataset import Dataset
from compress.likes.rows import LikeData, read_logits
from compress.stage import RunOptions
from deploy.errors import UsageError

Load = Callable[..., Path]
Write = Callable[..., Path]


def test_label_counts_see_earlier_rows_alone() -> None:
    counts = LabelCounts(np.array([3, 3, 5, 3], np.int32), np.array([1, 0, 1, 1], bool), np.array([2, 0, 1, 3]))
    keys = np.array([3, 5, 9], np.int32)
    mean, count = counts(keys, smoothing=1.0)
    assert count.tolist() == [3, 1, 0] and mean == pytest.approx([(2 + 0.75) / 4, (1 + 0.75) / 2, 0.75])
    mean, count = counts(keys, np.array([2, 2, 2]), smoothing=1.0)
    assert count.tolist() == [1, 1, 0] and mean == pytest.approx([0.75 / 2, 1.75 / 2, 0.75])


def test_the_liked_share_weighs_the_newest_most(write: Write, load: Load) -> None:
    rows = LikeData.open(load(write()))["train"]  # histories: a+ | a+ b+ | none | d+ e-
    assert liked_share(rows, 0.4, 1.0, 0.0) == pytest.approx([1, 1, 0.4, 0.5])
    assert liked_share(rows, 0.4, 0.5, 0.0) == pytest.approx([1, 1, 0.4, 0.5 / 1.5])
    assert liked_share(rows, 0.4, 1.0, 2.0) == pytest.approx([1.8 / 3, 2.8 / 4, 0.4, 1.8 / 4])
    assert log_odds(np.array([0.0, 0.5, 1.0])) == pytest.approx([-np.log(99), 0, np.log(99)])


def test_features_by_hand(write: Write, load: Load) -> None:
    folder = load(write())
    data, catalogue = LikeData.open(folder), Dataset.open(folder)
    features, names = row_features(data, catalogue, 0)
    of = {name: features["valid"][:, i] for i, name in enumerate(names)}
    # six training rows: b+ c- d+ a- of the file, a+ and e- of the histories; half of them are likes
    assert of["item_mean"] == pytest.approx([(1 + 2.5) / 6, 2.5 / 6, (1 + 2.5) / 7])
    assert of["history_length"].tolist() == [3, 1, 2] and of["history_liked"] == pytest.approx([1 / 3, 1, 1])
    assert of["release_year"].tolist() == [1932, 1986, 1948]
    assert of["release_year_above_history"] == pytest.approx([1932 - (1990 + 1948) / 2, 1986 - 1990, 1948 - 1988])
    liked = of["text_liked_best"]
    assert liked[0] == 0 and 0.3 < liked[1] < 0.9  # Red Dust and Blue Steel share no word
    assert list(numeric_attributes(catalogue)) == ["release_year"]


def test_no_training_feature_holds_its_own_label(write: Write, load: Load) -> None:
    """Flipping the newest training row's label moves no feature of that row."""
    header, lines = "", []
    folder = write()
    path = folder / "tiny.train.inter"
    header, *lines = path.read_text("utf-8").splitlines(keepends=True)
    data = load(folder)
    before, names = row_features(LikeData.open(data), Dataset.open(data), 0)
    assert lines[1].startswith("u1\tc\t0\t20")  # the newest
    lines[1] = lines[1].replace("u1\tc\t0", "u1\tc\t1")
    path.write_text(header + "".join(lines), "utf-8")
    data = load(folder)
    after, same = row_features(LikeData.open(data), Dataset.open(data), 0)
    shifted = [i for i, name in enumerate(names) if name not in ("item_mean", "user_mean", "history_item_mean")]
    assert names == same and np.array_equal(before["train"][1, shifted], after["train"][1, shifted], equal_nan=True)
    prior_before, prior_after = 0.5, 4 / 6  # the means move only as the average label does
    place = names.index("item_mean")
    assert before["train"][1, place] == pytest.approx(prior_before)
    assert after["train"][1, place] == pytest.approx(prior_after)


def test_trees_learn_what_the_plain_means_cannot(taste_data: Path, tmp_path: Path) -> None:
    """Who likes which genre is in the words of the history: item means know nothing of it."""
    models = [
        {"name": "item_mean"},
        {"name": "liked_fraction"},
        {"name": "recent_liked_fraction", "decays": [1.0, 0.9]},
        {"name": "boosted_trees", "iterations": 50, "leaves": [4], "folds": 2, "min_samples_leaf": 10},
    ]
    train_baselines(
        BaselinesConfig.model_validate({"models": models}), {"data": taste_data}, tmp_path, RunOptions(threads=1)
    )
    report = json.loads((tmp_path / "baselines.json").read_text("utf-8"))
    data = LikeData.open(taste_data)
    logits = {name: read_logits(tmp_path / f"{name}.npz") for name in report}
    for name, facts in report.items():
        assert facts["valid_auc"] == pytest.approx(auc(logits[name]["valid"], data["valid"].labels), abs=1e-6)
        assert facts["valid_auc"] == max(trial["valid_auc"] for trial in facts["trials"])
    test = {name: auc(found["test"], data["test"].labels) or 0 for name, found in logits.items()}
    assert test["boosted_trees"] > 0.75 and test["item_mean"] < 0.65
    labels = LikeTask.of(data, Dataset.open(taste_data), 0).train.labels
    assert len(labels) == 640 and len(logits["boosted_trees"]["train"]) == 640  # 400 rows and 240 of their histories
    assert (auc(logits["boosted_trees"]["train"], labels) or 0) < 0.98  # not by trees that saw the label


def test_trees_answer_alike_every_time(taste_data: Path) -> None:
    task = LikeTask.of(LikeData.open(taste_data), Dataset.open(taste_data), 0)
    trees = BoostedTrees(iterations=25, leaves=(4,), folds=2)
    first, second = ([trial.valid for trial in trees.like_trials(task)] for _ in range(2))
    assert len(first) == 2 and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_models_must_fit_the_task(taste_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"for likes data these exist: item_mean, .* \(got popularity\)"):
        train_baselines(
            BaselinesConfig.model_validate({"models": ["popularity", "item_mean"]}),
            {"data": taste_data},
            tmp_path,
            RunOptions(),
        )
