"""Reading a log: whatever its bytes are, what is whole comes out and what is not is counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.errors import UsageError
from deploy.feedback.records import Begin, End, Event, Shown, parse_payload
from deploy.feedback.writer import segment_numbers, segment_path
from deploy.lines import scan_lines


@dataclass
class Damage:
    """What a reader could not read. lines: not as they were written, or of a newer version. records: those that a
    segment's last line says it holds and that are not there. open_segments: older ones without a last line."""

    lines: int = 0
    records: int = 0
    open_segments: int = 0

    def __bool__(self) -> bool:
        return bool(self.lines or self.records or self.open_segments)


def read(folder: Path, damage: Damage | None = None) -> Iterator[Shown | Event]:
    """Every whole record of the log, oldest first; `damage` takes what is not. A server may append meanwhile.

    Raises UsageError where there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such feedback log")
    damage = damage if damage is not None else Damage()
    numbers = segment_numbers(folder)
    for number in numbers:
        yield from read_segment(segment_path(folder, number), damage, newest=number == numbers[-1])


def read_segment(path: Path, damage: Damage, newest: bool = False) -> Iterator[Shown | Event]:
    """The records of one segment. newest: what follows its last whole line may still be being written."""
    found, bad, end = 0, 0, None
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return  # removed since it was listed: too old, or for want of room
    with stream:
        for _, payload in scan_lines(stream):
            record = None if payload is None else parse_payload(payload)
            if record is None:
                bad += 1
                continue
            damage.lines += bad
            bad = 0
            if isinstance(record, End):
                end = record
            elif not isinstance(record, Begin):
                found += 1
                yield record
    if end is not None or not newest:
        damage.lines += bad
        damage.open_segments += end is None
    if end is not None:
        damage.records += max(0, end.records - found)


def summarize(folder: Path, damage: Damage) -> dict[str, Any]:
    """Counts of records (`shown`, `events`), of `segments` and `bytes`, and the `oldest` and `newest` time or None."""
    paths = [segment_path(folder, number) for number in segment_numbers(folder)]
    found: dict[str, Any] = {"shown": 0, "events": 0, "segments": len(paths), "oldest": None, "newest": None}
    found["bytes"] = sum(path.stat().st_size for path in paths)
    for record in read(folder, damage):
        found["shown" if isinstance(record, Shown) else "events"] += 1
        found["oldest"] = record.time if found["oldest"] is None else min(found["oldest"], record.time)
        found["newest"] = record.time if found["newest"] is None else max(found["newest"], record.time)
    return found
