"""What a student minimises beside the observed next item: one registry entry per loss, and any mix of them."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    WrapSerializer,
)
from torch import Tensor
from torch.nn import functional

from compress.distil.lists import FullKL, ListwiseKL, RankingDistillation, SampledKL
from compress.distil.step import NEEDS, DistilLoss, Weight
from compress.distil.vectors import InfoNCE, VectorAlignment
from compress.stage import Entry, OneOrSeveral, Shorthand, Skip


class SoftLabels(Entry):
    """Binary cross-entropy against the teacher's probability of a like, for like/dislike rows.

    Hinton et al. 2015, section 2, with two classes; what the user said has the rest of the weight.
    """

    name: Literal["soft_labels"] = "soft_labels"
    weight: Weight = 0.7
    temperature: PositiveFloat = 1.0

    def __call__(self, logits: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
        """logits, labels (0 and 1) and the teacher's logits, (rows,) float each -> mean over rows, in nats."""
        hard = functional.binary_cross_entropy_with_logits(logits, labels)
        wanted = (teacher / self.temperature).sigmoid()
        soft = functional.binary_cross_entropy_with_logits(logits / self.temperature, wanted)
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft


SequenceLoss = ListwiseKL | SampledKL | FullKL | RankingDistillation | VectorAlignment | InfoNCE | SoftLabels | Skip


def _as_written(losses: tuple[SequenceLoss, ...], write: SerializerFunctionWrapHandler) -> Any:
    """One loss is written as itself: its digest is that of recipes from before there could be several."""
    written = write(losses)
    return written[0] if len(losses) == 1 else written


SequenceLosses = Annotated[
    tuple[Annotated[SequenceLoss, Field(discriminator="name"), Shorthand], ...],
    OneOrSeveral,
    WrapSerializer(_as_written),
    Field(min_length=1, max_length=8),
]
"""`loss: NAME`, `loss: {name: NAME, ...}` or a list of these. Each is mixed into what stands before it: with the
weights a and b of two losses the whole is (1 - b) * ((1 - a) * observed + a * first) + b * second."""


def wanted_of_teachers(losses: tuple[SequenceLoss, ...]) -> dict[str, str]:
    """As `StageConfig.wants`."""
    needs = frozenset[str]().union(*(loss.needs for loss in losses if isinstance(loss, DistilLoss)))
    return {name: NEEDS[name] for name in ("tail", "user_vectors") if name in needs}
