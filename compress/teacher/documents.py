"""The texts a language model is pretrained on: items, and histories as a reader would see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from compress.data.dataset import Dataset
from compress.teacher.objectives import Objective
from deploy.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Documents:
    """Texts to train on, and texts that only measure."""

    train: list[str]
    held_out: list[str]


def documents(objective: Objective, datasets: Sequence[Dataset], rng: np.random.Generator) -> Documents:
    """Every item text of all domains once, or one history per user and domain, or both; each split at random.

    With `both`, items held out are left out of the training histories too, so that what measures is unseen.
    Raises UsageError where a history is asked for and no user has training events.
    """
    train: list[str] = []
    held_out: list[str] = []
    if objective.texts != "histories":
        train, held_out = _split(sorted({text for d in datasets for text in d.texts}), objective, rng)
    if objective.texts != "items":
        unseen = set(held_out)
        users, held_users = _split(
            [[d.texts[row - 1] for row in rows] for d in datasets for rows in d.train_sequences() if len(rows)],
            objective,
            rng,
        )
        if not users:
            raise UsageError(f"pretrain.objective.texts: too few users with training events (got {objective.texts!r})")
        n = objective.history_events
        train += [history(kept[-n:]) for texts in users if (kept := [t for t in texts if t not in unseen])]
        held_out += [history(texts[-n:]) for texts in held_users]
    return Documents(train, held_out)


def history(texts: Sequence[str]) -> str:
    """Item texts, oldest first, one a line: a form that belongs to no language."""
    return "\n".join(texts)


def _split(whole: Sequence[T], objective: Objective, rng: np.random.Generator) -> tuple[list[T], list[T]]:
    """(to train on, held out), at least one of the latter."""
    order = rng.permutation(len(whole))
    held = max(1, int(len(whole) * objective.held_out_share))
    return [whole[i] for i in order[held:]], [whole[i] for i in order[:held]]
