"""From the log to a data set that a recipe reads: RecBole atomic files, `NAME.inter` and `NAME.item`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import UsageError
from deploy.feedback.data_set import EventRow, merge_items, read_base, write_data_set
from deploy.feedback.reader import Damage, read
from deploy.feedback.records import Event, EventName, Shown
from deploy.tables import Items

LIKED: tuple[EventName, ...] = ("click", "like", "purchase")


@dataclass
class Exported:
    """What was written, and what was left out and why (reason -> number of events)."""

    events: int = 0
    users: int = 0
    items: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    damage: Damage = field(default_factory=Damage)

    def skip(self, reason: str) -> None:
        """Count an event that is left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def export(
    log: Path,
    out: Path,
    *,
    catalogues: Sequence[Items] = (),
    base: Path | None = None,
    events: Sequence[EventName] = LIKED,
) -> Exported:
    """Write `out/NAME.inter` (NAME is the folder's) and, where items are known, `out/NAME.item`.

    `.inter` has a row per event of a known user with an item that was shown to them: `user_id`, `item_id`, `rating` (0
    for a dislike, else 1), `timestamp` (seconds) and `event`, in the order of time; a repeated event counts once. A
    client's clock is trusted between the answer and the arrival of the event, no further. `.item` has every item of the
    catalogues, the first that has an item tells its title; events of other items are then left out, for a recipe needs
    their text. base: a data set (`deploy.tables.find_tables`) whose events and items come first, for a run that goes on
    from them; its times must be Unix seconds. Files are replaced one by one, each in one step.
    Raises UsageError (no log, no event, unreadable base, unwritable).
    """
    if not out.name:
        raise UsageError(f"{out}: the folder's name is the data set's; give it one")
    if base is not None and base.resolve() == out.resolve():
        raise UsageError(f"{base}: would be overwritten by what goes on from it; give the export a folder of its own")
    done = Exported()
    known, earlier = list(catalogues), list[EventRow]()
    if base is not None:
        base_items, earlier = read_base(base)
        known.append(base_items)
    items = merge_items(known) if known else None
    rows = _rows(log, frozenset(items.ids) if items else None, frozenset(events), done)
    if not rows:
        found = ", ".join(f"{count} {reason}" for reason, count in done.left_out.items()) or "an empty log"
        raise UsageError(f"{log}: no event to export (got {found})")
    done.events, done.users, done.items = len(rows), len({row.user for row in rows}), len({row.item for row in rows})
    write_data_set(out, [*earlier, *rows], items)
    return done


def _rows(log: Path, known: frozenset[str] | None, wanted: frozenset[str], done: Exported) -> list[EventRow]:
    # Two passes: of the answers, which are most of a log, only those that something came of are kept in memory.
    asked: dict[str, dict[tuple[str, str], Event]] = {}
    for record in read(log, done.damage):
        if not isinstance(record, Event):
            continue
        if record.event not in wanted:
            done.skip(f"{record.event} events")
        elif (record.item_id, record.event) in (told := asked.setdefault(record.request_id, {})):
            done.skip("repeated")
        else:
            told[record.item_id, record.event] = record
    rows: list[EventRow] = []
    for record in read(log):
        if not isinstance(record, Shown) or record.role != "answer" or record.request_id not in asked:
            continue
        shown = {item.id for item in record.items}
        for event in asked.pop(record.request_id).values():
            if record.user is None:
                done.skip("without a user")
            elif event.item_id not in shown:
                done.skip("of items that were not shown")
            elif known is not None and event.item_id not in known:
                done.skip("of items without a title")
            else:
                at = min(max(event.ts, record.time), max(event.time, record.time))
                rating = 0.0 if event.event == "dislike" else 1.0
                rows.append(EventRow(record.user, event.item_id, rating, at, event.event))
    for events in asked.values():
        for _ in events:
            done.skip("of unknown requests")
    return sorted(rows, key=lambda row: row.time)
