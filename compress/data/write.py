"""A domain's files, as docs/ARCHITECTURE.md describes them."""

from pathlib import Path
from typing import Any

import numpy as np

from compress.data.domains import DomainConfig, Events
from compress.data.segments import short_histories, tail_items
from compress.data.splits import Cold, Division
from deploy.tables import Items, write_items

OWN_COLUMNS = frozenset({"item_id", "title", "text"})
"""What `items.item` fills itself: a source's column of that name feeds the template and is not kept beside it."""


def list_separators(items: Items, domain: DomainConfig) -> dict[str, str]:
    """Attribute -> what separates its values, for those that hold several."""
    return dict.fromkeys(sorted((items.sequences | set(domain.items)) - OWN_COLUMNS), domain.list_separator)


def write_domain(out: Path, items: Items, texts: list[str], events: Events, division: Division, cold: Cold) -> None:
    """Writes the files of `domains/<name>/` that docs/ARCHITECTURE.md describes."""
    out.mkdir(parents=True)
    attributes = {name: cells for name, cells in items.attributes.items() if name not in OWN_COLUMNS}
    write_items(out / "items.item", items.ids, items.titles, {"text": texts, **attributes})
    out.joinpath("users.txt").write_bytes("".join(f"{user}\n" for user in events.users).encode("utf-8"))
    np.savez(out / "events.npz", offsets=events.offsets, items=events.rows, times=events.times)
    sets = {
        "valid": (division.valid.users, division.valid.positions, events.rows[division.valid.positions]),
        "test": (division.test.users, division.test.positions, events.rows[division.test.positions]),
        "cold": (cold.users, events.offsets[cold.users + 1], cold.targets),
    }
    tail = tail_items(np.bincount(events.rows[division.train], minlength=len(items) + 1))
    split: dict[str, Any] = {"train": division.train, "cold_items": cold.items, "cold_targets": cold.targets}
    segments: dict[str, Any] = {}
    for name, (users, positions, targets) in sets.items():
        split |= {f"{name}_users": users, f"{name}_positions": positions}
        segments[f"{name}_tail"] = tail[targets]
        segments[f"{name}_short"] = short_histories(positions - events.offsets[users])
    np.savez(out / "split.npz", **split)
    np.savez(out / "segments.npz", **segments)
