"""A table file into named text columns: RecBole atomic files, CSV and Parquet. Mistakes name file, line and column."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.errors import UsageError

ATOMIC_SUFFIXES = (".inter", ".item", ".net", ".tsv")
ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")
MAX_FILE_BYTES = 2 << 30
MAX_FIELD_CHARS = 131_072  # the csv module's own limit
MAX_COLUMNS = 1_000
_SHOWN = 5


@dataclass
class Problems:
    """Mistakes found in one file: the first five of each kind are kept, the rest counted."""

    path: Path
    _lines: dict[str, list[str]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, where: str, what: str) -> None:
        """`where` is a place in the file ("line 3, column time"), `what` the mistake and its remedy."""
        self._counts[kind] += 1
        if self._counts[kind] <= _SHOWN:
            self._lines.setdefault(kind, []).append(f"{self.path}, {where}: {what}")

    def check(self) -> None:
        """Raises UsageError with everything found so far, if anything was."""
        lines = []
        for kind, found in self._lines.items():
            lines += found
            if (more := self._counts[kind] - len(found)) > 0:
                lines.append(f"{self.path}: {more} more of the same kind ({kind})")
        if lines:
            raise UsageError(lines)


@dataclass(frozen=True)
class Columns:
    """`values` maps each column to its cells, one text per row; `lines` gives each row's place, `unit` its word.

    Text files count 1-based lines, the header included; Parquet counts 1-based rows. `sequences` names the columns that
    the file itself says hold several values: `token_seq` and `float_seq`, or a Parquet list.
    """

    path: Path
    values: dict[str, list[str]]
    lines: Sequence[int]
    unit: str = "line"
    sequences: frozenset[str] = frozenset()

    def where(self, row: int, column: str) -> str:
        return f"{self.unit} {self.lines[row]}, column {column}"

    def need(self, name: str, purpose: str) -> list[str]:
        """The column `name`; raises UsageError naming the columns present where it is absent."""
        if name not in self.values:
            raise UsageError(
                f"{self.path}: missing column {name} ({purpose}); map it with `columns:` "
                f"(got columns {', '.join(self.values)})"
            )
        return self.values[name]


def check_size(path: Path, most: int) -> None:
    """Raises UsageError where the file cannot be read or has more than `most` bytes."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if size > most:
        raise UsageError(f"{path}: larger than {most} bytes; split the data (got {size})")


def read_columns(path: Path, list_separator: str = " ") -> Columns:
    """All columns of an atomic (`.inter`, `.item`, `.net`, `.tsv`), `.csv` or `.parquet` file as text.

    Atomic files are tab-separated without quoting, `name:type` in the header. A Parquet list becomes its elements
    joined with `list_separator`, a null becomes "", a timestamp becomes seconds. Raises UsageError.
    """
    reader = {".csv": _csv, **dict.fromkeys(ATOMIC_SUFFIXES, _atomic)}.get(path.suffix)
    if reader is None and path.suffix != ".parquet":
        raise UsageError(f"{path}: a table is .inter, .item, .csv or .parquet (got {path.suffix or path.name!r})")
    check_size(path, MAX_FILE_BYTES)
    columns = reader(path, _text(path)) if reader else _parquet(path, list_separator)
    if not columns.lines:
        raise UsageError(f"{path}: no rows after the header; the file must hold data (got 0 rows)")
    return columns


def write_atomic(path: Path, columns: Mapping[str, Sequence[str]], types: Mapping[str, str]) -> None:
    """Writes columns of equal length as a RecBole atomic file; `types` (by column) defaults to token_seq.

    Lossless for text without tabs and newlines: each of those becomes one space. Raises UsageError on text that
    has no UTF-8 form, ValueError on unequal columns.
    """
    header = "\t".join(f"{_cell(name)}:{types.get(name, 'token_seq')}" for name in columns)
    rows = zip(*([_cell(cell) for cell in column] for column in columns.values()), strict=True)
    text = "\n".join([header, *("\t".join(row) for row in rows)]) + "\n"
    try:
        path.write_bytes(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: text has no UTF-8 form (got {text[error.start]!r})") from None


_BREAKS = str.maketrans({"\t": " ", "\n": " ", "\r": " "})


def _cell(text: str) -> str:
    return text.replace("\r\n", " ").translate(_BREAKS)


def _text(path: Path) -> str:
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise UsageError(f"{path}: the file is empty; it needs a header and rows (got {len(data)} bytes)")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: not UTF-8 at byte {error.start}; save the file as UTF-8 "
            f"(got byte 0x{data[error.start]:02x})"
        ) from None


