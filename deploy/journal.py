"""The cold items that all open releases share; on disk one append-only file of checksummed lines (deploy/lines.py).

A power cut leaves it readable: what was cut off in the last line was never acknowledged and is dropped. Lines
damaged elsewhere are skipped, and the file as it was is kept beside.
"""

import base64
import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np

from deploy import disk
from deploy.errors import UnavailableError, UsageError
from deploy.lines import decode_line, encode_line
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


class Follower(Protocol):
    """Who ranks the items of a journal: told of each change, one at a time, before whoever made it goes on."""

    def take(self, item: StoredItem) -> None:
        """An item was put."""

    def drop(self, item: str) -> None:
        """An item was removed."""


class ItemJournal:
    """Cold items and who ranks them. One process holds a state folder; thread-safe, so that releases share it."""

    def __init__(self, folder: Path | None) -> None:
        """Open or begin the journal in `folder`; None keeps items for as long as the process lives. Raises UsageError
        where another process has the folder or it is unreadable."""
        self.folder = folder
        self.items: dict[str, StoredItem] = {}
        self.damaged_lines = 0
        self.changing = threading.RLock()
        """Held while an item changes, in the journal and in all who follow it."""
        self._followers: WeakSet[Follower] = WeakSet()
        self._held = contextlib.ExitStack()
        if folder is not None:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        try:
            disk.make_folder(folder)
            if not self._held.enter_context(disk.lock(folder / LOCK, wait=False)):
                self._held.close()
                raise UsageError(f"{folder}: another server keeps its state there")
            self._fd = disk.open_for_append(folder / FILE)
            self._lines = self._replay(folder)
            self._size = disk.size_of(self._fd)
            disk.sync_folder(folder)
        except OSError as error:
            self._held.close()
            raise UsageError(f"{folder}: cannot keep state ({error.strerror or error})") from None

    def close(self) -> None:
        """Give the folder to others."""
        if self.folder is not None:
            os.close(self._fd)
        self._held.close()

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of changes from now on, for as long as it lives."""
        self._followers.add(follower)

    def put(self, item: StoredItem) -> None:
        """On disk, and ranked by all who follow, when this returns. Raises UnavailableError where the disk refuses;
        nothing has then changed."""
        with self.changing:
            if self.folder is not None:
                self._append(self.folder, {"put": item.to_json()})
            self.items = {**self.items, item.id: item}
            for follower in list(self._followers):
                follower.take(item)

    def remove(self, item: str) -> None:
        """As `put`."""
        with self.changing:
            if self.folder is not None:
                self._append(self.folder, {"remove": item})
            self.items = {name: kept for name, kept in self.items.items() if name != item}
            for follower in list(self._followers):
                follower.drop(item)

    def _append(self, folder: Path, record: Mapping[str, Any]) -> None:
        try:
            if self._lines > 2 * len(self.items) + _SPARE_LINES:
                self._compact(folder)
            line = _line(record)
            disk.write_all(self._fd, line)
            disk.sync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):  # half a line must not stand in front of the next
                disk.cut(self._fd, self._size)
            raise UnavailableError(f"state: cannot be written ({error.strerror or error})") from None
        self._size += len(line)
        self._lines += 1

    def _replay(self, folder: Path) -> int:
        """Read every line; returns how many there are."""
        data = (folder / FILE).read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines(keepends=True)
        for line in lines:
            try:
                record = json.loads(decode_line(line) or b"")
                if "put" in record:
                    item = StoredItem.of_json(record["put"])
                    self.items[item.id] = item
                else:
                    self.items.pop(record["remove"], None)
            except (ValueError, KeyError, TypeError):
                self.damaged_lines += 1
        if self.damaged_lines:
            disk.write_whole(folder / DAMAGED, data)
            self._compact(folder)
            return len(self.items)
        disk.cut(self._fd, whole)
        return len(lines)

    def _compact(self, folder: Path) -> None:
        """The items alone, in a new file that takes the old one's place in one step."""
        data = b"".join(_line({"put": item.to_json()}) for item in self.items.values())
        disk.write_whole(folder / FILE, data)
        os.close(self._fd)
        self._fd = disk.open_for_append(folder / FILE)
        self._lines, self._size = len(self.items), len(data)


def _line(record: Mapping[str, Any]) -> bytes:
    return encode_line(json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode())
