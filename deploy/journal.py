"""Cold items on disk: one append-only file of checksummed lines (deploy/lines.py) that a power cut leaves readable.

What was cut off in the last line was never acknowledged and is dropped. Lines damaged elsewhere are skipped, and the
file as it was is kept beside.
"""

import base64
import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


class ItemJournal:
    """The cold items of a state folder. One process holds the folder; thread-safe, so that releases may share it."""

    def __init__(self, folder: Path) -> None:
        """Open or begin the journal in `folder`. Raises UsageError where another process has it or it is unreadable."""
        self.folder = folder
        self.items: dict[str, StoredItem] = {}
        self.damaged_lines = 0
        self._changing = threading.Lock()
        self._held = contextlib.ExitStack()
        try:
            disk.make_folder(folder)
            if not self._held.enter_context(disk.lock(folder / LOCK, wait=False)):
                self._held.close()
                raise UsageError(f"{folder}: another server keeps its state there")
            self._fd = disk.open_for_append(folder / FILE)
            self._lines = self._replay()
            self._size = disk.size_of(self._fd)
            disk.sync_folder(folder)
        except OSError as error:
            self._held.close()
            raise UsageError(f"{folder}: cannot keep state ({error.strerror or error})") from None

    def close(self) -> None:
        """Give the folder to others."""
        os.close(self._fd)
        self._held.close()

    def put(self, item: StoredItem) -> None:
        """On disk when this returns. Raises UnavailableError where the disk refuses; nothing has then changed."""
        with self._changing:
            self._append({"put": item.to_json()})
            self.items = {**self.items, item.id: item}

    def remove(self, item: str) -> None:
        """As `put`."""
        with self._changing:
            self._append({"remove": item})
            self.items = {name: kept for name, kept in self.items.items() if name != item}

    def _append(self, record: Mapping[str, Any]) -> None:
        try:
            if self._lines > 2 * len(self.items) + _SPARE_LINES:
                self._compact()
            line = _line(record)
            disk.write_all(self._fd, line)
            disk.sync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):  # half a line must not stand in front of the next
                disk.cut(self._fd, self._size)
            raise UnavailableError(f"state: cannot be written ({error.strerror or error})") from None
        self._size += len(line)
        self._lines += 1

    def _replay(self) -> int:
        """Read every line; returns how many there are."""
        data = (self.folder / FILE).read_bytes()
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
            disk.write_whole(self.folder / DAMAGED, data)
            self._compact()
            return len(self.items)
        disk.cut(self._fd, whole)
        return len(lines)

    def _compact(self) -> None:
        """The items alone, in a new file that takes the old one's place in one step."""
        data = b"".join(_line({"put": item.to_json()}) for item in self.items.values())
        disk.write_whole(self.folder / FILE, data)
        os.close(self._fd)
        self._fd = disk.open_for_append(self.folder / FILE)
        self._lines, self._size = len(self.items), len(data)


def _line(record: Mapping[str, Any]) -> bytes:
    return encode_line(json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode())
