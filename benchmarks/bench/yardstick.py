"""A piece of work that no bundle, model or runtime changes: how fast the machine itself was in a round."""

from collections.abc import Callable

import numpy as np

NAME = "yardstick"


def yardstick() -> Callable[[], object]:
    """Multiplies 2 x 1 MB of float32 and looks 4,000 ids up: one thread, no BLAS, about half a millisecond."""
    left, right = (np.random.default_rng(seed).random(250_000, dtype=np.float32) for seed in (0, 1))
    out = np.empty_like(left)
    ids = [f"item-{number}" for number in range(4000)]
    row_of = {name: row for row, name in enumerate(ids)}

    def work() -> object:
        np.multiply(left, right, out=out)
        return [row_of[name] for name in ids], out.max()

    return work
