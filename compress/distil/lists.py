"""Losses of a ranking: the student's distribution over items against the teacher's."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from compress.distil.step import DistilLoss, Step, Weight
from compress.training.logsumexp import mean_kl


class ListwiseKL(DistilLoss):
    """KL(teacher || student) over the teacher's cached best items, both renormalised to them, times temperature².

    Hinton et al. 2015, section 2, on a list: the softmax over the catalogue is cut to the teacher's first items.
    """

    name: Literal["listwise_kl"] = "listwise_kl"
    weight: Weight = 0.8
    temperature: PositiveFloat = 2.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"best"})

    def __call__(self, step: Step, head: nn.Module) -> Tensor:  # noqa: ARG002
        assert step.best is not None
        return _kl(step.best.teacher, step.best.student, self.temperature)


class SampledKL(DistilLoss):
    """KL(teacher || student) over the whole catalogue, estimated from the teacher's best items and a uniform draw of
    the others, each of which counts for as many items as it was drawn from; times temperature².

    Both sides are normalised over the same weighted items (self-normalised importance sampling; Owen, Monte Carlo
    theory, section 9.2): what `listwise_kl` leaves out, how much the teacher gives to all other items, is heard. It is
    never negative, 0 where student and teacher agree whatever was drawn, and the exact KL where everything was; its
    bias shrinks with the draw. The teacher draws anew at every position, once: all students read the same.
    """

    name: Literal["sampled_kl"] = "sampled_kl"
    weight: Weight = 0.8
    temperature: PositiveFloat = 2.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"best", "tail"})

    def __call__(self, step: Step, head: nn.Module) -> Tensor:  # noqa: ARG002
        assert step.best is not None and step.tail is not None
        drawn = step.tail.items.shape[1]
        stands_for = self.temperature * math.log(step.tail_size / drawn) if drawn else 0.0
        teacher = torch.cat([step.best.teacher, step.tail.teacher + stands_for], 1)
        student = torch.cat([step.best.student, step.tail.student + stands_for], 1)
        return _kl(teacher, student, self.temperature)


class FullKL(DistilLoss):
    """KL(teacher || student) over the whole catalogue, times temperature² (Hinton et al. 2015, section 2).

    The teacher's scores of all items are the products of its cached user vectors with its item table, made again piece
    by piece: a vector per position is stored, never a score per item.
    """

    name: Literal["full_kl"] = "full_kl"
    weight: Weight = 0.8
    temperature: PositiveFloat = 2.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"user_vectors"})

    def __call__(self, step: Step, head: nn.Module) -> Tensor:  # noqa: ARG002
        assert step.teacher_users is not None and step.teacher_table is not None
        student, teacher = (step.users, step.table()), (step.teacher_users, step.teacher_table)
        return mean_kl(teacher, student, step.left_out, self.temperature) * self.temperature**2


class RankingDistillation(DistilLoss):
    """The teacher's first items as if each had been observed: -log of the student's probability, by importance.

    After the importance-aware ranking distillation of DLLM2Rec (Cui et al. 2024, and its authors' code): an item's
    weight is a sum, made 1 over the list, of a part for its place (exp(-place / `decay`)), one for the teacher's
    confidence in it and one for the student's agreement, with the factors `position`, `confidence` and `agreement`.
    Here confidence and agreement are the teacher's and the student's probabilities within the list, so that both are
    graded and need no look at the whole catalogue; there they are the distance of a generated text, and whether the
    student has the item in its own list. Our own is the trust in an example: where the list misses the item that was
    observed, the teacher was wrong, and all its weights are multiplied by `doubted`.
    """

    name: Literal["ranking_distillation"] = "ranking_distillation"
    weight: Weight = 0.5
    top: PositiveInt = 10
    decay: PositiveFloat = 1.0
    position: NonNegativeFloat = 0.3
    confidence: NonNegativeFloat = 0.5
    agreement: NonNegativeFloat = 0.1
    doubted: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5

    @model_validator(mode="after")
    def _some_importance(self) -> "RankingDistillation":
        if not self.position + self.confidence + self.agreement:
            raise ValueError("position, confidence and agreement cannot all be 0")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"best"})

    @property
    def depth(self) -> int:
        return self.top

    def __call__(self, step: Step, head: nn.Module) -> Tensor:  # noqa: ARG002
        assert step.best is not None and step.normalisers is not None
        items, teacher, student = (t[:, : self.top] for t in (step.best.items, step.best.teacher, step.best.student))
        places = torch.arange(items.shape[1], device=items.device)
        importance = self.position * (-places / self.decay).softmax(0)
        importance = importance + self.confidence * teacher.softmax(1) + self.agreement * student.detach().softmax(1)
        possible = ~step.left_out[items]  # a short list ends in row 0, and what is no candidate cannot be learned
        importance = importance * possible
        importance = importance / importance.sum(1, keepdim=True).clamp(min=torch.finfo(importance.dtype).tiny)
        right = (items == step.targets[:, None]).any(1)
        trust = torch.where(right, 1.0, self.doubted)
        surprise = (step.normalisers[:, None] - student).masked_fill(~possible, 0.0)
        return (trust * (importance * surprise).sum(1)).mean()


def _kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Scores (positions, n) each -> mean KL of their softmaxes at the temperature, times its square, in nats."""
    q = (student / temperature).log_softmax(-1)
    p = (teacher / temperature).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean() * temperature**2
