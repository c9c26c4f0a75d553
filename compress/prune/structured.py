"""What structured pruning takes, whichever part of a model it is: a share of each kind of part, by a criterion."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from compress.distil.text import TextTraining
from compress.models.sequence import SequenceEncoder
from compress.models.text import TextEncoder
from compress.prune.criteria import Criterion, FirstOrder, Losses, keep_best
from compress.prune.influence import LayersBy, OfCriterion
from compress.prune.layers import prune_layers, prune_widths
from compress.stage import Entry, without_default
from compress.training import Training

Kept = Annotated[float, Field(gt=0.0, le=1.0)]
Steps = Annotated[int, Field(ge=1, le=100)]
CALIBRATION_BATCHES = 8


class Structured(Entry):
    """Which share of each kind of part stays; shapes really shrink. Criterion scores decide which, per layer, and by
    default which layers (`layers_by`).

    In several `steps` a part goes each time and what is left is trained and scored again (`schedule.py`).
    """

    later: ClassVar[tuple[str, ...]] = ("layers_by", "steps")  # fields that recipes' keys do not know by their default
    name: Literal["structured"] = "structured"
    criterion: Criterion = FirstOrder()
    keep_layers: PositiveInt | None = None
    keep_heads: Kept = 1.0
    keep_neurons: Kept = 0.5
    layers_by: LayersBy = OfCriterion()
    steps: Steps = 1
    recovery: Training | TextTraining

    @model_serializer(mode="wrap")
    def _only_what_differs(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_default(write(self), self, *self.later)


def cut(model: SequenceEncoder | TextEncoder, structured: Structured, losses: Losses) -> None:
    """Remove in place what the criterion of `structured` scores lowest on the calibration batches' losses."""
    scores = structured.criterion(model, losses)
    if structured.keep_layers is not None:
        scores = replace(scores, layers=structured.layers_by(model, losses, scores))
    keep = keep_best(scores, structured.keep_heads, structured.keep_neurons, structured.keep_layers)
    prune_widths(model, keep.widths)
    prune_layers(model, keep.layers)
