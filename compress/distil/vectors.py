"""Losses of vectors: the student's item or user vectors against the teacher's, through a linear map of their own.

The map is trained with the student, is part of neither, and is gone when training ends: what is exported has no trace
of it.
"""

from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from compress.distil.step import DistilLoss, Step, Teaching, Weight


class VectorAlignmentMap(nn.Linear):
    """The student's vectors (n, dim) -> the teacher's space (n, teacher's dim). `variance` is that of the teacher's.

    Of a nested student's narrower vectors the first columns read what there is (tied as in MRL-E: Kusupati et al. 2022,
    section 3).
    """

    variance: Tensor

    def __init__(self, weight: Tensor, variance: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = nn.Parameter(weight.clone())
        self.register_buffer("variance", variance, persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        missing = self.in_features - vectors.shape[1]
        return super().forward(functional.pad(vectors, (0, missing)) if missing else vectors)


class _OfVectors(DistilLoss):
    """`of: items` compares with the teacher's item vectors from text, at the different items that a step's positions
    have as targets; `of: users` compares the user vectors of all positions, which the teacher must have cached."""

    weight: Weight = 0.3
    of: Literal["items", "users"] = "items"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"item_vectors" if self.of == "items" else "user_vectors"})

    def head(self, table: Tensor, teaching: Teaching) -> VectorAlignmentMap:
        """It starts as the least-squares map between the item tables. User vectors are what these are multiplied with,
        so theirs starts as the map that leaves the products as they are."""
        if self.of == "items":
            assert teaching.item_vectors is not None
            wanted = torch.from_numpy(teaching.item_vectors)
            return VectorAlignmentMap(_least_squares(table, wanted), wanted[1:].var(0, unbiased=False).mean())
        assert teaching.table is not None and teaching.user_vectors is not None
        users = teaching.user_vectors
        weight = torch.linalg.pinv(_least_squares(table, teaching.table)).T.contiguous()
        return VectorAlignmentMap(weight, users.var(0, unbiased=False).mean())

    def pairs(self, step: Step) -> tuple[Tensor, Tensor]:
        """(n, dim) and (n, teacher's dim)."""
        if self.of == "items":
            assert step.teacher_items is not None
            rows = torch.unique(step.targets)
            return step.vectors[rows], step.teacher_items[rows]
        assert step.teacher_users is not None
        return step.users, step.teacher_users


class VectorAlignment(_OfVectors):
    """Squared distance of the mapped vector to the teacher's, relative to the teacher's variance: 1 is what a constant
    would get.

    A hint of Romero et al. 2015 (FitNets, section 2.1), whose regressor is linear here. For items it says most to
    students without `text`: with it their vectors begin as the teacher's under another linear map.
    """

    name: Literal["vector_alignment"] = "vector_alignment"

    def __call__(self, step: Step, head: nn.Module) -> Tensor:
        assert isinstance(head, VectorAlignmentMap)
        student, teacher = self.pairs(step)
        squares: Tensor = (head(student) - teacher).square()
        return squares.mean() / head.variance


class InfoNCE(_OfVectors):
    """Which of the step's teacher vectors is this one's? Cross-entropy over cosines divided by the temperature.

    Van den Oord et al. 2018, section 2.3, with teacher and student as the two views, as in contrastive representation
    distillation (Tian et al. 2020), the negatives being the step's others. At most `pairs_at_once`, evenly spaced.
    """

    name: Literal["info_nce"] = "info_nce"
    temperature: PositiveFloat = 0.1
    pairs_at_once: PositiveInt = 1024

    def __call__(self, step: Step, head: nn.Module) -> Tensor:
        every = self.pairs(step)
        student, teacher = (vectors[:: -(-len(vectors) // self.pairs_at_once)] for vectors in every)
        cosines: Tensor = functional.normalize(head(student), dim=1) @ functional.normalize(teacher, dim=1).T
        own = torch.arange(len(cosines), device=cosines.device)
        loss: Tensor = functional.cross_entropy(cosines.float() / self.temperature, own)
        return loss


def _least_squares(table: Tensor, wanted: Tensor) -> Tensor:
    """(n, dim), (n, teacher's dim) -> the weight (teacher's dim, dim) of the linear map nearest to one from the other.

    By the pseudo-inverse, so that a table of less than full rank has one too.
    """
    inverse: Tensor = torch.linalg.pinv(table[1:].detach().double().cpu())
    found: Tensor = inverse @ wanted[1:].double().cpu()
    return found.T.float().contiguous()
