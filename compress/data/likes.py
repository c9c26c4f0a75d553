"""A published like/dislike split -> one domain: its rows, and its likes as events to rank the catalogue by."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.domains import DomainConfig, Events, item_texts
from compress.data.files import Files
from compress.data.published import PublishedFiles, draw_shots, find_published, read_rows
from compress.data.sources import Source, source_name
from compress.data.splits import CaseIndex, Cold, Division, Published
from compress.data.write import list_separators, write_domain
from compress.likes.rows import SPLITS, Rows, Split, write_rows
from compress.stage import RunOptions
from deploy.errors import UsageError
from deploy.tables import read_items


def source_files(where: str, source: Source) -> PublishedFiles:
    """Raises UsageError where the source is no folder with a published split."""
    if not isinstance(source, Files):
        raise UsageError(f"{where}.from: a published like/dislike split is a folder of files (got {source!r})")
    return find_published(source.located())


def like_domain(
    where: str, domain: DomainConfig, split: Published, max_text_chars: int, seed: int, out: Path, options: RunOptions
) -> dict[str, Any]:
    """Writes `rows.npz` beside a domain's other files; returns what `dataset.json` says of it. Raises UsageError."""
    files = source_files(where, domain.source)
    item_columns = {role: name for role, name in domain.columns.items() if role in ("item", "title")}
    items = read_items(files.items, item_columns, domain.list_separator)
    texts = item_texts(where, domain.text, items, max_text_chars)
    columns = {role: name for role, name in domain.columns.items() if role != "title"}
    users, read = read_rows(files.rows, items.ids, columns, split.liked_from)
    ordered = all(rows.times is not None for rows in read.values())
    parts: Mapping[Split, Rows] = read
    pool = None
    if split.shots is not None:
        parts, pool = draw_shots(parts, split.shots, seed)
    elif "train" not in parts:
        raise UsageError(f"{where}: no .train.inter; set split.shots to draw training rows from the validation rows")
    for name in ("valid", "test"):
        if len(np.unique(parts[name].labels)) < 2:
            raise UsageError(f"{where}: {name} rows need likes and dislikes (got {len(parts[name])} rows of one kind)")
    if not ordered:
        parts = {name: _shuffled(parts[name], np.random.default_rng([seed, n])) for n, name in enumerate(SPLITS)}
    events, division = liked_events(users, parts)
    nothing = np.zeros(0, np.int32)
    write_domain(out, items, texts, events, division, Cold(nothing, nothing, nothing))
    write_rows(out / "rows.npz", parts)
    counts = {name: len(parts[name]) for name in SPLITS}
    sizes = ", ".join(f"{n} {name} rows" for name, n in counts.items())
    options.log(f"{len(users)} users, {len(items)} items; {sizes}")
    return {
        "source": source_name(domain.source),
        "users": len(np.unique(np.concatenate([rows.users for rows in parts.values()]))),
        "items": len(items),
        "interactions": sum(counts.values()),
        "timed": ordered,
        "list_separators": list_separators(items, domain),
        "cold_items": 0,
        "rows": counts,
        "shots_from": pool,
        "cases": {"valid": len(division.valid.users), "test": len(division.test.users), "cold": 0},
    }


def _shuffled(rows: Rows, rng: np.random.Generator) -> Rows:
    """Histories without an order, in a random one: the order of the file may tell the likes from the rest."""
    order = np.lexsort((rng.random(len(rows.history)), rows.owners()))
    return replace(rows, history=rows.history[order], history_likes=rows.history_likes[order])


def liked_events(users: list[str], parts: Mapping[Split, Rows]) -> tuple[Events, Division]:
    """Each user's likes as events, in the order the rows show them (train, valid, test; by time in each): liked items
    of the history first, then the item asked about if it was liked; each item once.

    Training rows' likes train. A user's validation and test cases are the first like that such rows ask about, with
    an event before it: the catalogue is ranked for what the bundle serves, while accuracy is measured on the rows.
    """
    events: list[dict[int, tuple[str, float]]] = [{} for _ in users]  # row -> the split and time that showed it first
    asked: dict[Split, dict[int, int]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        rows = parts[split]
        order = np.arange(len(rows)) if rows.times is None else np.argsort(rows.times, kind="stable")
        for i in order.tolist():
            user, own = int(rows.users[i]), events[int(rows.users[i])]
            part = slice(rows.offsets[i], rows.offsets[i + 1])
            time = float(len(own)) if rows.times is None else float(rows.times[i])
            for item in rows.history[part][rows.history_likes[part]].tolist():
                own.setdefault(item, (split, time))
            item = int(rows.items[i])
            if rows.labels[i] and item not in own:
                if own:
                    asked[split].setdefault(user, len(own))
                own[item] = (split, time)
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in events])]).astype(np.int64)
    flat = np.array([item for own in events for item in own], np.int32)
    train = np.array([split == "train" for own in events for split, _ in own.values()], bool)
    times = np.array([time for own in events for _, time in own.values()], np.float64)
    cases = (_cases(asked[split], offsets) for split in ("valid", "test"))
    return Events(users, offsets, flat, times), Division(train, *cases)


def _cases(first: Mapping[int, int], offsets: NDArray[np.int64]) -> CaseIndex:
    users = np.array(sorted(first), np.int32)
    places = np.array([first[int(user)] for user in users], np.int64)
    return CaseIndex(users, offsets[users] + places)
