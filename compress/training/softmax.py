"""The softmax over items that training minimises: over the catalogue, its warm items alone, or a sample of either.

Bengio & Senecal 2008 estimate the softmax's normaliser by importance sampling; Yi et al. 2019 take the other targets of
the batch as the sample and correct for how often popular items are there. Here a step scores against both: the batch's
targets and items drawn uniformly. Memory grows with batch x candidates, never with batch x catalogue.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from compress.stage import Entry, Shorthand
from compress.training.logsumexp import mean_logsumexp


@dataclass(frozen=True)
class ItemVectors:
    """Item vectors of a whole table, or of the ascending int64 `rows` alone: (rows, dim). Indexed by table rows."""

    vectors: Tensor
    rows: Tensor | None = None

    def __getitem__(self, items: Tensor) -> Tensor:
        return self.vectors[items if self.rows is None else torch.searchsorted(self.rows, items.contiguous())]


def rows_needed(n_rows: int, *items: Tensor) -> Tensor | None:
    """The different rows among `items` and row 0, ascending; None where the whole table costs hardly more."""
    needed = torch.unique(torch.cat([torch.zeros_like(items[0].flatten()[:1]), *(i.flatten() for i in items)]))
    return needed if 2 * len(needed) < n_rows else None


@dataclass(frozen=True)
class Candidates:
    """What a step scores against beside each position's own target.

    `items` (n,) int64 ascending; `log_chance` (n,) float32, the log of each item's probability of being here;
    `uniform` (negatives,) int64, the columns of `items` that were drawn uniformly.
    """

    items: Tensor
    log_chance: Tensor
    uniform: Tensor

    def loss(
        self, users: Tensor, vectors: ItemVectors, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """users (positions, dim), targets (positions,) int64 -> mean cross-entropy in nats, and the normalisers: logs
        of the sums of exponentials, (positions,).

        The target counts whole, every other candidate by one over its probability of being here, so that the sum of
        exponentials is an unbiased estimate of the catalogue's. A candidate that is the target is masked.
        """
        own = (users * vectors[targets]).sum(-1, keepdim=True)
        scores = users @ vectors[self.items].T
        others = (scores - self.log_chance).masked_fill(self.items == targets[:, None], -math.inf)
        total = torch.cat([own, others], 1).logsumexp(1)
        loss = (total - own[:, 0]).mean()
        if label_smoothing:
            loss = (1 - label_smoothing) * loss + label_smoothing * (total - scores[:, self.uniform].mean(1)).mean()
        return loss, total


class Sampler:
    """Draws the candidates of a domain's steps."""

    def __init__(
        self,
        softmax: "SampledSoftmax",
        sequences: Sequence[NDArray[np.int32]],
        n_items: int,
        rng: np.random.Generator,
    ) -> None:
        """`sequences`: each user's training rows, oldest first; warm items are those that are in one."""
        self.softmax, self.rng = softmax, rng
        warm = np.unique(np.concatenate(sequences)).astype(np.int64)
        self.rows = warm if softmax.over == "warm" else np.arange(1, n_items + 1)
        self.negatives = min(softmax.negatives, len(self.rows))
        targets = np.bincount(np.concatenate([events[1:] for events in sequences]), minlength=n_items + 1)
        self.share = targets / targets.sum()

    def __call__(self, targets: Tensor) -> Candidates:
        """The candidates of a batch with these targets (positions,) int64."""
        drawn = self.rows[np.sort(self.rng.choice(len(self.rows), self.negatives, replace=False, shuffle=False))]
        items, absent = drawn, np.full(len(drawn), 1 - self.negatives / len(self.rows))
        if self.softmax.in_batch:
            items = np.union1d(drawn, targets.cpu().numpy())
            # seen from one position, the others' targets are so many draws by popularity
            absent = (1 - self.negatives / len(self.rows)) * (1 - self.share[items]) ** (len(targets) - 1)
        chance = np.maximum(1 - absent, np.finfo(np.float32).tiny)
        uniform = np.searchsorted(items, drawn)
        as_float = torch.from_numpy(np.log(chance).astype(np.float32))
        return Candidates(
            *(t.to(targets.device) for t in (torch.from_numpy(items), as_float, torch.from_numpy(uniform)))
        )


