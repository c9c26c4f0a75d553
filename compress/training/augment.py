"""Changes to training windows against overfitting: crop, mask and reorder of CL4SRec (Xie et al. 2022, section 3.2).

There they make views for a contrastive loss; here the next item is predicted from the changed window itself.
"""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.stage import Entry, Shorthand
from compress.training.windows import Windows

Chance = Annotated[float, Field(ge=0.0, le=1.0)]
Part = Annotated[float, Field(gt=0.0, lt=1.0)]


class Augment(Entry):
    """`share` of the windows are changed, drawn anew every epoch."""

    share: Chance = 0.5

    def __call__(self, cut: Windows, rng: np.random.Generator) -> Windows:
        """A window that would be left without a target stays as it is."""
        drawn = np.flatnonzero(rng.random(len(cut.inputs)) < self.share)
        changed = self.change(Windows(cut.inputs[drawn], cut.targets[drawn], cut.positions[drawn]), rng)
        good = (changed.targets > 0).any(1)
        mixed = Windows(*(array.copy() for array in cut.arrays()))
        for array, new in zip(mixed.arrays(), changed.arrays(), strict=True):
            array[drawn[good]] = new[good]
        return mixed

    def change(self, cut: Windows, rng: np.random.Generator) -> Windows:
        raise NotImplementedError


class Crop(Augment):
    """A random piece of the window stays, `keep` of its events, rounded up."""

    name: Literal["crop"] = "crop"
    keep: Part = 0.6

    def change(self, cut: Windows, rng: np.random.Generator) -> Windows:
        first, last = _pieces(cut, self.keep, rng)
        steps = np.arange(cut.inputs.shape[1])
        stays = steps <= last - first
        places = np.where(stays, first + steps, 0)
        moved = [np.take_along_axis(array, places, 1) for array in cut.arrays()]
        return Windows(*(np.where(stays, array, empty) for array, empty in zip(moved, (0, 0, -1), strict=True)))


class Mask(Augment):
    """Every event of the window is hidden with probability `rate`: its vector is zero. Targets stay."""

    name: Literal["mask"] = "mask"
    rate: Part = 0.2

    def change(self, cut: Windows, rng: np.random.Generator) -> Windows:
        return replace(cut, inputs=np.where(rng.random(cut.inputs.shape) < self.rate, 0, cut.inputs))


class Reorder(Augment):
    """A random piece, `part` of the window's events, is shuffled. Only its last event keeps its target: what follows
    the others would be in the input already."""

    name: Literal["reorder"] = "reorder"
    part: Part = 0.3

    def change(self, cut: Windows, rng: np.random.Generator) -> Windows:
        first, last = _pieces(cut, self.part, rng)
        steps = np.arange(cut.inputs.shape[1])
        inside = (steps >= first) & (steps <= last)
        keys = np.where(inside, first + rng.random(cut.inputs.shape) * (last - first + 1), steps)
        inputs = np.take_along_axis(cut.inputs, np.argsort(keys, axis=1, kind="stable"), 1)
        seen = inside & (steps < last)
        return Windows(inputs, np.where(seen, 0, cut.targets), np.where(seen, -1, cut.positions))


Augmentation = Annotated[Crop | Mask | Reorder, Field(discriminator="name"), Shorthand]


def _pieces(cut: Windows, part: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last place of a random piece of each window, `part` of its events: both (windows, 1)."""
    lengths = cut.known.sum(1, keepdims=True)
    sizes = np.ceil(lengths * part).astype(np.int64)
    first = rng.integers(0, lengths - sizes + 1)
    return first, first + sizes - 1
