"""`bundle.slim`: one uncompressed ustar archive in canonical form (`docs/BUNDLE.md`, "The archive").

Canonical means sorted flat names, regular files only, mode 0644, zero times and owners, zero padding, two zero
blocks and nothing after them. The reader re-encodes every header and compares it with what it read, so whatever an
archive could say beyond a name and a size (links, devices, owners, extensions) is refused without being interpreted.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from deploy.errors import UsageError
from deploy.manifest import MAX_FILES, MAX_MANIFEST_BYTES, MAX_NAME, MAX_TOTAL_BYTES, is_file_name, shorten

BLOCK = 512
_END = bytes(2 * BLOCK)
_REGULAR = b"0"
_MAGIC = b"ustar\x0000"
# The manifest and its signature are not in the manifest's own count and sum.
_MAX_ENTRIES = MAX_FILES + 2
_MAX_BYTES = MAX_TOTAL_BYTES + MAX_MANIFEST_BYTES + BLOCK


def header(name: str, size: int) -> bytes:
    """The one 512-byte ustar header that a file of this name and size may have.

    Byte by byte rather than by `tarfile`, whose unused fields differ between versions of Python.
    """
    fields = b"".join(
        (
            name.encode("ascii").ljust(MAX_NAME, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,  # mode, owner, group
            b"%011o\0" % size,
            b"00000000000\0",  # time
            b" " * 8,  # the checksum counts itself as spaces
            _REGULAR + bytes(100),  # type, name linked to
            _MAGIC + bytes(32 + 32 + 8 + 8 + 155 + 12),  # names of owners, devices, prefix, padding
        )
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def write_archive(files: Mapping[str, Path], out: Path) -> None:
    """Write `files` (name -> path) to `out`: equal contents give equal bytes."""
    with out.open("wb") as archive:
        for name in sorted(files):
            size = files[name].stat().st_size
            archive.write(header(name, size))
            with files[name].open("rb") as source:
                shutil.copyfileobj(source, archive, 1 << 20)
            archive.write(bytes(-size % BLOCK))
        archive.write(_END)


def unpack_archive(archive: Path, folder: Path) -> None:
    """Check `archive` and write its files into `folder`, which must be new or empty.

    Raises UsageError where the archive is unreadable, not canonical or over a limit; `folder` is then left empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder}: unpacking needs an empty folder")
    written: list[Path] = []
    try:
        with _open_regular(archive) as stream:
            total = os.fstat(stream.fileno()).st_size
            for name, size in _entries(stream, archive, total):
                target = folder / name
                with target.open("xb") as out:
                    written.append(target)
                    _copy(stream, out, size, archive)
                if stream.read(-size % BLOCK).strip(b"\0"):
                    raise UsageError(f"{archive}: {name}: its padding is not zero")
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"{archive}: cannot be unpacked ({error.strerror or error})") from None
        raise


@contextlib.contextmanager
def _open_regular(path: Path) -> Iterator[BinaryIO]:
    # Before opening: a named pipe would wait for a writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise UsageError(f"{path}: not a regular file")
    with path.open("rb") as stream:
        yield stream


def _entries(stream: BinaryIO, archive: Path, total: int) -> Iterator[tuple[str, int]]:
    """(name, size) of each file; the caller reads content and padding before it asks for the next."""
    previous = ""
    folded: set[str] = set()
    used = 0
    for count in range(_MAX_ENTRIES + 1):
        block = stream.read(BLOCK)
        if block == _END[:BLOCK]:
            if stream.tell() + BLOCK != total or stream.read(BLOCK) != _END[BLOCK:]:
                raise UsageError(f"{archive}: does not end after its two zero blocks")
            return
        name, size = _parse_header(block, archive)
        if count == _MAX_ENTRIES:
            raise UsageError(f"{archive}: more than {_MAX_ENTRIES} files")
        if name <= previous:
            raise UsageError(f"{archive}: {name}: names must be sorted and used once (after {previous})")
        if name.lower() in folded:
            raise UsageError(f"{archive}: {name}: another name differs from it only in case")
        folded.add(name.lower())
        used += size
        if used > _MAX_BYTES:
            raise UsageError(f"{archive}: {name}: more than {_MAX_BYTES} bytes of files")
        if stream.tell() + size + (-size % BLOCK) + len(_END) > total:
            raise UsageError(f"{archive}: cut short in {name}")
        yield name, size
        previous = name


def _parse_header(block: bytes, archive: Path) -> tuple[str, int]:
    if len(block) < BLOCK:
        raise UsageError(f"{archive}: not a slimrec archive, or cut short")
    if block[257:265] != _MAGIC:
        raise UsageError(f"{archive}: not a slimrec archive (no ustar header)")
    name = block[:MAX_NAME].rstrip(b"\0").decode("ascii", "replace")
    if not is_file_name(name):
        raise UsageError(f"{archive}: a file's name must be plain, without folders (got {shorten(name)})")
    if block[156:157] != _REGULAR:
        raise UsageError(f"{archive}: {name}: not a regular file (got type {block[156:157]!r})")
    digits = block[124:135]
    size = int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else -1
    if size < 0 or header(name, size) != block:
        raise UsageError(f"{archive}: {name}: its header is not in canonical form")
    return name, size


def _copy(source: BinaryIO, out: BinaryIO, size: int, archive: Path) -> None:
    while size:
        chunk = source.read(min(size, 1 << 20))
        if not chunk:
            raise UsageError(f"{archive}: cut short")
        out.write(chunk)
        size -= len(chunk)
