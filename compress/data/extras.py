"""What may lie beside a data set's tables and is not used yet: social edges and item features. Checked all the same.

`NAME.net` holds edges between users (`source_id:token`, `target_id:token`); `item_features/*.npy` floats (rows, dim),
with the item of each row in `item_features/item_ids.tsv` (`row:token` from 0, `item_id:token`).
"""

from collections.abc import Container
from pathlib import Path

import numpy as np

from compress.data.arrays import open_floats
from deploy.columns import Problems, read_columns
from deploy.errors import UsageError
from deploy.tables import TableFiles

FEATURES = "item_features"
IDS = "item_ids.tsv"
_BATCH = 4096


def check_extras(tables: TableFiles, items: Container[str]) -> None:
    """Raises UsageError with what is wrong with the edges and features beside `tables`; `items` are the item ids."""
    edges = tables.interactions.with_suffix(".net")
    if tables.interactions.suffix == ".inter" and edges.is_file():
        _check_edges(edges)
    folder = tables.interactions.parent / FEATURES
    features = sorted(folder.glob("*.npy")) if folder.is_dir() else []
    if features:
        rows = _check_ids(folder / IDS, items)
        for path in features:
            _check_features(path, rows)


def _check_edges(path: Path) -> None:
    table = read_columns(path)
    sources, targets = (table.need(name, "a user of each edge") for name in ("source_id", "target_id"))
    problems = Problems(path)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        if not source or not target:
            problems.add(
                "empty id", table.where(row, "target_id" if source else "source_id"), "an id is needed (got '')"
            )
        elif source == target:
            what = f"an edge joins two users (got {source[:60]!r} twice)"
            problems.add("edge to oneself", table.where(row, "target_id"), what)
    problems.check()


def _check_ids(path: Path, items: Container[str]) -> int:
    if not path.is_file():
        raise UsageError(f"{path}: missing; it says which item each row of the features is")
    table = read_columns(path)
    rows, ids = table.need("row", "the row of each item"), table.need("item_id", "the item of each row")
    problems = Problems(path)
    seen: set[str] = set()
    for place, (row, item) in enumerate(zip(rows, ids, strict=True)):
        if row != str(place):
            problems.add("row", table.where(place, "row"), f"rows count from 0: {place} expected (got {row[:60]!r})")
        if item in seen or item not in items:
            what = "the item has a row already" if item in seen else "unknown item"
            problems.add(what, table.where(place, "item_id"), f"{what} (got {item[:60]!r})")
        seen.add(item)
    problems.check()
    return len(ids)


def _check_features(path: Path, rows: int) -> None:
    features = open_floats(path)
    if len(features) != rows:
        raise UsageError(f"{path}: one row for every row of {IDS}, {rows} (got {len(features)})")
    for start in range(0, rows, _BATCH):
        wrong = np.argwhere(~np.isfinite(features[start : start + _BATCH]))
        if len(wrong):
            row, column = wrong[0]
            raise UsageError(f"{path}, row {start + row}, column {column}: a number is finite (got nan or infinity)")
