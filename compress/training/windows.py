"""Training windows: each user's events cut so that every event but the first is a target exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Training windows: `inputs`, `targets` (windows, length) int64 rows padded on the right, and `positions`,
    the index of each target among all training positions (-1: not a target here)."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(windows, length): where the window has an event, a hidden one too."""
        steps = np.arange(self.inputs.shape[1])
        lengths = np.where((self.inputs > 0) | (self.targets > 0), steps + 1, 0).max(1, keepdims=True, initial=0)
        known: NDArray[np.bool_] = steps < lengths
        return known

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        return self.inputs, self.targets, self.positions

    def batch(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and positions of some windows, cut to the longest of them."""
        some = Windows(*(array[index] for array in self.arrays()))
        used = int(some.known.any(0).sum())
        inputs, targets, positions = (torch.from_numpy(array[:, :used]) for array in some.arrays())
        return inputs, targets, positions

    def batches(self, size: int, rng: np.random.Generator, by_length: bool = False) -> list[NDArray[np.int64]]:
        """Every window once, in random batches: int64 indices, about `size` windows each.

        With `by_length` a batch holds windows of like length, so that little is computed on padding, and all batches
        about as many targets, so that no target weighs more than another.
        """
        order = rng.permutation(len(self.inputs))
        count = -(-len(order) // size)
        if not by_length:
            return np.array_split(order, count)
        order = order[np.argsort(self.known[order].sum(1), kind="stable")]
        targets = np.cumsum((self.targets[order] > 0).sum(1))
        parts = np.split(order, np.searchsorted(targets, targets[-1] * np.arange(1, count) / count))
        return [parts[place] for place in rng.permutation(count) if len(parts[place])]


def windows(sequences: Sequence[NDArray[np.int32]], length: int, shift: np.random.Generator | None = None) -> Windows:
    """Cut each user's events into windows so that every event but the first is a target exactly once.

    Without `shift` the cuts count back from the newest event, so that the newest targets see full windows; with it the
    cuts move at random, so that over the epochs a target is seen under contexts of every length.
    """
    inputs, targets, positions = [], [], []
    first = 0
    for events in sequences:
        n = len(events) - 1
        if n < 1:
            continue
        ends = list(range(n, 0, -length))
        if shift is not None and n > length:
            ends = [n, *range(n - int(shift.integers(1, length + 1)), 0, -length)]
        for end, previous in zip(ends, [*ends[1:], 0], strict=True):
            start = max(0, end - length)
            padding = (0, length - (end - start))
            fresh = np.arange(start, end) >= previous
            inputs.append(np.pad(events[start:end], padding))
            targets.append(np.pad(np.where(fresh, events[start + 1 : end + 1], 0), padding))
            positions.append(np.pad(np.where(fresh, first + np.arange(start, end), -1), padding, constant_values=-1))
        first += n
    shape = (len(inputs), length)
    return Windows(*(np.array(a, np.int64).reshape(shape) for a in (inputs, targets, positions)))
