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

    def batch(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        used = int((self.inputs[index] > 0).any(0).sum())
        return tuple(torch.from_numpy(a[index, :used]) for a in (self.inputs, self.targets, self.positions))  # type: ignore[return-value]


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
