"""What a student minimises beside the observed next item: one registry entry per loss."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional

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


class SoftLabels(Entry):
    """Binary cross-entropy against the teacher's probability of a like, for like/dislike rows.

    Hinton et al. 2015, section 2, with two classes; what the user said has the rest of the weight.
    """

    name: Literal["soft_labels"] = "soft_labels"
    weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.7
    temperature: PositiveFloat = 1.0

    def __call__(self, logits: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
        """logits, labels (0 and 1) and the teacher's logits, (rows,) float each -> mean over rows, in nats."""
        hard = functional.binary_cross_entropy_with_logits(logits, labels)
        wanted = (teacher / self.temperature).sigmoid()
        soft = functional.binary_cross_entropy_with_logits(logits / self.temperature, wanted)
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft


SequenceLoss = Annotated[ListwiseKL | SoftLabels | Skip, Field(discriminator="name"), Shorthand]
