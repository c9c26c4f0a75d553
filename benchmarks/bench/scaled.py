"""The same bundle with another catalogue size, to see what a catalogue costs before there is one.

Every table of the graphs that has a row per item gets rows drawn from its own, so that formats, scales and the scores'
distribution stay the bundle's: a top-k over made-up numbers would cost something else. The result is a bundle like any
other (ids, golden answers, digests), so that it is opened, timed and started exactly as a real one; only its ids and
answers mean nothing. It has no texts and says nothing of likes.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench.wire import Tensor, tensors, with_tensors
from benchmarks.result import NotMeasured
from deploy.bundle import Bundle, open_bundle
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.golden import Golden, GoldenCase, record_case
from deploy.manifest import (
    DOCUMENTS,
    GOLDEN,
    ITEMS,
    MANIFEST,
    MAX_TOTAL_BYTES,
    POPULAR,
    Manifest,
    canonical_json,
    parse_record,
)
from deploy.ranker import Ranker, first_line
from deploy.tables import write_items

_INLINE = 512 << 20  # larger tables lie in a file of their own: protobuf ends at 2 GiB
_PART = 1 << 16  # rows written at once
_POPULAR = 1000
_CHECKED, _TOLD = 3, 1000  # histories, and rows of each, that prove that the new graph scores as the given one

Source = NDArray[np.int64]
"""(n_items + 1,): which row of the given table each row of the new one is; row 0 stays padding."""


def scaled(given: Path, bundle: Bundle, n_items: int, out: Path, seed: int = 0) -> tuple[Path, Bundle] | NotMeasured:
    """(path, bundle) with `n_items`: the one given where it has as many, else one written to the folder `out`.

    NotMeasured where its graphs cannot be resized.
    """
    if n_items == bundle.manifest.model.n_items:
        return given, bundle
    try:
        return out, _write(bundle, n_items, out, seed)
    except SlimrecError as error:
        why = error.lines[0]
    except OSError as error:
        why = f"{out.parent.parent}: cannot be written ({error.strerror or error})"
    shutil.rmtree(out, ignore_errors=True)
    return NotMeasured(what=f"{given.name} with {n_items} items", why=why)


def _write(bundle: Bundle, n_items: int, out: Path, seed: int) -> Bundle:
    model = bundle.manifest.model
    source = draw(model.n_items, n_items, seed)
    out.mkdir(parents=True)
    for file in model.precisions.values():
        resize(bundle.path(file), out / file, model.n_items + 1, source)
    ids = [f"i{row}" for row in range(1, n_items + 1)]
    write_items(out / ITEMS, ids, [""] * n_items, {})
    (out / POPULAR).write_bytes(json.dumps(list(range(1, 1 + min(n_items, _POPULAR)))).encode())
    for document in DOCUMENTS - {POPULAR, GOLDEN}:
        (out / document).write_bytes(b"{}")  # nothing is known of a made catalogue; all a bundle must have is there
    tolerance = parse_record(Golden, bundle.read(GOLDEN), GOLDEN).tolerance
    rankers = {precision: Ranker(out / file) for precision, file in model.precisions.items()}
    rng = np.random.default_rng(seed)
    length = min(model.max_history, n_items - 1, model.n_items)
    cases: list[GoldenCase] = []
    for _ in range(_CHECKED):
        history = (rng.choice(n_items, length, replace=False) + 1).tolist()
        for precision, file in model.precisions.items():
            try:
                check(rankers[precision], Ranker(bundle.path(file)), history, model.n_items, source, tolerance)
            except SlimrecError:
                raise
            except Exception as error:  # ONNX Runtime's exceptions share no public base class
                raise GateError(f"{file}: fails with {n_items} items ({first_line(error)})") from error
        cases.append(record_case(history, min(10, n_items - length), rankers, ["", *ids]))
    golden = Golden(tolerance=tolerance, cases=cases)
    (out / GOLDEN).write_bytes(canonical_json(golden.model_dump(mode="json")))
    manifest = {
        "schema": 1,
        "name": bundle.manifest.name,
        "runtime": bundle.manifest.runtime.model_dump(),
        "list_separators": {},
        "model": {
            "n_items": n_items,
            "dim": model.dim,
            "max_history": model.max_history,
            "precisions": model.precisions,
            "default": model.default,
        },
        "files": dict(_files(out)),
    }
    (out / MANIFEST).write_bytes(parse_record(Manifest, canonical_json(manifest), MANIFEST).to_bytes())
    return open_bundle(out)


def draw(given: int, wanted: int, seed: int) -> Source:
    """Which rows a catalogue of `wanted` items is made of: some of the `given` items, or all that are drawn again."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(given)[:wanted] if wanted <= given else rng.integers(0, given, wanted)
    return np.concatenate([[0], rows + 1])


