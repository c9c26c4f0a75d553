"""From a source's tables to one domain: its items, their text, and its users' events in order."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from compress.data.few_shot import FewShot
from compress.data.sources import Source
from deploy.errors import UsageError
from deploy.tables import ROLES, Interactions, Items
from deploy.template import fill, one_line, template_columns


class DomainConfig(BaseModel):
    """Which part of a source is the domain, and how an item reads as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    source: Source = Field(alias="from", description="a name of docs/DATA.md, or the path of a folder or file")
    items: dict[str, tuple[str, ...]] = Field(
        default={}, description="attribute: any of these values; all attributes hold"
    )
    not_in: str | None = Field(default=None, description="leave out the items of that domain")
    text: str | None = Field(
        default=None, max_length=1000, description="template over item columns; default: the title"
    )
    columns: dict[str, str] = Field(default={}, description="names of the columns user, item, time, rating, title")
    list_separator: str = Field(default=" ", min_length=1, max_length=8, description="between values of one attribute")
    order: Literal["time", "none"] = Field(default="time", description="none: each user's events in a random order")
    train_users: float = Field(
        default=1.0, gt=0, le=1, description="share of users to train and validate on; all are asked in the test"
    )
    few_shot: FewShot | None = Field(
        default=None, description="train on so few events in all; all are asked in the test"
    )

    @field_validator("columns")
    @classmethod
    def _known_roles(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(value) - set(ROLES)):
            raise ValueError(f"maps {', '.join(ROLES)} only (got {', '.join(unknown)})")
        return value

    @field_validator("text")
    @classmethod
    def _plain_template(cls, value: str | None) -> str | None:
        if value is not None:
            template_columns(value)
        return value


@dataclass(frozen=True)
class Events:
    """Events sorted by user, then time. Item rows int32 are 1-based; `offsets` int64 (users + 1)."""

    users: list[str]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    times: NDArray[np.float64]

    def keep(self, mask: NDArray[np.bool_]) -> "Events":
        """The events of `mask` bool (events,); every user stays."""
        counts = np.bincount(self.owners()[mask], minlength=len(self.users))
        return Events(self.users, _offsets(counts), self.rows[mask], self.times[mask])

    def keep_users(self, mask: NDArray[np.bool_]) -> "Events":
        """The users of `mask` bool (users,) with their events."""
        events = mask[self.owners()]
        users = [user for user, kept in zip(self.users, mask, strict=True) if kept]
        return Events(users, _offsets(np.diff(self.offsets)[mask]), self.rows[events], self.times[events])

    def owners(self) -> NDArray[np.int64]:
        """User index of each event, int64 (events,)."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.offsets))


def item_texts(where: str, template: str | None, items: Items, max_chars: int) -> list[str]:
    """One text per item: the title or the filled template, white space collapsed, cut at `max_chars`."""
    if template is None:
        if items.title_column is None:
            columns = ", ".join(["item_id", *items.attributes])
            raise UsageError(f"{where}.text: the items have no title; give a template (got columns {columns})")
        texts = items.titles
    else:
        values = {**items.attributes, "item_id": items.ids, "title": items.titles}
        if items.title_column is not None:
            values[items.title_column] = items.titles
        names = template_columns(template)
        if unknown := [name for name in names if name not in values]:
            raise UsageError(
                f"{where}.text: unknown column {', '.join(unknown)}; columns: {', '.join(values)} (got {template!r})"
            )
        texts = [fill(template, {name: values[name][row] for name in names}) for row in range(len(items))]
    return [one_line(text)[:max_chars] for text in texts]


def chosen_items(where: str, wanted: Mapping[str, tuple[str, ...]], separator: str, items: Items) -> NDArray[np.bool_]:
    """Which items have, for every attribute of `wanted`, at least one of its values. bool (items,)."""
    mask = np.ones(len(items), dtype=bool)
    mistakes = []
    for attribute, values in wanted.items():
        cells = items.attributes.get(attribute)
        if cells is None:
            allowed = ", ".join(items.attributes) or "none in this item file"
            mistakes.append(f"{where}.items: unknown attribute; allowed: {allowed} (got {attribute!r})")
            continue
        parts = [{part.strip() for part in cell.split(separator)} - {""} for cell in cells]
        present = set[str]().union(*parts)
        for value in values:
            if value not in present:
                some = ", ".join(sorted(present)[:30])
                mistakes.append(f"{where}.items.{attribute}: no item has it; values are {some} (got {value!r})")
        mask &= np.array([not part.isdisjoint(values) for part in parts])
    if mistakes:
        raise UsageError(mistakes)
    return mask


def take_items(items: Items, mask: NDArray[np.bool_]) -> Items:
    """The items of `mask` bool (items,), in order."""
    kept = np.flatnonzero(mask).tolist()
    attributes = {name: [cells[i] for i in kept] for name, cells in items.attributes.items()}
    return replace(
        items, ids=[items.ids[i] for i in kept], titles=[items.titles[i] for i in kept], attributes=attributes
    )


def events_on(
    interactions: Interactions, item_ids: list[str], min_rating: float | None, where: str
) -> tuple[Events, dict[str, int]]:
    """The events on the given items (row i + 1 for `item_ids[i]`), and how many were left out and why.

    A user's second event on an item is left out: items already seen are excluded from every ranking, so it could
    never be answered.
    """
    row_of = {item: row for row, item in enumerate(item_ids, start=1)}
    lookup = np.array([row_of.get(item, 0) for item in interactions.items], dtype=np.int32)
    events = Events(interactions.users, interactions.offsets, lookup[interactions.item_index], interactions.times)
    keep = events.rows > 0
    low = np.zeros_like(keep)
    if min_rating is not None:
        if interactions.ratings is None:
            raise UsageError(f"{where}: min_rating needs a rating column (got {min_rating})")
        low = keep & (interactions.ratings < min_rating)
    events = events.keep(keep & ~low)
    pairs = events.owners() * (len(item_ids) + 1) + events.rows
    first = np.zeros(len(pairs), dtype=bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    return events.keep(first), {"low_ratings": int(low.sum()), "repeated_events": int((~first).sum())}


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
