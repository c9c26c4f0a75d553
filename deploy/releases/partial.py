"""A file on its way: what came so far, and a note of how much of that is safe on the disk."""

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

from pydantic import Field

from deploy import disk
from deploy.errors import UsageError
from deploy.manifest import Record, canonical_json, parse_record

_SYNC_EVERY = 8 << 20
_MAX_NOTE = 64 << 10


class Note(Record):
    """`synced` bytes of the file from `url` are on the disk, of `total` where the server said so.

    tag: the validator (strong ETag or Last-Modified) of the version they belong to; without one nothing is resumed.
    """

    url: str
    tag: str | None = None
    synced: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] | None = None


def partial_path(url: str, folder: Path) -> Path:
    """Where `url` is fetched to."""
    return folder / f"{hashlib.sha256(url.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}{disk.PARTIAL}"


def read_note(path: Path) -> Note | None:
    """The note beside the partial file `path`; None where there is none that can be used."""
    try:
        with _note_path(path).open("rb") as stream:
            return parse_record(Note, stream.read(_MAX_NOTE), "note")
    except (OSError, UsageError):
        return None


def discard(path: Path) -> None:
    """Remove a partial file and its note."""
    disk.remove(_note_path(path))
    disk.remove(path)


class Partial:
    """A partial file, open for more. What is not known to be on the disk is dropped when it is opened."""

    def __init__(self, path: Path, url: str) -> None:
        """Raises OSError."""
        note = read_note(path)
        self.path, self.url = path, url
        self._descriptor = disk.open_for_append(path)
        self._size = disk.size_of(self._descriptor)
        resumed = note is not None and note.url == url and note.tag is not None and note.synced <= self._size
        self._note = note if note is not None and resumed else Note(url=url)
        self._cut(self._note.synced)
        self._saved = self._note

    @property
    def size(self) -> int:
        """How many bytes are there."""
        return self._size

    @property
    def tag(self) -> str | None:
        """The validator of the version that they belong to."""
        return self._note.tag

    @property
    def total(self) -> int | None:
        """How many there will be, if known."""
        return self._note.total

    def restart(self, tag: str | None, total: int | None) -> None:
        """Begin again, with this version."""
        # The note first: one that vouches for more bytes than there are must not outlive them.
        self._note = Note(url=self.url, tag=tag, total=total)
        self._write_note()
        self._cut(0)

    def write(self, data: bytes) -> None:
        """Append; every now and then what is there is made safe."""
        disk.write_all(self._descriptor, data)
        self._size += len(data)
        if self._size - self._note.synced >= _SYNC_EVERY:
            self.save()

    def save(self) -> None:
        """Make what is there safe, and say so in the note."""
        disk.sync(self._descriptor)
        self._note = self._note.model_copy(update={"synced": self._size})
        if self._note != self._saved:
            self._write_note()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _write_note(self) -> None:
        disk.write_whole(_note_path(self.path), canonical_json(self._note.model_dump(mode="json")))
        self._saved = self._note

    def _cut(self, size: int) -> None:
        disk.cut(self._descriptor, size)
        self._size = size


def _note_path(path: Path) -> Path:
    return path.with_suffix(".json")
