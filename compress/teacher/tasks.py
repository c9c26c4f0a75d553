"""Many small tasks out of one domain, to learn from how a new domain is learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compress.data.dataset import Cases, Dataset
from compress.data.few_shot import FewShot
from compress.stage import Entry, Shorthand
from deploy.errors import UsageError

Sequences = Sequence[NDArray[np.int32]]


@dataclass(frozen=True)
class Task:
    """A small domain: `items` int64 (n,) are rows of the domain it comes from, ascending. `sequences` holds each user's
    training events, oldest first and two at least, as rows 1..n of `items`: int32, ragged."""

    name: str
    items: NDArray[np.int64]
    sequences: Sequences

    def divide(self, few: FewShot, rng: np.random.Generator) -> tuple[Sequences, Sequences]:
        """Support, what a new domain would know of its users, and query, all events of the users it does not know."""
        counts = np.array([len(events) for events in self.sequences])
        kept = few(counts, rng)
        known = [events[:n] for events, n in zip(self.sequences, kept, strict=True) if n]
        return known, [events for events, n in zip(self.sequences, kept, strict=True) if not n]


def last_events(sequences: Sequences) -> Cases:
    """Each user's last event as a case, the events before it as the history."""
    stops = np.cumsum([len(events) for events in sequences]) - 1
    items = np.concatenate(sequences)
    unknown = np.zeros(len(stops), bool)
    starts = np.concatenate([[0], stops[:-1] + 1])
    return Cases(np.arange(len(stops), dtype=np.int32), items[stops], unknown, unknown, starts, stops, items)


class UserGroups(Entry):
    """Groups of users, drawn; every task has all items."""

    name: Literal["user_groups"] = "user_groups"
    groups: Annotated[int, Field(ge=2, le=10_000)] = 32

    def __call__(self, dataset: Dataset, rng: np.random.Generator) -> list[Task]:
        sequences = [events for events in dataset.train_sequences() if len(events) > 1]
        parts = np.array_split(rng.permutation(len(sequences)), self.groups)
        items = np.arange(1, dataset.n_items + 1)
        return [Task(f"group {i}", items, [sequences[u] for u in users]) for i, users in enumerate(parts)]


class Attribute(Entry):
    """The items of each value of an attribute, such as a genre, and what users did with them. Sources that are learned
    mixed have the attribute `domain`.

    An item with several values is in several tasks, so that tasks held out have items in common with the others.
    """

    name: Literal["attribute"] = "attribute"
    attribute: str

    def __call__(self, dataset: Dataset, rng: np.random.Generator) -> list[Task]:  # noqa: ARG002 - nothing is drawn
        cells = dataset.attributes.get(self.attribute)
        if cells is None:
            known = ", ".join(dataset.attributes) or "none"
            raise UsageError(
                f"source.method.tasks.attribute: unknown attribute; allowed: {known} (got {self.attribute!r})"
            )
        separator = dataset.list_separators.get(self.attribute)
        values = [{part.strip() for part in cell.split(separator)} if separator else {cell} for cell in cells]
        return [
            _on_items(value, np.flatnonzero([value in held for held in values]) + 1, dataset)
            for value in sorted(set[str]().union(*values) - {""})
        ]


Tasks = Annotated[UserGroups | Attribute, Field(discriminator="name"), Shorthand]


def _on_items(name: str, items: NDArray[np.int64], dataset: Dataset) -> Task:
    place = np.zeros(dataset.n_items + 1, np.int32)
    place[items] = np.arange(1, len(items) + 1)
    sequences = [place[events] for events in dataset.train_sequences()]
    return Task(name, items, [some for events in sequences if len(some := events[events > 0]) > 1])
