"""How much a user is known to like: the likes and dislikes among their training rows before the one asked about."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compress.baselines.features import LabelCounts, training_places
from compress.likes.rows import LikeData, Rows, Split

Ratings = Mapping[Split, NDArray[np.int64]]
"""(likes, dislikes) of the user of each row, int64 (rows, 2) by split; `train` has the rows of `training_rows`."""

IMAGINED = (5.0, 20.0)
"""Imagined likes, and as many dislikes, that a user's log-odds start from. Two of them tell how much is known without a
count, which grows from row to row of the training part and is at its end when others are asked."""


def ratings_before(data: LikeData, train: Rows, seed: int) -> Ratings:
    """What is known when a row is asked: of training rows those before it (see `training_places`), of others all."""
    places = training_places(train, seed)
    counts = LabelCounts(train.users, train.labels, places)
    found: dict[Split, NDArray[np.int64]] = {}
    for split, rows in {**data.parts, "train": train}.items():
        likes, known = counts.known(rows.users, places if split == "train" else None)
        found[split] = np.stack([likes, known - likes], axis=1).astype(np.int64)
    return found


class UserLeaning(nn.Module):
    """What the user's ratings add to every logit: a hidden layer over their log-odds, drawn to even by each of
    `IMAGINED`. It starts at 0.

    The same for all items, so that it moves no item of a user before another.
    """

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(len(IMAGINED), hidden), nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, ratings: Tensor) -> Tensor:
        """ratings (batch, 2): likes and dislikes -> (batch,)."""
        counts = ratings.float()
        odds = [(counts + imagined).log() for imagined in IMAGINED]
        entering = torch.stack([of[:, 0] - of[:, 1] for of in odds], dim=1)
        leaning: Tensor = self.down(functional.gelu(self.up(entering)))[:, 0]
        return leaning
