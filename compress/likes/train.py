"""Training of like/dislike models: teachers, students and controls alike."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.accuracy import auc
from compress.distil.losses import SoftLabels
from compress.likes.model import LikesHead, LikesModel, Parts, hold_leaning, with_leanings
from compress.likes.ratings import Ratings
from compress.likes.rows import LikeData, Rows
from compress.stage import RunOptions
from compress.training import Fit, Training, fit
from compress.training.engine import device_of

Table = Callable[[int, Tensor], Tensor]
"""(epoch, the rows of a batch) -> item vectors (n_items + 1, dim)."""


@dataclass(frozen=True)
class Taught:
    """What a teacher says of the training rows, logits (rows,) float32, and how a student learns from it."""

    loss: SoftLabels
    logits: Tensor


class LikesTraining(nn.Module):
    """A teacher or student (`parts`) with a head, in training."""

    def __init__(self, parts: Parts, head: LikesHead) -> None:
        super().__init__()
        self.parts, self.head = parts, head

    def logits(self, table: Tensor, *asked: Tensor) -> Tensor:
        """`asked`: history, likes, items and, for a head that is `rated`, ratings, as the head takes them."""
        hold_leaning(self.parts.encoder)
        logits: Tensor = self.head(with_leanings(table), self.parts.encoder, *asked)
        return logits

    @torch.no_grad()
    def folded(self) -> LikesModel:
        """The model as it stands, over one folded table."""
        hold_leaning(self.parts.encoder)
        sequence = self.parts.folded()
        sequence.item_table.copy_(with_leanings(sequence.item_table))
        head = LikesHead(self.head.disliked.shape[1], rated=self.head.leaning is not None)
        head.load_state_dict(self.head.state_dict())
        return LikesModel(sequence, head.to(sequence.device)).eval()


def train_likes(
    module: LikesTraining,
    groups: Sequence[tuple[Sequence[nn.Parameter], float]],
    table: Table,
    data: LikeData,
    rows: Rows,
    taught: Taught | None,
    training: Training,
    rng: np.random.Generator,
    options: RunOptions,
    what: str,
    settle: Callable[[], None] = lambda: None,
    ratings: Ratings | None = None,
    start_competes: bool = False,
) -> Fit:
    """Fit `module` to `rows`; the state that validates best (AUC) stays, with `start_competes` that before the first
    epoch may. `settle` is called before each validation."""
    known = None if ratings is None else ratings["valid"]

    def epoch(number: int) -> Iterator[Tensor]:
        seen = rows if data.ordered else reordered(rows, rng)
        batches = np.array_split(rng.permutation(len(rows)), -(-len(rows) // training.batch_size))
        return row_losses(module, table, number, seen, ratings, taught, batches, options)

    def validate(_number: int) -> float:
        settle()
        return auc(module.folded().logits(data["valid"], known), data["valid"].labels) or 0.0

    return fit(module, groups, training, epoch, validate, options, what, start_competes, rng, metric="AUC")


def row_losses(
    module: LikesTraining,
    table: Table,
    number: int,
    rows: Rows,
    ratings: Ratings | None,
    taught: Taught | None,
    batches: Sequence[NDArray[np.integer[Any]]],
    options: RunOptions,
) -> Iterator[Tensor]:
    """The mean loss of each of `batches`, indices of training rows, in epoch `number`: scalars in nats."""
    device = device_of(options)
    arrays: list[NDArray[Any]] = [*rows.newest(module.parts.encoder.shape.max_history), rows.items.astype(np.int64)]
    arrays += [] if ratings is None else [ratings["train"]]
    labels = torch.from_numpy(rows.labels.astype(np.float32))
    for index in batches:
        batch = [torch.from_numpy(a[index]).to(device) for a in arrays]
        logits = module.logits(table(number, torch.cat([batch[0].flatten(), batch[2]])), *batch)
        wanted = labels[index].to(device)
        if taught is None:
            yield functional.binary_cross_entropy_with_logits(logits, wanted)
        else:
            yield taught.loss(logits, wanted, taught.logits[index].to(device))


def log_odds_of_all(rows: Rows) -> float:
    """The bias to start from: the log-odds of an average row, a like and a dislike added."""
    liked = int(rows.labels.sum())
    return float(np.log((liked + 1) / (len(rows) - liked + 1)))


def reordered(rows: Rows, rng: np.random.Generator) -> Rows:
    """Histories without an order, in another one."""
    order = np.lexsort((rng.random(len(rows.history)), rows.owners()))
    return replace(rows, history=rows.history[order], history_likes=rows.history_likes[order])
