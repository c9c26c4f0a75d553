"""Gradual pruning: a part goes, what is left is trained and scored again, then the next part goes.

Heads, neurons and dimensions go geometrically, each step keeping the same share of what the last one left (Frankle &
Carbin 2019, section 1: p^(1/n) a round), so that the last cuts, which hurt most, are not the largest. Layers go
linearly: one at a time where there are steps enough. The recovery's epochs are split over the steps.
"""

from collections.abc import Iterator
from typing import TypeVar

from compress.distil.text import TextTraining
from compress.models.sequence import SequenceEncoder
from compress.models.text import TextEncoder
from compress.prune.structured import Structured
from compress.prune.views import views
from compress.training import Training

AnyStructured = TypeVar("AnyStructured", bound=Structured)


def gradually(structured: AnyStructured, model: SequenceEncoder | TextEncoder) -> Iterator[tuple[AnyStructured, str]]:
    """The settings of each step, shares relative to what the step before left, and what to add to a training's name.

    One step is `structured` as it is. The last step leaves what one step would, where all layers are equally wide.
    Made of the model as it is when the first is asked for.
    """
    steps = structured.steps
    if steps == 1:
        yield structured, ""
        return
    layers = views(model)
    widths = {"keep_heads": layers[0].heads, "keep_neurons": layers[0].neurons}
    if isinstance(model, SequenceEncoder):
        widths["keep_dims"] = model.shape.item_dim
    before, count = dict(widths), len(layers)
    for step in range(1, steps + 1):
        update: dict[str, object] = {"steps": 1, "recovery": _part(structured.recovery, step, steps)}
        for name, width in widths.items():
            left = kept(width, getattr(structured, name), step, steps)
            update[name], before[name] = left / before[name], left
        if structured.keep_layers is not None:
            update["keep_layers"] = count - round((count - min(structured.keep_layers, count)) * step / steps)
        yield structured.model_copy(update=update), f", step {step} of {steps}"


def kept(width: int, share: float, step: int = 1, steps: int = 1) -> int:
    """How many of `width` are left after a step on the way to a share: halves to even, at least 1."""
    left: float = width * share ** (step / steps)
    return max(1, round(left))


def _part(recovery: Training | TextTraining, step: int, steps: int) -> Training | TextTraining:
    """The recovery of one step; epochs that do not divide go to the last ones."""
    first, last = (recovery.epochs * number // steps for number in (step - 1, step))
    return recovery.model_copy(update={"epochs": last - first})
