"""What a text student minimises: its item vectors against the teacher's, and the states they are made from."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from compress.models.encoder import ItemEncoder
from compress.models.family import additive
from compress.models.states import TextStates
from compress.models.text import TextEncoder
from compress.stage import Entry, OneOrSeveral, Shorthand
from deploy.errors import UsageError


@dataclass(frozen=True)
class TextStep:
    """Some texts: the student's item vectors and the teacher's, (texts, dim), and the variance of all of the teacher's;
    which tokens are there, (texts, tokens) int64; the states of both where a loss asked for them."""

    student: Tensor
    teacher: Tensor
    variance: float
    mask: Tensor
    student_states: TextStates | None = None
    teacher_states: TextStates | None = None


class TextLoss(Entry):
    """A loss of a text student. Several are added, each times its `weight`."""

    weight: NonNegativeFloat = 1.0

    @property
    def needs_states(self) -> bool:
        return True

    def head(self, student: ItemEncoder, teacher: TextEncoder) -> nn.Module:  # noqa: ARG002
        """What is trained with the student for this loss alone and thrown away afterwards. Raises UsageError where the
        two do not fit."""
        return nn.Identity()

    @abstractmethod
    def __call__(self, step: TextStep, head: nn.Module) -> Tensor:
        """A scalar, the mean over texts or tokens."""


class VectorMSE(TextLoss):
    """Squared distance of a text student's item vector to the teacher's, relative to the teacher's variance: 1 is
    what a constant would get."""

    name: Literal["vector_mse"] = "vector_mse"

    @property
    def needs_states(self) -> bool:
        return False

    def __call__(self, step: TextStep, head: nn.Module) -> Tensor:  # noqa: ARG002
        return (step.student - step.teacher).square().mean() / step.variance


class HiddenStates(TextLoss):
    """Squared distance of the hidden states after each layer, through one learned linear map, to those of the teacher's
    layer at the same share of its depth (TinyBERT: Jiao et al. 2020, section 3), at real tokens.

    Relative to the variance of the teacher's states. The map starts as the identity, as far as that goes where
    pruning cut the student's width. The embedding layer, which TinyBERT compares too, is the teacher's own here.
    """

    name: Literal["hidden_states"] = "hidden_states"

    def head(self, student: ItemEncoder, teacher: TextEncoder) -> nn.Module:
        assert isinstance(student, TextEncoder)  # no other student can name this loss
        same = nn.Linear(student.hidden_size, teacher.hidden_size, bias=False, device="meta")
        same.weight = nn.Parameter(torch.eye(teacher.hidden_size, student.hidden_size))
        return same

    def __call__(self, step: TextStep, head: nn.Module) -> Tensor:
        assert step.student_states is not None and step.teacher_states is not None
        ours, theirs, real = step.student_states.hidden, step.teacher_states.hidden, step.mask > 0
        parts = []
        for number, hidden in enumerate(ours, 1):
            wanted = theirs[math.ceil(number * len(theirs) / len(ours)) - 1][real]
            parts.append((head(hidden[real]) - wanted).square().mean() / wanted.var(0, unbiased=False).mean())
        return torch.stack(parts).mean()


class AttentionRelations(TextLoss):
    """KL(teacher || student) between how tokens relate: softmaxes of the scaled products of queries with queries, keys
    with keys and values with values, the three summed, mean over real tokens and relation heads, in nats.

    MiniLMv2 (Wang et al. 2021, section 3): the student's last layer learns from one layer of the teacher's, all heads
    side by side and split again into `relation_heads`, so that neither the number nor the width of heads need agree
    (pruned students, decoders with fewer key heads). Where this number does not divide a width, the largest common
    divisor is taken.
    """

    name: Literal["attention_relations"] = "attention_relations"
    relation_heads: PositiveInt = 12
    teacher_layer: PositiveInt | None = None  # counted from 1; by default the last

    def head(self, student: ItemEncoder, teacher: TextEncoder) -> nn.Module:
        if self.teacher_layer is not None and self.teacher_layer > len(teacher.layers):
            raise UsageError(
                f"attention_relations.teacher_layer: the teacher has {len(teacher.layers)} layers "
                f"(got {self.teacher_layer})"
            )
        return super().head(student, teacher)

    def __call__(self, step: TextStep, head: nn.Module) -> Tensor:  # noqa: ARG002
        assert step.student_states is not None and step.teacher_states is not None
        theirs = step.teacher_states.attention[-1 if self.teacher_layer is None else self.teacher_layer - 1]
        parts = []
        for ours, wanted in zip(step.student_states.attention[-1], theirs, strict=True):
            heads = math.gcd(self.relation_heads, ours.shape[-1], wanted.shape[-1])
            log_q, log_p = _relations(ours, heads, step.mask), _relations(wanted, heads, step.mask)
            each = (log_p.exp() * (log_p - log_q)).sum(-1)  # (texts, heads, tokens)
            parts.append(each.transpose(1, 2)[step.mask > 0].mean())
        return torch.stack(parts).sum()


def _relations(states: Tensor, heads: int, mask: Tensor) -> Tensor:
    """states (texts, tokens, width) -> (texts, heads, tokens, tokens), log of how much each token relates to others."""
    split = states.view(*states.shape[:2], heads, -1).transpose(1, 2)
    products: Tensor = split @ split.transpose(-1, -2) * split.shape[-1] ** -0.5
    logits: Tensor = products.float() + additive(mask)
    return logits.log_softmax(-1)


TextLosses = Annotated[
    tuple[Annotated[VectorMSE | HiddenStates | AttentionRelations, Field(discriminator="name"), Shorthand], ...],
    OneOrSeveral,
    Field(min_length=1, max_length=8),
]
"""`loss: NAME`, `loss: {name: NAME, ...}` or a list of these, which are added."""
