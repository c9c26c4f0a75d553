"""Publishers' archives, read without unpacking to disk: bounded, and one clear line for whatever is wrong."""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from deploy.errors import UsageError

MAX_MEMBER_BYTES = 500_000_000
MAX_TEXT_BYTES = 50_000_000_000
MAX_LINE_BYTES = 10_000_000
MAX_MEMBERS = 1_000
GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what a damaged archive raises into a UsageError that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: a damaged or unknown archive; delete it to fetch it again (got {str(error) or 'no data'})"
        ) from None


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members stay inside it. Raises UsageError, also for what reading its members raises."""
    with reading(path), zipfile.ZipFile(path) as files:
        if len(files.infolist()) > MAX_MEMBERS:
            raise zipfile.BadZipFile(f"{len(files.infolist())} members, at most {MAX_MEMBERS} allowed")
        for name in files.namelist():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise zipfile.BadZipFile(f"a member outside the archive, {name!r}")
        yield files


def member_lines(files: zipfile.ZipFile, name: str, encoding: str) -> Iterator[str]:
    """The lines of a member without their ends (LF or CRLF). Raises BadZipFile: absent, encrypted or huge member."""
    try:
        size = files.getinfo(name).file_size
        if size > MAX_MEMBER_BYTES:
            raise zipfile.BadZipFile(f"{name} unpacks to {size} bytes, at most {MAX_MEMBER_BYTES} allowed")
        member = files.open(name)
    except (KeyError, RuntimeError, NotImplementedError) as error:
        raise zipfile.BadZipFile(f"{name}: {error}") from None
    with io.TextIOWrapper(member, encoding, newline="\n") as lines:
        for line in lines:
            yield line.removesuffix("\n").removesuffix("\r")


def text_lines(path: Path) -> Iterator[str]:
    """The UTF-8 lines of a text file, gzipped or plain, their ends cut off. Raises UsageError."""
    total = 0
    with reading(path), path.open("rb") as raw, _unpacked(raw) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            total += len(line)
            if len(line) > MAX_LINE_BYTES or total > MAX_TEXT_BYTES:
                limit = f"{MAX_LINE_BYTES} bytes a line and {MAX_TEXT_BYTES} in all"
                raise UsageError(f"{path}: unpacks to more than {limit} (got {total} so far)")
            yield line.decode("utf-8").removesuffix("\n").removesuffix("\r")


def _unpacked(file: io.BufferedReader) -> io.BufferedIOBase:
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == GZIP_MAGIC else file


def rows(where: str, lines: Iterable[str], separator: str, fields: int) -> list[list[str]]:
    """The fields of each line that is not blank, without quoting. Raises UsageError on another number of fields."""
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found.append(row := line.split(separator))
            if len(row) != fields:
                raise UsageError(f"{where}, line {number}: {fields} fields expected (got {len(row)})")
    if not found:
        raise UsageError(f"{where}: no rows (got 0)")
    return found


def columns(
    where: str, lines: Iterable[str], names: Sequence[str], separator: str = ",", quoted: bool = True
) -> list[list[str]]:
    """The cells of the columns `names` of a table with a header, one list per column. Raises UsageError."""
    # csv wants the line ends back, for quoted cells that hold them
    reader = csv.reader(
        (f"{line}\n" for line in lines),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        header = [name.removeprefix("\ufeff").strip() for name in next(reader, [])]
        if missing := [name for name in names if name not in header]:
            raise UsageError(f"{where}: missing column {', '.join(missing)} (got {', '.join(header) or 'nothing'})")
        places = [header.index(name) for name in names]
        cells: list[list[str]] = [[] for _ in names]
        seen: dict[str, str] = {}  # ids repeat over millions of rows: keep each text once
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UsageError(
                    f"{where}, line {reader.line_num}: {len(header)} fields expected as in the header (got {len(row)})"
                )
            for place, column in zip(places, cells, strict=True):
                column.append(seen.setdefault(row[place], row[place]))
    except csv.Error as error:
        raise UsageError(f"{where}, line {reader.line_num}: not a table of cells ({error})") from None
    if not cells[0]:
        raise UsageError(f"{where}: no rows after the header (got 0)")
    return cells
