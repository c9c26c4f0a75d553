"""Like/dislike models without a language model; validation chooses each one's setting.

These beat published 7B language models on the data sets their papers use, so they stand beside every such result.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from compress.baselines.features import LabelCounts, row_features, training_places
from compress.data.dataset import Dataset
from compress.likes.rows import LikeData, Rows, Split
from compress.likes.training_rows import training_rows
from compress.stage import Entry

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

Logits = Mapping[Split, NDArray[np.float64]]
"""Log-odds of a like, (rows,) by split; `train` has the rows of `training_rows`, answered without their labels."""

ASKED: tuple[Split, ...] = ("valid", "test")
Decay = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class LikeTrial:
    """One setting of a model, its answers to validation rows, how to get all of them, and how many numbers it keeps."""

    settings: Mapping[str, float]
    valid: NDArray[np.float64]
    logits: Callable[[], Logits]
    params: int


@dataclass(frozen=True)
class LikeTask:
    """What a like/dislike baseline is fitted on."""

    data: LikeData
    catalogue: Dataset
    train: Rows
    seed: int

    @classmethod
    def of(cls, data: LikeData, catalogue: Dataset, seed: int) -> "LikeTask":
        return cls(data, catalogue, training_rows(data), seed)

    @property
    def parts(self) -> dict[Split, Rows]:
        return {"train": self.train, "valid": self.data["valid"], "test": self.data["test"]}


class ItemMean(Entry):
    """An item's mean training label, drawn towards the average label by imagined rows."""

    name: Literal["item_mean"] = "item_mean"
    smoothings: tuple[PositiveFloat, ...] = Field(default=(1.0, 2.0, 5.0, 10.0, 20.0), min_length=1, max_length=50)

    def like_trials(self, task: LikeTask) -> Iterator[LikeTrial]:
        places = training_places(task.train, task.seed)
        counts = LabelCounts(task.train.items, task.train.labels, places)
        for smoothing in self.smoothings:
            logits: Logits = {
                split: log_odds(counts(rows.items, places if split == "train" else None, smoothing)[0])
                for split, rows in task.parts.items()
            }
            yield _known_at_once({"smoothing": smoothing}, logits, task.data.n_items)


class LikedFraction(Entry):
    """The share of liked items in the row's own history: nothing is learned. An empty history gets the average."""

    name: Literal["liked_fraction"] = "liked_fraction"

    def like_trials(self, task: LikeTask) -> Iterator[LikeTrial]:
        prior = float(task.train.labels.mean())
        logits: Logits = {s: log_odds(liked_share(rows, prior, 1.0, 0.0)) for s, rows in task.parts.items()}
        yield _known_at_once({}, logits, 0)


class RecentLikedFraction(Entry):
    """The same with weights that fall by `decay` per step back, drawn towards the average label by imagined items."""

    name: Literal["recent_liked_fraction"] = "recent_liked_fraction"
    decays: tuple[Decay, ...] = Field(default=(1.0, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7), min_length=1, max_length=50)
    smoothings: tuple[PositiveFloat, ...] = Field(default=(0.5, 1.0, 2.0, 5.0), min_length=1, max_length=50)

    def like_trials(self, task: LikeTask) -> Iterator[LikeTrial]:
        prior = float(task.train.labels.mean())
        for decay in self.decays if task.data.ordered else (1.0,):
            for smoothing in self.smoothings:
                logits: Logits = {
                    s: log_odds(liked_share(rows, prior, decay, smoothing)) for s, rows in task.parts.items()
                }
                yield _known_at_once({"decay": decay, "smoothing": smoothing}, logits, 2)


