"""What a distillation loss is: an entry that gets one training step, the student's side and the teacher's."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from compress.models.folder import load_array, load_sequence
from compress.stage import Entry
from compress.training.softmax import ItemVectors


class Teaching:
    """What the teacher left for its students, or nothing: item vectors, and per training position its best items, a
    draw of the others and its user vector."""

    def __init__(self, teacher: Path) -> None:
        self.item_vectors: NDArray[np.float32] | None = load_array(teacher, "item_vectors")
        self.items, self.scores = _rows(teacher, "score_items"), _floats(teacher, "scores")
        self.tail_items, self.tail_scores = _rows(teacher, "tail_items"), _floats(teacher, "tail_scores")
        self.user_vectors = _floats(teacher, "user_vectors")
        self.table: Tensor | None = None  # the item vectors that its user vectors are scored against
        if self.user_vectors is not None and (model := load_sequence(teacher)) is not None:
            self.table = model.item_table.detach()
        taught = None if self.items is None else self.items[:, 0] > 0
        self.taught = None if taught is None or bool(taught.all()) else taught  # bool (positions,); None: all are

    @property
    def left(self) -> frozenset[str]:
        """Which of `NEEDS` are there."""
        found = {
            "best": self.items,
            "tail": self.tail_items,
            "item_vectors": self.item_vectors,
            "user_vectors": self.table,
        }
        return frozenset(name for name, value in found.items() if value is not None)


NEEDS = {
    "best": "cached scores",
    "tail": "a cached tail; set cached_scores: {tail: 100} where the teacher writes its scores (target, or mix)",
    "item_vectors": "item vectors, as a teacher that reads texts has them",
    "user_vectors": "cached user vectors; set target.cached_scores: {user_vectors: true} and no mix.members",
}
"""What a loss may ask of a teacher, in the words of the mistake that it is missing."""


@dataclass(frozen=True)
class Listed:
    """Items that the teacher scored at every position: rows int64, its scores and the student's logits, (positions, n)
    each."""

    items: Tensor
    teacher: Tensor
    student: Tensor

    def at(self, known: Tensor) -> "Listed":
        return Listed(self.items[known], self.teacher[known], self.student[known])


@dataclass(frozen=True)
class Step:
    """One training step, at the positions where there is a teacher. A field is None where no loss asked for it.

    `vectors` holds the student's item vectors of the targets and of what is listed, `table()` gives all,
    (n_items + 1, dim); `left_out` (n_items + 1,) bool says which rows are no candidates; `normalisers` are the logs of
    the student's sums of exponentials over the candidates, an estimate where they are a sample.
    """

    targets: Tensor  # (positions,) int64: the observed next items
    users: Tensor  # (positions, dim): the student's
    vectors: ItemVectors
    table: Callable[[], Tensor]
    left_out: Tensor
    best: Listed | None = None  # the teacher's best items, best first
    tail: Listed | None = None  # a uniform draw, without repetition, of the candidates that are not among them
    tail_size: int = 0  # of how many
    normalisers: Tensor | None = None  # (positions,)
    teacher_users: Tensor | None = None  # (positions, teacher's dim)
    teacher_table: Tensor | None = None  # (n_items + 1, teacher's dim): what its user vectors are scored against
    teacher_items: Tensor | None = None  # (n_items + 1, text dim): its item vectors from text

    def at(self, known: Tensor) -> "Step":
        """The positions where `known` (positions,) bool holds."""
        return replace(
            self,
            targets=self.targets[known],
            users=self.users[known],
            best=None if self.best is None else self.best.at(known),
            tail=None if self.tail is None else self.tail.at(known),
            normalisers=None if self.normalisers is None else self.normalisers[known],
            teacher_users=None if self.teacher_users is None else self.teacher_users[known],
        )


Weight = Annotated[float, Field(ge=0.0, le=1.0)]


class DistilLoss(Entry):
    """A loss that a student has of its teacher. `weight` is its share of the whole where it is mixed in: what stands
    before it, the observed next item and the losses listed earlier, has the rest."""

    weight: Weight

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """What the teacher must have left, of `NEEDS`."""

    @property
    def depth(self) -> int | None:
        """How many of the teacher's best items it reads; None: all that are cached. Others are not scored."""
        return None

    def head(self, table: Tensor, teaching: Teaching) -> nn.Module:  # noqa: ARG002
        """What is trained with the student for this loss alone and thrown away afterwards; `table` (n_items + 1, dim)
        are the student's item vectors at the start."""
        return nn.Identity()

    @abstractmethod
    def __call__(self, step: Step, head: nn.Module) -> Tensor:
        """A scalar, the mean over positions."""


def _rows(folder: Path, name: str) -> Tensor | None:
    array = load_array(folder, name)
    return None if array is None else torch.from_numpy(array.astype(np.int64))


def _floats(folder: Path, name: str) -> Tensor | None:
    array = load_array(folder, name)
    return None if array is None else torch.from_numpy(array.astype(np.float32))
