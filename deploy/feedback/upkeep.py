"""Deleting from a log, by age or by user: segments are rewritten, each in one step, while a server may append."""

from collections.abc import Callable, Iterable
from pathlib import Path

from deploy import disk
from deploy.feedback.reader import Damage, read, read_segment
from deploy.feedback.records import Begin, End, Event, Shown, encode_record
from deploy.feedback.writer import LOCK, open_tail, segment_numbers, segment_path

Drop = Callable[[Shown | Event], bool]


def prune(folder: Path, before: float) -> int:
    """Remove the records of before `before` (Unix seconds, this device's clock); returns how many. Raises OSError."""
    expired = [number for number in segment_numbers(folder) if _begins_before(segment_path(folder, number), before)]
    if not expired:
        return 0
    if expired[-1] == segment_numbers(folder)[-1]:
        _end_newest(folder)
    return _rewrite(folder, expired, lambda record: record.time < before)


def forget(folder: Path, user: str) -> int:
    """Remove what was shown to `user` and what came of it; returns how many records. Raises UsageError, OSError.

    Newest first: an event names its request alone, so the answer that ties it to the user goes after it, and a call
    that was interrupted can be repeated. What a server appends meanwhile is not searched.
    """
    _end_newest(folder)
    numbers = segment_numbers(folder)
    requests = {record.request_id for record in read(folder) if isinstance(record, Shown) and record.user == user}
    return _rewrite(folder, numbers, lambda record: record.request_id in requests)


def _begins_before(path: Path, before: float) -> bool:
    first = next(read_segment(path, Damage()), None)
    return first is not None and first.time < before


def _end_newest(folder: Path) -> None:
    """A segment that is appended to is not rewritten: end it, and the next record begins another."""
    with disk.lock(folder / LOCK):
        tail = open_tail(folder)
        if tail is not None:
            try:
                if tail.records and not tail.ended:
                    tail.end()
            finally:
                tail.close()


def _rewrite(folder: Path, numbers: Iterable[int], drop: Drop) -> int:
    return sum(_rewrite_one(folder, number, drop) for number in sorted(numbers, reverse=True))


def _rewrite_one(folder: Path, number: int, drop: Drop) -> int:
    path, damage = segment_path(folder, number), Damage()
    with disk.lock(folder / LOCK):
        records = list(read_segment(path, damage))
        kept = [record for record in records if not drop(record)]
        if len(kept) == len(records) and not damage.lines:
            return 0
        # Damaged lines go, too: whom they tell of cannot be known.
        if kept:
            lines = [encode_record(record) for record in (Begin(number=number), *kept, End(records=len(kept)))]
            disk.write_whole(path, b"".join(lines))
        else:
            disk.remove(path)
            disk.sync_folder(folder)
        return len(records) - len(kept)
