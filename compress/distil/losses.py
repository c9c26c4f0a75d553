"""What a student minimises beside the observed next item: one registry entry per loss."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from compress.stage import Entry, Shorthand, Skip


class ListwiseKL(Entry):
    """KL(teacher || student) over the teacher's cached best items, both renormalised to them, times temperature².

    Hinton et al. 2015, section 2, on a list: the softmax over the catalogue is cut to the teacher's first items.
    """

    name: Literal["listwise_kl"] = "listwise_kl"
    weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8  # the observed next item has the rest
    temperature: PositiveFloat = 2.0

    def __call__(self, logits: Tensor, items: Tensor, scores: Tensor) -> Tensor:
        """logits (positions, n_items + 1); items int64, scores (positions, top) -> mean over positions, in nats."""
        student = (logits.gather(1, items) / self.temperature).log_softmax(-1)
        teacher = (scores / self.temperature).log_softmax(-1)
        return (teacher.exp() * (teacher - student)).sum(-1).mean() * self.temperature**2


class VectorMSE(Entry):
    """Squared distance of a text student's item vector to the teacher's, relative to the teacher's variance."""

    name: Literal["vector_mse"] = "vector_mse"

    def __call__(self, student: Tensor, teacher: Tensor, variance: float) -> Tensor:
        """student, teacher (items, dim) -> mean over items and dimensions; 1 is what a constant would get."""
        return (student - teacher).square().mean() / variance


SequenceLoss = Annotated[ListwiseKL | Skip, Field(discriminator="name"), Shorthand]
