"""A domain of which few interactions are known: K training events in all."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class FewShot(BaseModel):
    """K interactions, whole domain: users in a drawn order give their oldest `per_user` training events each, until
    there are `events`. With one seed fewer events are a part of more. A lone event has nothing after it to predict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: Annotated[int, Field(ge=2, le=1_000_000, description="training events in all")]
    per_user: Annotated[int, Field(ge=2, le=1000, description="at most so many of one user")] = 5

    def __call__(self, counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Training events of each user, (users,) int64 -> how many of them, the oldest, are kept."""
        order = rng.permutation(len(counts))
        offered = np.minimum(counts[order], self.per_user)
        before = np.cumsum(offered) - offered
        kept = np.zeros_like(counts)
        kept[order] = np.clip(self.events - before, 0, offered)
        return kept
