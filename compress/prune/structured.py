"""What structured pruning takes, whichever part of a model it is: a share of each kind of part, by a criterion."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from compress.distil.text import TextTraining
from compress.models.sequence import SequenceEncoder
from compress.models.text import TextEncoder
from compress.prune.criteria import Criterion, FirstOrder, Losses, keep_best
from compress.prune.layers import prune_layers, prune_widths
from compress.stage import Entry
from compress.training import Training

Kept = Annotated[float, Field(gt=0.0, le=1.0)]
Steps = Annotated[int, Field(ge=1, le=100)]
CALIBRATION_BATCHES = 8


class Structured(Entry):
    """Which share of each kind of part stays; shapes really shrink. Criterion scores decide which, per layer.

    In several `steps` a part goes each time and what is left is trained and scored again (`schedule.py`).
    """

    name: Literal["structured"] = "structured"
    criterion: Criterion = FirstOrder()
    keep_layers: PositiveInt | None = None
    keep_heads: Kept = 1.0
    keep_neurons: Kept = 0.5
    steps: Steps = 1
    recovery: Training | TextTraining


def cut(model: SequenceEncoder | TextEncoder, structured: Structured, losses: Losses) -> None:
    """Remove in place what the criterion of `structured` scores lowest on the calibration batches' losses."""
    scores = structured.criterion(model, losses)
    keep = keep_best(scores, structured.keep_heads, structured.keep_neurons, structured.keep_layers)
    prune_widths(model, keep.widths)
    prune_layers(model, keep.layers)