class BoostedTrees(Entry):
    """Gradient-boosted trees over plain features (`compress/baselines/features.py`).

    What users are known by (their earlier rows) is left out in half of the trials: it misleads where validation and
    test users are new. Training rows are answered by trees that did not see their user.
    """

    name: Literal["boosted_trees"] = "boosted_trees"
    leaves: tuple[Annotated[int, Field(ge=2, le=255)], ...] = Field(default=(4, 8), min_length=1, max_length=10)
    iterations: PositiveInt = 200
    every: PositiveInt = Field(default=25, description="trees between two stops that validation chooses among")
    learning_rate: PositiveFloat = 0.05
    min_samples_leaf: PositiveInt = 20
    l2: PositiveFloat = 10.0
    folds: Annotated[int, Field(ge=2, le=20)] = 5

    def like_trials(self, task: LikeTask) -> Iterator[LikeTrial]:
        features, names = row_features(task.data, task.catalogue, task.seed)
        without = [i for i, name in enumerate(names) if not name.startswith("user_")]
        for kept in (list(range(len(names))), without):
            some = {split: values[:, kept] for split, values in features.items()}
            for leaves in self.leaves:
                trees = self._fit(some["train"], task.train.labels, leaves, self.iterations, task.seed)
                stops = range(self.every, self.iterations + 1, self.every)
                staged = trees.staged_decision_function(some["valid"])
                valid = [np.asarray(v, np.float64).ravel() for n, v in enumerate(staged, 1) if n in stops]
                for stop, answers in zip(stops, valid, strict=True):
                    settings = {"leaves": leaves, "iterations": stop, "users": float(kept is not without)}
                    logits = partial(self._logits, task, some, leaves, stop)
                    yield LikeTrial(settings, answers, logits, stop * (3 * leaves - 1))

    def _logits(
        self, task: LikeTask, features: Mapping[Split, NDArray[np.float64]], leaves: int, iterations: int
    ) -> Logits:
        train = features["train"]
        from sklearn.model_selection import GroupKFold

        whole = self._fit(train, task.train.labels, leaves, iterations, task.seed)
        held = np.zeros(len(train))
        folds = min(self.folds, len(np.unique(task.train.users)))
        for seen, unseen in GroupKFold(folds).split(train, groups=task.train.users):
            part = self._fit(train[seen], task.train.labels[seen], leaves, iterations, task.seed)
            held[unseen] = part.decision_function(train[unseen])
        answers: dict[Split, NDArray[np.float64]] = {"train": held}
        for split in ASKED:
            answers[split] = whole.decision_function(features[split])
        return answers

    def _fit(
        self, features: NDArray[np.float64], labels: NDArray[np.bool_], leaves: int, iterations: int, seed: int
    ) -> "HistGradientBoostingClassifier":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(
            learning_rate=self.learning_rate,
            max_iter=iterations,
            max_leaf_nodes=leaves,
            min_samples_leaf=self.min_samples_leaf,
            l2_regularization=self.l2,
            early_stopping=False,
            random_state=seed,
        ).fit(features, labels)


LikeBaseline = ItemMean | LikedFraction | RecentLikedFraction | BoostedTrees


def _known_at_once(settings: Mapping[str, float], logits: Logits, params: int) -> LikeTrial:
    return LikeTrial(settings, logits["valid"], lambda: logits, params)


def liked_share(rows: Rows, prior: float, decay: float, smoothing: float) -> NDArray[np.float64]:
    """Weighted share of likes in each history with `smoothing` imagined items of share `prior`; `prior` where a history
    is empty. float64 (rows,)."""
    age = np.repeat(rows.offsets[1:], rows.lengths) - 1 - np.arange(len(rows.history))
    weights = decay ** age.astype(np.float64)
    owners = rows.owners()
    liked = np.bincount(owners, weights * rows.history_likes, minlength=len(rows)) + smoothing * prior
    total = np.bincount(owners, weights, minlength=len(rows)) + smoothing
    shares: NDArray[np.float64] = np.divide(liked, total, out=np.full(len(rows), prior), where=total > 0)
    return shares


def log_odds(shares: NDArray[np.float64], least: float = 0.01) -> NDArray[np.float64]:
    """Logarithm of share / (1 - share), shares cut to [least, 1 - least]."""
    cut = np.clip(shares, least, 1 - least)
    odds: NDArray[np.float64] = np.log(cut / (1 - cut))
    return odds
