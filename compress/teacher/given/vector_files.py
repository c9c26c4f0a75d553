"""Files of vectors by id: `.npy` with its ids beside it, Parquet, safetensors. Bounded, checked, never unpickled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from compress.data.arrays import check_dim, open_floats
from compress.store import file_sha256
from deploy.columns import Problems, check_size
from deploy.errors import UsageError

MAX_FILE_BYTES = 16 << 30
MAX_IDS_BYTES = 1 << 30
MAX_NUMBER = 1e9  # so that no dot product overflows
SUFFIXES = (".npy", ".parquet", ".safetensors")
_BATCH = 4096

Part = tuple[int, Sequence[str], NDArray[np.float32]]
"""Number of the first row, counted from 1, ids (n,) and vectors float32 (n, dim)."""


@dataclass(frozen=True)
class Vectors:
    """`values` float32 (wanted, dim), zero where `found` bool (wanted,) is False; `unknown` counts ids not wanted."""

    values: NDArray[np.float32]
    found: NDArray[np.bool_]
    unknown: int
    first_unknown: str | None


def digests(what: str, *files: str | None) -> dict[str, str]:
    """SHA-256 of each file given, by `what.<place>`. Raises UsageError where one is missing."""
    found = {}
    for place, name in enumerate(files):
        if name is None:
            continue
        if not Path(name).is_file():
            raise UsageError(f"{what}: no such file (got {name!r})")
        found[f"{what}.{place}"] = file_sha256(Path(name))
    return found


def read_vectors(path: Path, ids: Path | None, id_column: str, wanted: Sequence[str]) -> Vectors:
    """The vectors of the ids `wanted`, in their order.

    `.npy` holds floats (rows, dim), with one id a line in `ids`; Parquet the columns `id_column` and `vector` (a list
    of floats); safetensors one tensor (dim,) per id. Raises UsageError naming row and column.
    """
    row_of = {name: row for row, name in enumerate(wanted)}
    readers = {".npy": lambda: _npy(path, ids), ".parquet": lambda: _parquet(path, id_column)}
    readers[".safetensors"] = lambda: _safetensors(path, row_of)
    if path.suffix not in readers:
        raise UsageError(f"{path}: vectors are {', '.join(SUFFIXES)} (got {path.suffix or path.name!r})")
    check_size(path, MAX_FILE_BYTES)
    problems = Problems(path)
    values: NDArray[np.float32] | None = None
    found = np.zeros(len(wanted), bool)
    seen: dict[str, int] = {}
    unknown, first_unknown = 0, None
    for start, names, part in readers[path.suffix]():
        if values is None:
            values = np.zeros((len(wanted), part.shape[1]), np.float32)
        if part.shape[1] != values.shape[1]:
            what = f"{values.shape[1]} numbers expected as in the first (got {part.shape[1]})"
            problems.add("length", f"row {start}, column vector", what)
            problems.check()
        for offset, column in np.argwhere(~(np.abs(part) <= MAX_NUMBER))[:10]:
            what = f"a number is finite and at most {MAX_NUMBER:g} (got {part[offset, column]})"
            problems.add("not a usable number", f"row {start + offset}, column {column + 1}", what)
        for row, name in enumerate(names, start):
            if not name:
                problems.add("empty id", f"row {row}", "an id is needed (got '')")
            if (first := seen.setdefault(name, row)) != row:
                problems.add("duplicate id", f"row {row}", f"the id stands in row {first} already (got {name[:60]!r})")
        known = [(row_of[name], offset) for offset, name in enumerate(names) if name in row_of]
        unknown += len(names) - len(known)
        first_unknown = first_unknown or next((name for name in names if name not in row_of), None)
        for row, offset in known:
            values[row], found[row] = part[offset], True
        problems.check()
    if values is None:
        raise UsageError(f"{path}: no vectors in the file (got 0 rows)")
    return Vectors(values, found, unknown, first_unknown)


def _npy(path: Path, ids: Path | None) -> Iterator[Part]:
    if ids is None:
        raise UsageError(f"{path}: an .npy file needs the ids of its rows in a file of their own (got none)")
    array = open_floats(path)
    names = _lines(ids)
    if len(names) != len(array):
        raise UsageError(f"{ids}: one id a line for every row of {path.name}, {len(array)} (got {len(names)})")
    for start in range(0, len(array), _BATCH):
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite then, and reported as that
            part = np.asarray(array[start : start + _BATCH], np.float32)
        yield start + 1, names[start : start + _BATCH], part


def _lines(path: Path) -> list[str]:
    check_size(path, MAX_IDS_BYTES)
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _parquet(path: Path, id_column: str) -> Iterator[Part]:
    try:
        file = pq.ParquetFile(path)
        groups = (file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if (size := sum(groups)) > MAX_FILE_BYTES:
            raise UsageError(f"{path}: larger than {MAX_FILE_BYTES} bytes unpacked (got {size})")
        schema = file.schema_arrow
        if missing := [name for name in (id_column, "vector") if name not in schema.names]:
            raise UsageError(f"{path}: missing column {', '.join(missing)} (got columns {', '.join(schema.names)})")
        kind = schema.field("vector").type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not lists or not pa.types.is_floating(kind.value_type):
            raise UsageError(f"{path}, column vector: a list of floats is expected (got {kind})")
        start = 1
        for batch in file.iter_batches(_BATCH, columns=[id_column, "vector"]):
            yield start, *_parquet_part(path, start, batch.column(id_column), batch.column("vector"))
            start += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable Parquet file ({str(error)[:200]})") from None


def _parquet_part(path: Path, start: int, ids: pa.Array, vectors: pa.Array) -> tuple[list[str], NDArray[np.float32]]:
    names = ["" if name is None else str(name) for name in ids.to_pylist()]
    lengths = [0 if part is None else len(part) for part in vectors]
    wrong = next((row for row, length in enumerate(lengths) if length != lengths[0] or not length), None)
    if wrong is not None:
        what = f"{lengths[0] or 'some'} numbers expected as in the first (got {lengths[wrong]})"
        raise UsageError(f"{path}, row {start + wrong}, column vector: {what}")
    check_dim(path, lengths[0])
    flat = vectors.flatten()
    if flat.null_count:
        row, column = divmod(flat.is_null().to_pylist().index(True), lengths[0])
        raise UsageError(f"{path}, row {start + row}, column {column + 1}: a number is finite (got null)")
    with np.errstate(over="ignore"):
        return names, flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(names), lengths[0])


def _safetensors(path: Path, row_of: Mapping[str, int]) -> Iterator[Part]:
    try:
        with safe_open(path, framework="pt") as file:
            for row, name in enumerate(file.keys(), 1):
                shape, kind = file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()
                if len(shape) != 1 or kind not in ("F16", "BF16", "F32", "F64"):
                    raise UsageError(f"{path}, {name[:60]!r}: floats (dim,) are expected (got {kind} {tuple(shape)})")
                check_dim(path, shape[0])
                if name in row_of:
                    yield row, [name], file.get_tensor(name).float().numpy()[None]
                else:
                    yield row, [name], np.zeros((1, shape[0]), np.float32)  # counted, never read
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: not a readable safetensors file ({str(error)[:200]})") from None