class _Softmax(Entry):
    """Over which items it is. `all`: those that nobody had in training too, which then learn from their text alone that
    they were not chosen; the fewer users train, the more items these are."""

    over: Literal["warm", "all"] = "warm"

    def left_out(self, warm: Tensor) -> Tensor:
        """warm (n_items + 1,) bool -> rows that are no candidates, of the same form."""
        return ~warm if self.over == "warm" else torch.arange(len(warm), device=warm.device) == 0


class FullSoftmax(_Softmax):
    """Every item at every step."""

    name: Literal["full"] = "full"

    def sampler(self, _sequences: Sequence[NDArray[np.int32]], _n_items: int, _rng: np.random.Generator) -> None:
        """Nothing is drawn."""


class SampledSoftmax(_Softmax):
    """`negatives` items drawn uniformly without repetition, and with `in_batch` all targets of the batch."""

    name: Literal["sampled"] = "sampled"
    negatives: PositiveInt = 512
    in_batch: bool = True

    def sampler(self, sequences: Sequence[NDArray[np.int32]], n_items: int, rng: np.random.Generator) -> Sampler:
        return Sampler(self, sequences, n_items, rng)


Softmax = Annotated[FullSoftmax | SampledSoftmax, Field(discriminator="name"), Shorthand]


class NextItem(NamedTuple):
    """What a step's scoring left: the next item's mean cross-entropy in nats, user vectors (positions, dim) and item
    vectors. Where items were `listed`, their logits (positions, top) and the normalisers, the log of the sum of
    exponentials over all candidates, (positions,)."""

    loss: Tensor
    users: Tensor
    vectors: ItemVectors
    logits: Tensor | None = None
    normalisers: Tensor | None = None


def next_item_loss(
    table: Callable[[Tensor | None], Tensor],
    encoder: Callable[[Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    left_out: Tensor,
    label_smoothing: float = 0.0,
    sampler: Sampler | None = None,
    listed: Tensor | None = None,
) -> NextItem:
    """One batch of `windows` -> the next item's mean cross-entropy, over the sampler's candidates or all.

    `table(rows)` gives the item vectors of these rows, `table(None)` of all, (rows, dim); `encoder` item vectors ->
    user vectors; `batch` is inputs and targets (windows, length) int64; `left_out` (n_items + 1,)
    bool says which rows are no candidates; `listed` (positions, top) int64 are items whose logits are wanted too.
    """
    inputs, targets = batch
    wanted = targets[targets > 0]
    if sampler is None:
        vectors = table(None)
        users = encoder(vectors[inputs])[targets > 0]
        some, logits, normalisers = ItemVectors(vectors), None, None
        if listed is None:
            normaliser = mean_logsumexp(users, vectors, left_out)
        else:
            every = (users @ vectors.T).float().masked_fill(left_out, -1e4)
            logits, normalisers = every.gather(1, listed), every.logsumexp(1)
            normaliser = normalisers.mean()
        loss = normaliser - (1 - label_smoothing) * (users * vectors[wanted]).sum(-1).mean()
        if label_smoothing:
            loss = loss - label_smoothing * (users.mean(0) @ vectors[~left_out].mean(0))
        return NextItem(loss, users, some, logits, normalisers)
    candidates = sampler(wanted)
    rows = rows_needed(len(left_out), inputs, wanted, candidates.items, *([] if listed is None else [listed]))
    some = ItemVectors(table(rows), rows)
    users = encoder(some[inputs])[targets > 0]
    loss, normalisers = candidates.loss(users, some, wanted, label_smoothing)
    if listed is None:
        return NextItem(loss, users, some)
    logits = torch.einsum("pld,pd->pl", some[listed], users).masked_fill(left_out[listed], -1e4)
    return NextItem(loss, users, some, logits, normalisers)
