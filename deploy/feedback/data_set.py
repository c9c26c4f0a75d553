"""The data set that an export writes, and what goes into it beside the log: a base and the items' titles."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy import disk
from deploy.bundle import open_bundle
from deploy.columns import write_atomic
from deploy.errors import UsageError
from deploy.manifest import ITEMS
from deploy.releases import Releases
from deploy.releases.shelf import RELEASES
from deploy.tables import Items, find_tables, read_interactions, read_items, write_items


class EventRow(NamedTuple):
    """One line of `.inter`; `time` in Unix seconds."""

    user: str
    item: str
    rating: float
    time: float
    event: str


def read_catalogues(source: Path) -> list[Items]:
    """The items of a bundle (folder or archive), of an `.item` file, or of all releases in a folder, newest first.

    Raises UsageError, GateError as `open_bundle`.
    """
    if source.suffix == ".item":
        return [read_items(source)]
    if (source / RELEASES).is_dir():
        releases = Releases(source)
        return [read_items(releases.folder(one.digest) / ITEMS) for one in releases.installed()]
    bundle = open_bundle(source)
    return [read_items(bundle.path(ITEMS))]


def read_base(path: Path) -> tuple[Items, list[EventRow]]:
    """The items and events of a data set, an unrated event as 1. Raises UsageError, also where it has no times."""
    tables = find_tables(path)
    if tables.items is None:
        raise UsageError(f"{tables.interactions}: no item file beside it")
    events = read_interactions(tables.interactions)
    if not events.timed:
        raise UsageError(f"{tables.interactions}: without times nothing tells its events from later ones")
    rows = []
    for user, name in enumerate(events.users):
        for place in range(events.offsets[user], events.offsets[user + 1]):
            rating = 1.0 if events.ratings is None else float(events.ratings[place])
            item = events.items[events.item_index[place]]
            rows.append(EventRow(name, item, rating, float(events.times[place]), "base"))
    return read_items(tables.items), rows


def merge_items(catalogues: Iterable[Items]) -> Items:
    """All items of the catalogues; of one that several have, the first tells. What a catalogue lacks is empty."""
    rows: dict[str, tuple[str, dict[str, str]]] = {}
    for items in catalogues:
        for place, item in enumerate(items.ids):
            if item not in rows:
                rows[item] = items.titles[place], {name: cells[place] for name, cells in items.attributes.items()}
    names = dict.fromkeys(name for _, cells in rows.values() for name in cells)
    attributes = {name: [cells.get(name, "") for _, cells in rows.values()] for name in names}
    return Items(list(rows), [title for title, _ in rows.values()], attributes, "title")


def write_data_set(out: Path, rows: Sequence[EventRow], items: Items | None) -> None:
    """Write `out/NAME.item` (where there are items) and `out/NAME.inter`, each in one step. Raises UsageError."""
    try:
        disk.make_folder(out)
        # The items first: events of items that are not there would be a mistake.
        if items is not None:
            partial = out / f"{out.name}.item{disk.PARTIAL}"
            write_items(partial, items.ids, items.titles, items.attributes)
            _publish(partial)
        partial = out / f"{out.name}.inter{disk.PARTIAL}"
        columns = {
            "user_id": [row.user for row in rows],
            "item_id": [row.item for row in rows],
            "rating": [f"{row.rating:g}" for row in rows],
            "timestamp": [f"{row.time:.3f}" for row in rows],
            "event": [row.event for row in rows],
        }
        types = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float", "event": "token"}
        write_atomic(partial, columns, types)
        _publish(partial)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror or error})") from None


def _publish(partial: Path) -> None:
    """A finished file gets its name, durably."""
    disk.sync_file(partial)
    disk.move(partial, partial.with_name(partial.name.removesuffix(disk.PARTIAL)))