def resize(graph: Path, out: Path, rows: int, source: Source) -> None:
    """Write `graph` to `out` with the rows `source` in every initializer that has a dimension of `rows`.

    Raises UsageError where none has, where one is not stored as plain bytes, or where no bundle could hold the result:
    an item-item model grows with the square of its catalogue.
    """
    model = graph.read_bytes()
    total, changed = 0, []
    for tensor in tensors(model):
        if rows not in tensor.dims:
            continue
        dims = tuple(len(source) if dim == rows else dim for dim in tensor.dims)
        total += (size := int(np.prod(dims, dtype=np.int64)) * tensor.array.itemsize)
        if total > MAX_TOTAL_BYTES:
            raise UsageError(f"{graph.name}: its tables would pass the {MAX_TOTAL_BYTES >> 30} GiB of a bundle")
        if size <= _INLINE:
            values = tensor.array
            for axis in (axis for axis, dim in enumerate(tensor.dims) if dim == rows):
                values = values.take(source, axis)
            changed.append(replace(tensor, dims=dims, raw=values.tobytes()))
        else:
            file = f"{out.name}.{len(changed)}.bin"
            _write_rows(tensor, rows, source, out.with_name(file))
            changed.append(replace(tensor, dims=dims, raw=b"", external=(file, size)))
    if not changed:
        raise UsageError(f"{graph.name}: no table has a row per item")
    out.write_bytes(with_tensors(model, changed))


def _write_rows(tensor: Tensor, rows: int, source: Source, out: Path) -> None:
    """Part by part, so that memory holds one."""
    if tensor.dims.count(rows) > 1 or tensor.dims[0] != rows:
        raise UsageError(f"{tensor.name}: only a table by rows may pass {_INLINE >> 20} MiB (got {list(tensor.dims)})")
    with out.open("wb") as stream:
        for start in range(0, len(source), _PART):
            stream.write(tensor.array[source[start : start + _PART]].tobytes())


def check(ranker: Ranker, given: Ranker, history: list[int], n_given: int, source: Source, tolerance: float) -> None:
    """Raises GateError unless each row that `ranker` names scores as the row it was drawn from does in `given`."""
    asked = source[history]
    scores, rows = given.rank(asked[None], np.zeros((1, 1), np.int64), n_given)
    expected = np.full(n_given + 1, -np.inf, np.float32)
    expected[rows[0]] = scores[0]
    copies = np.flatnonzero(np.isin(source, asked))  # of the history's own rows, which have no score there
    found, named = ranker.rank(np.array([history]), copies[None], min(_TOLD, len(source) - 1))
    told = np.isfinite(found[0])
    wanted = expected[source[named[0][told]]]
    worst = float(np.abs(found[0][told] - wanted).max(initial=0.0))
    if not told.any() or not worst <= max(tolerance, 1e-4 * float(np.abs(found[0][told]).max())):
        raise GateError(f"the resized graph does not score as the given one ({worst:.3g} off)")


def _files(folder: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            yield path.name, {"sha256": file_digest(stream, "sha256").hexdigest(), "size": path.stat().st_size}