def _atomic(path: Path, text: str) -> Columns:
    # Only "\n" ends a row: str.splitlines would also cut at form feeds and Unicode separators inside a title.
    rows = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
    problems = Problems(path)
    names = []
    for position, cell in enumerate(rows[0], start=1):
        name, _, kind = cell.rpartition(":")
        if not name or kind not in ATOMIC_TYPES:
            problems.add(
                "header",
                f"line 1, column {position}",
                f"a header cell is name:type with a type of {', '.join(ATOMIC_TYPES)} (got {cell[:60]!r})",
            )
        names.append(name)
    problems.check()
    while len(rows) > 1 and rows[-1] == [""] and len(names) > 1:
        rows.pop()
    table = _table(path, names, rows[1:], range(2, len(rows) + 1))
    kinds = [cell.rpartition(":")[2] for cell in rows[0]]
    return replace(table, sequences=frozenset(n for n, k in zip(names, kinds, strict=True) if k.endswith("_seq")))


def _csv(path: Path, text: str) -> Columns:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines, start = [], [], 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{path}, line {start}: not CSV ({error}); quote fields as in RFC 4180") from None
    return _table(path, [name.strip() for name in rows[0]], rows[1:], lines[1:])


def _table(path: Path, names: list[str], rows: list[list[str]], lines: Sequence[int]) -> Columns:
    problems = Problems(path)
    _check_names(problems, names)
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(names):
            problems.add("fields", f"line {line}", f"{len(names)} fields expected as in the header (got {len(row)})")
            continue
        for name, cell in zip(names, row, strict=True):
            if len(cell) > MAX_FIELD_CHARS:
                what = f"a field has at most {MAX_FIELD_CHARS} characters (got {len(cell)})"
                problems.add("long field", f"line {line}, column {name}", what)
    problems.check()
    cells: list[Any] = list(zip(*rows, strict=True)) or [()] * len(names)
    return Columns(path, {name: list(column) for name, column in zip(names, cells, strict=True)}, lines)


def _check_names(problems: Problems, names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        problems.add("columns", "line 1", f"at most {MAX_COLUMNS} columns (got {len(names)})")
    for name, count in Counter(names).items():
        if count > 1:
            problems.add("repeated column", f"line 1, column {name}", f"repeated column (got it {count} times)")
    problems.check()


def _parquet(path: Path, list_separator: str) -> Columns:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError(f"{path}: Parquet needs pyarrow; install it or save the table as CSV") from None
    try:
        file = pq.ParquetFile(path)
        groups = (file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if (size := sum(groups)) > MAX_FILE_BYTES:
            raise UsageError(f"{path}: larger than {MAX_FILE_BYTES} bytes unpacked; split the data (got {size})")
        table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{path}: not a readable Parquet file ({str(error)[:200]})") from None
    problems = Problems(path)
    _check_names(problems, table.column_names)
    values: dict[str, list[str]] = {}
    for name in table.column_names:
        cells = [_parquet_text(cell, list_separator) for cell in table.column(name).to_pylist()]
        for row, cell in enumerate(cells, start=1):
            if len(cell) > MAX_FIELD_CHARS:
                what = f"a field has at most {MAX_FIELD_CHARS} characters (got {len(cell)})"
                problems.add("long field", f"row {row}, column {name}", what)
        values[name] = cells
    problems.check()
    lists = frozenset(column.name for column in table.schema if pa.types.is_list(column.type))
    return Columns(path, values, range(1, table.num_rows + 1), unit="row", sequences=lists)


def _parquet_text(cell: object, list_separator: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list):
        return list_separator.join(_parquet_text(part, list_separator) for part in cell)
    if isinstance(cell, datetime):
        # Parquet's times without a zone are UTC; Python would take them for the machine's own zone
        return repr((cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp())
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, float) and math.isfinite(cell):
        return repr(cell)
    return str(cell)
