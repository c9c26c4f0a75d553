"""Cold items on disk: one append-only file of checksummed lines that a power cut leaves readable.

A line is the CRC-32 of its JSON in eight hex digits, a space, the JSON and a newline. What was cut off in the last line
was never acknowledged and is dropped. Lines damaged elsewhere are skipped, and the file as it was is kept beside.
"""

import base64
import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import UnavailableError, UsageError
from deploy.text import Vectors

FILE, LOCK = "items.log", "items.lock"
DAMAGED = "items.damaged"
_SPARE_LINES = 1000


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A cold item with the vector, float32 (dim,), that an encoder gave its text; `made_of` names both."""

    id: str
    title: str
    text: str | None
    cells: Mapping[str, str]
    made_of: str = ""
    vector: Vectors | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        vector = None if self.vector is None else base64.b64encode(self.vector.astype("<f4").tobytes()).decode()
        own = {"id": self.id, "title": self.title, "text": self.text, "cells": dict(self.cells)}
        return {**own, "made_of": self.made_of, "vector": vector}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "StoredItem":
        """Raises KeyError, TypeError or ValueError on what `to_json` did not write."""
        raw = found["vector"]
        vector = None if raw is None else np.frombuffer(base64.b64decode(raw), "<f4").astype(np.float32)
        return cls(found["id"], found["title"], found["text"], found["cells"], found["made_of"], vector)


class ItemJournal:
    """The cold items of a state folder. One process holds the folder; the caller serialises changes."""

    def __init__(self, folder: Path) -> None:
        """Open or begin the journal in `folder`. Raises UsageError where another process has it or it is unreadable."""
        self.folder = folder
        self.items: dict[str, StoredItem] = {}
        self.damaged_lines = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / LOCK)
            self._fd = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
            self._lines = self._replay()
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
            _sync_folder(folder)
        except OSError as error:
            raise UsageError(f"{folder}: cannot keep state ({error.strerror or error})") from None

    def close(self) -> None:
        """Give the folder to others."""
        os.close(self._fd)
        os.close(self._lock)

    def put(self, item: StoredItem) -> None:
        """On disk when this returns. Raises UnavailableError where the disk refuses; nothing has then changed."""
        self._append({"put": item.to_json()})
        self.items[item.id] = item

    def remove(self, item: str) -> None:
        """As `put`."""
        self._append({"remove": item})
        self.items.pop(item, None)

    def _append(self, record: Mapping[str, Any]) -> None:
        try:
            if self._lines > 2 * len(self.items) + _SPARE_LINES:
                self._compact()
            line = _line(record)
            _write_all(self._fd, line)
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):  # half a line must not stand in front of the next
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
            raise UnavailableError(f"state: cannot be written ({error.strerror or error})") from None
        self._size += len(line)
        self._lines += 1

    def _replay(self) -> int:
        """Read every line; returns how many there are."""
        data = (self.folder / FILE).read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        for line in lines:
            try:
                checksum, _, content = line.partition(b" ")
                if int(checksum, 16) != zlib.crc32(content):
                    raise ValueError("checksum")
                record = json.loads(content)
                if "put" in record:
                    item = StoredItem.of_json(record["put"])
                    self.items[item.id] = item
                else:
                    self.items.pop(record["remove"], None)
            except (ValueError, KeyError, TypeError):
                self.damaged_lines += 1
        if self.damaged_lines:
            os.close(_replaced(self.folder / DAMAGED, data))
            self._compact()
            return len(self.items)
        if whole < len(data):
            os.ftruncate(self._fd, whole)
            os.fsync(self._fd)
        return len(lines)

    def _compact(self) -> None:
        """The items alone, in a new file that takes the old one's place in one step."""
        data = b"".join(_line({"put": item.to_json()}) for item in self.items.values())
        fd = _replaced(self.folder / FILE, data)
        os.close(self._fd)
        self._fd, self._lines, self._size = fd, len(self.items), len(data)
        _sync_folder(self.folder)


def _line(record: Mapping[str, Any]) -> bytes:
    content = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _replaced(path: Path, data: bytes) -> int:
    """Put `data` in the place of `path` in one step; returns a file descriptor that stands at its end."""
    partial = path.with_name(path.name + ".partial")
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        _write_all(fd, data)
        os.fsync(fd)
        partial.replace(path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _locked(path: Path) -> int:
    """A file descriptor whose lock ends with the process, however it ends."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise UsageError(f"{path.parent}: another server keeps its state there") from None
    return fd
