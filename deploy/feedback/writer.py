"""Appending to the newest segment: one write and one sync for a group of records, in turn with other processes."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from deploy import disk
from deploy.errors import UsageError
from deploy.feedback.records import Begin, End, encode_record, parse_payload
from deploy.lines import scan_lines

SUFFIX = ".log"
LOCK = "lock"


@dataclass(frozen=True)
class Limits:
    """Bounds of a log, in bytes, and how long it keeps what it holds.

    segment_bytes: a segment takes no more after that. max_bytes: of all segments; the oldest go first. pending_bytes:
    of records that wait to be written. retain_days: older records are removed (within the hour), None keeps them.
    """

    segment_bytes: int = 8 << 20
    max_bytes: int = 256 << 20
    pending_bytes: int = 4 << 20
    retain_days: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError where the bounds contradict each other."""
        if self.segment_bytes < 1 or self.max_bytes < 2 * self.segment_bytes:
            raise UsageError(
                f"max_bytes: must be at least two segments, {2 * self.segment_bytes} (got {self.max_bytes})"
            )


@dataclass
class Tail:
    """The newest segment, open. `size`: where its last whole line ends. `records`: in it. `ended`: it takes no more."""

    number: int
    path: Path
    descriptor: int
    size: int = 0
    records: int = 0
    ended: bool = False

    def append(self, lines: bytes, records: int) -> None:
        """Write lines and make them durable. Raises OSError; what then is on the disk is not known."""
        disk.write_all(self.descriptor, lines)
        disk.sync(self.descriptor)
        self.size += len(lines)
        self.records += records

    def end(self) -> None:
        """Write the last line."""
        self.append(encode_record(End(records=self.records)), 0)
        self.ended = True

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)


def segment_path(folder: Path, number: int) -> Path:
    """Where a segment lies."""
    return folder / f"{number:08d}{SUFFIX}"


def segment_numbers(folder: Path) -> list[int]:
    """The segments of a log, oldest first."""
    names = [path.stem for path in folder.glob(f"*{SUFFIX}")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and len(name) == 8 and int(name))


def open_tail(folder: Path) -> Tail | None:
    """The newest segment, made ready for more: what follows its last whole line is cut off. None where there is none.

    The caller holds the lock. Raises OSError.
    """
    numbers = segment_numbers(folder)
    if not numbers:
        return None
    path = segment_path(folder, numbers[-1])
    tail = Tail(numbers[-1], path, disk.open_for_append(path))
    catch_up(tail)
    return tail


def catch_up(tail: Tail) -> None:
    """Read what was appended beyond `tail.size`, and cut off what is not whole. The caller holds the lock."""
    with tail.path.open("rb") as stream:
        stream.seek(tail.size)
        for place, payload in scan_lines(stream):
            if payload is None:
                continue
            record = parse_payload(payload)
            tail.size = place
            tail.ended = isinstance(record, End)
            tail.records += not isinstance(record, Begin | End)
    disk.cut(tail.descriptor, tail.size)


class Writer:
    """Appends groups of lines. Any number of processes may each have one for the same log; not for several threads."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Raises OSError."""
        self.folder, self.limits = folder, limits
        self.dropped_segments = 0
        self._tail: Tail | None = None
        self._avoid = 0  # a segment of which it is not known what the disk holds
        disk.make_folder(folder)

    def commit(self, lines: bytes, records: int) -> None:
        """Append `records` whole lines; when this returns they survive a power cut. Raises OSError."""
        with disk.lock(self.folder / LOCK):
            tail = self._ready(len(lines))
            try:
                tail.append(lines, records)
            except OSError:
                # After a failed sync the kernel may call lost bytes clean: nothing is written behind them.
                self._avoid = tail.number
                self.close()
                raise

    def close(self) -> None:
        """Let go of the files."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    def _ready(self, wanted: int) -> Tail:
        tail = self._current()
        if tail is None:
            return self._new(1)
        if tail.ended or tail.number == self._avoid:
            return self._new(tail.number + 1)
        if not tail.size:  # the power failed before its first line
            tail.append(encode_record(Begin(number=tail.number)), 0)
        if tail.records and tail.size + wanted > self.limits.segment_bytes:
            tail.end()
            return self._new(tail.number + 1)
        return tail

    def _current(self) -> Tail | None:
        """The tail, where another process or `upkeep` changed the log since the last commit as it is now."""
        tail = self._tail
        if tail is not None:
            with contextlib.suppress(FileNotFoundError):
                found = tail.path.stat()
                newer = segment_path(self.folder, tail.number + 1).exists()
                same = found.st_ino == os.fstat(tail.descriptor).st_ino and found.st_size >= tail.size
                if same and not newer:
                    if found.st_size != tail.size:
                        catch_up(tail)
                    return tail
            self.close()
        self._tail = open_tail(self.folder)
        return self._tail

    def _new(self, number: int) -> Tail:
        self.close()
        path = segment_path(self.folder, number)
        line = encode_record(Begin(number=number))
        try:
            disk.write_new(path, line)
        except FileExistsError:
            raise
        except OSError:
            disk.remove(path)  # no room for it: the next commit tries again
            raise
        disk.sync_folder(self.folder)
        self._tail = Tail(number, path, disk.open_for_append(path), len(line))
        self._bound()
        return self._tail

    def _bound(self) -> None:
        paths = [segment_path(self.folder, number) for number in segment_numbers(self.folder)]
        sizes = [path.stat().st_size for path in paths]
        total = sum(sizes)
        for path, size in zip(paths[:-1], sizes, strict=False):
            if total + self.limits.segment_bytes <= self.limits.max_bytes:
                return
            disk.remove(path)
            disk.sync_folder(self.folder)
            total -= size
            self.dropped_segments += 1
