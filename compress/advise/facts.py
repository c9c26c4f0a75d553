"""Facts about a data set that the rules look at: counts, order, feedback, texts, and what a second domain shares."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from compress.advise.texts import TextFacts, separator_of, text_facts
from compress.data.domains import chosen_items, events_on, take_items
from compress.data.files import DATA_ROOT, Files, data_root
from compress.data.published import HISTORY, find_published, read_rows
from compress.data.sources import Source, read_source, source_name
from deploy.columns import read_columns
from deploy.errors import UsageError
from deploy.tables import Interactions, Items, read_items

SOURCE: TypeAdapter[Source] = TypeAdapter(Source)
Feedback = Literal["events", "ratings", "likes", "counts"]


@dataclass(frozen=True)
class Part:
    """A part of a data set: where it is, and of its items those with any of `values` of an attribute, or all."""

    where: str
    attribute: str | None = None
    values: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, whole: str) -> "Part":
        """A path or name; or `ATTRIBUTE=VALUE,VALUE`, items of the data set `whole`."""
        attribute, equals, values = text.partition("=")
        if not equals or "/" in attribute:
            return cls(text)
        wanted = tuple(value.strip() for value in values.split(",") if value.strip())
        if not (attribute and wanted):
            raise UsageError(f"ATTRIBUTE=VALUE,VALUE: an attribute and its values are needed (got {text!r})")
        return cls(whole, attribute, wanted)

    @property
    def source(self) -> Source:
        """Raises UsageError."""
        try:
            return SOURCE.validate_python(self.where)
        except ValidationError as error:
            raise UsageError(f"{self.where}: {error.errors()[0]['msg']}") from error

    def from_recipe(self) -> str:
        """How a recipe names it: below `$SLIMREC_DATA` where it lies there, as other machines have it too."""
        if not isinstance(self.source, Files) or self.where.startswith(DATA_ROOT):
            return self.where
        root, place = data_root(), Path(self.where).resolve()
        if root is not None and place.is_relative_to(root.resolve()):
            return f"{DATA_ROOT}/{place.relative_to(root.resolve())}"
        return str(place)


@dataclass(frozen=True)
class DomainFacts:
    """Counts without repeated events and, where ratings are likes and dislikes, of likes alone.

    `per_user` and `per_item`: median events of those that have any; `p90_user` the 90th percentile; `short` the share
    of users with fewer than 3 events, whom no recipe can ask.
    """

    part: Part
    name: str
    users: int
    items: int
    events: int
    per_user: float
    p90_user: float
    per_item: float
    short: float
    ordered: bool
    feedback: Feedback
    top_rating: float | None
    texts: TextFacts
    title_column: str | None
    separator: str

    @property
    def density(self) -> float:
        """Events per item of the catalogue."""
        return self.events / self.items


@dataclass(frozen=True)
class RowFacts:
    """Like/dislike rows of a published split: rows and users by split, the share of likes, the median history."""

    rows: Mapping[str, int]
    users: int
    liked: float
    history: float
    ordered: bool


@dataclass(frozen=True)
class Facts:
    """The target, its like/dislike rows where it has them, and the source with how many user ids both know.

    `named_users`: whether those ids are more than plain numbers, which two data sets give to different people.
    """

    target: DomainFacts
    columns: Mapping[str, str]
    rows: RowFacts | None = None
    source: DomainFacts | None = None
    shared_users: int = 0
    named_users: bool = True


def gather(target: Part, source: Part | None, columns: Mapping[str, str]) -> Facts:
    """Read the data, checked as a run checks it. Raises UsageError."""
    facts, users = _domain(target, columns)
    found = Facts(facts, columns, rows=_rows(target, columns))
    if source is None:
        return found
    other, others = _domain(source, columns)
    shared = users & others
    named = source.where == target.where or not all(user.isdigit() for user in shared)
    return replace(found, source=other, shared_users=len(shared), named_users=named)


def _domain(part: Part, columns: Mapping[str, str]) -> tuple[DomainFacts, set[str]]:
    """The facts, and the users who have events."""
    everything, interactions, _ = read_source(part.source, columns, " ")
    separator = separator_of(everything)
    wanted = {part.attribute: part.values} if part.attribute is not None else {}
    items = take_items(everything, chosen_items(f"{part.where}: items", wanted, separator, everything))
    if not len(items):
        raise UsageError(f"{part.where}: no item is left (got 0 of {len(everything)})")
    feedback = _feedback(interactions)
    top = None if interactions.ratings is None else float(interactions.ratings.max())
    events, _ = events_on(interactions, items.ids, top if feedback == "likes" else None, part.where)
    if not len(events.rows):
        raise UsageError(f"{part.where}: no event is on these items (got 0 of {len(interactions)})")
    by_user, by_item = np.diff(events.offsets), np.bincount(events.rows)[1:]
    active = by_user[by_user > 0]
    facts = DomainFacts(
        part=part,
        name=source_name(part.source),
        users=len(active),
        items=len(items),
        events=len(events.rows),
        per_user=float(np.median(active)),
        p90_user=float(np.quantile(active, 0.9)),
        per_item=float(np.median(by_item[by_item > 0])),
        short=float((active < 3).mean()),
        ordered=interactions.timed,
        feedback=feedback,
        top_rating=top,
        texts=text_facts(items),
        title_column=everything.title_column,
        separator=separator,
    )
    return facts, {user for user, count in zip(events.users, by_user, strict=True) if count}


def _feedback(interactions: Interactions) -> Feedback:
    """What a rating column holds: none or one value, two values, steps of a scale up to 10, or counts."""
    if interactions.ratings is None:
        return "events"
    values = np.unique(interactions.ratings)
    if len(values) == 1:
        return "events"
    if len(values) == 2:
        return "likes"
    return "ratings" if len(values) <= 20 and values[-1] <= 10 else "counts"


def _rows(part: Part, columns: Mapping[str, str]) -> RowFacts | None:
    """None where the data set has no published rows that carry their own history."""
    if part.attribute is not None or not isinstance(part.source, Files) or not part.source.located().is_dir():
        return None
    folder = part.source.located()
    if not any(folder.glob("*.test.inter")):
        return None
    files = find_published(folder)
    if HISTORY not in read_columns(files.rows["test"]).values:
        return None
    items: Items = read_items(files.items, {k: v for k, v in columns.items() if k in ("item", "title")})
    _, read = read_rows(files.rows, items.ids, {k: v for k, v in columns.items() if k != "title"}, None)
    labels = np.concatenate([rows.labels for rows in read.values()])
    lengths = np.concatenate([np.diff(rows.offsets) for rows in read.values()])
    return RowFacts(
        rows={split: len(rows) for split, rows in read.items()},
        users=len(np.unique(np.concatenate([rows.users for rows in read.values()]))),
        liked=float(labels.mean()),
        history=float(np.median(lengths)),
        ordered=all(rows.times is not None for rows in read.values()),
    )
