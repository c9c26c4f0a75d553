"""Models without a language model, each tried with the settings that validation chooses among."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from compress.baselines.likes import BoostedTrees, ItemMean, LikedFraction, RecentLikedFraction
from compress.data.dataset import Dataset
from compress.models.mix import ItemBias, ItemItem
from compress.stage import Entry, Shorthand
from deploy.errors import UsageError


@dataclass(frozen=True)
class Trial:
    """One setting of a model, and the model fitted with it."""

    settings: Mapping[str, float]
    model: ItemItem | ItemBias

    @property
    def params(self) -> int:
        """How many numbers it keeps."""
        return self.model.n_items ** (2 if isinstance(self.model, ItemItem) else 1)


class Popularity(Entry):
    """Training events per item, the same for everybody."""

    name: Literal["popularity"] = "popularity"

    def trials(self, data: Dataset) -> Iterator[Trial]:
        yield Trial({}, _same_for_all(data.popularity))

    def at(self, settings: Mapping[str, float]) -> Self:
        """This model with the settings of one trial alone."""
        del settings
        return self


class RecentPopularity(Entry):
    """Training events per item in the last part of the training period; older events only break ties."""

    name: Literal["recent_popularity"] = "recent_popularity"
    windows: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.02, 0.05, 0.1, 0.2, 0.5), min_length=1, max_length=50, description="shares of the training time span"
    )

    def trials(self, data: Dataset) -> Iterator[Trial]:
        for window in self.windows:
            yield Trial({"window": window}, _same_for_all(recent_popularity(data, window)))

    def at(self, settings: Mapping[str, float]) -> Self:
        return self.model_copy(update={"windows": (settings["window"],)})


class Ease(Entry):
    """EASE: the closed-form item-item regression with a zero diagonal, on the last items of the history.

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    """

    name: Literal["ease"] = "ease"
    lambdas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0),
        min_length=1,
        max_length=50,
        description="L2 penalties",
    )
    last: int = Field(default=10, ge=1, le=10_000, description="items of the history that are scored")
    max_items: int = Field(
        default=20_000, ge=1, description="larger catalogues are refused: memory grows with its square"
    )

    def trials(self, data: Dataset) -> Iterator[Trial]:
        if data.n_items > self.max_items:
            gib = 16 * data.n_items**2 / 2**30
            raise UsageError(
                f"baselines.models.ease: needs about {gib:.0f} GiB for the item-item matrices; leave ease out or raise "
                f"max_items above {self.max_items} (got {data.n_items} items)"
            )
        gram = _cooccurrence(data)
        for penalty in self.lambdas:
            weights = np.zeros((data.n_items + 1, data.n_items + 1), dtype=np.float32)
            weights[1:, 1:] = ease_weights(gram, penalty)
            yield Trial({"lambda": penalty}, ItemItem(torch.from_numpy(weights), self.last))

    def at(self, settings: Mapping[str, float]) -> Self:
        return self.model_copy(update={"lambdas": (settings["lambda"],)})


Baseline = Annotated[
    Popularity | RecentPopularity | Ease | ItemMean | LikedFraction | RecentLikedFraction | BoostedTrees,
    Field(discriminator="name"),
    Shorthand,
]


def recent_popularity(data: Dataset, window: float) -> NDArray[np.float64]:
    """Training events per row in the last share `window` of the training time span, ties broken by all of them."""
    times, rows = data.times[data.train], data.items[data.train]
    start, end = times.min(), times.max()
    recent = np.bincount(rows[times >= end - window * (end - start)], minlength=data.n_items + 1)
    return np.asarray(recent + data.popularity / (len(rows) + 1), np.float64)


def ease_weights(gram: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """B = I - P diag(1 / diag(P)) with P = (X'X + penalty I)^-1. `gram` X'X float64 (n, n); returns float64 (n, n)."""
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def _cooccurrence(data: Dataset) -> NDArray[np.float64]:
    gram = np.zeros((data.n_items, data.n_items))
    for rows in data.train_sequences():
        # a user's rows are distinct, so a fancy += counts each pair once
        gram[np.ix_(rows - 1, rows - 1)] += 1.0
    return gram


def _same_for_all(counts: NDArray[np.number[Any]]) -> ItemBias:
    """Logarithms of counts order as the counts do, and are what a softmax over the catalogue would learn."""
    return ItemBias(torch.from_numpy(np.log1p(counts)))
