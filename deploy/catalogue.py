"""`items.item` in memory: ids, titles and the attributes that a request may filter on. Row 0 is padding."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deploy.errors import UsageError
from deploy.manifest import shorten
from deploy.tables import read_items

TEXT = "text"
Filter = Mapping[str, Sequence[str]]


class Catalogue:
    """The items of a bundle. `ids[row]` and `titles[row]`, rows 1..n; both are "" at row 0."""

    def __init__(
        self,
        ids: Sequence[str],
        titles: Sequence[str],
        attributes: Mapping[str, Sequence[str]],
        list_separators: Mapping[str, str],
    ) -> None:
        """ids, titles, attribute cells: one per item in row order, the first is row 1."""
        self.ids = ["", *ids]
        self.titles = ["", *titles]
        self.row_of = {item: row for row, item in enumerate(ids, start=1)}
        self._cells = dict(attributes)
        self.list_separators = dict(list_separators)
        self._rows_by_value: dict[str, dict[str, list[int]]] = {}
        self._folded_titles: list[str] | None = None

    @classmethod
    def read(cls, path: Path, list_separators: Mapping[str, str]) -> "Catalogue":
        """Read `items.item`. Raises UsageError."""
        items = read_items(path)
        items.attributes.pop(TEXT, None)  # what the text encoder read: nothing to filter on, and most of the file
        return cls(items.ids, items.titles, items.attributes, list_separators)

    def __len__(self) -> int:
        """The number of items, padding not counted."""
        return len(self.ids) - 1

    @property
    def attributes(self) -> list[str]:
        """The attributes that a filter may name."""
        return sorted(self._cells)

    def has(self, attribute: str) -> bool:
        """Whether the items have the attribute."""
        return attribute in self._cells

    def cells_of(self, values: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """attribute -> values as attribute -> cell. Raises UsageError naming an attribute or a value that cannot be."""
        cells = {}
        for attribute, parts in values.items():
            if not self.has(attribute):
                raise UsageError(
                    f"{attribute}: unknown attribute; the bundle has {self._known} (got {shorten(attribute)})"
                )
            separator = self.list_separators.get(attribute)
            if separator is None and len(parts) != 1:
                raise UsageError(f"{attribute}: one value is wanted (got {len(parts)})")
            for part in parts:
                if separator is not None and separator in part:
                    raise UsageError(f"{attribute}: no value may hold {separator!r}, give a list (got {shorten(part)})")
            cells[attribute] = (separator or "").join(parts)
        return cells

    def split(self, ids: Sequence[str]) -> tuple[list[int], list[str]]:
        """The rows of the known ids, in order and with repeats, and the unknown ids."""
        row_of = self.row_of
        try:
            return [row_of[item] for item in ids], []  # mostly all are known
        except KeyError:
            pass
        rows: list[int] = []
        unknown: list[str] = []
        for item in ids:
            row = row_of.get(item)
            if row is None:
                unknown.append(item)
            else:
                rows.append(row)
        return rows, unknown

    def allowed(self, wanted: Filter) -> npt.NDArray[np.bool_]:
        """bool (n + 1,): rows that have, for every attribute of `wanted`, one of its values exactly.

        Raises UsageError where an attribute does not exist.
        """
        mask = np.ones(len(self.ids), np.bool_)
        mask[0] = False
        for attribute, values in wanted.items():
            index = self._index(attribute)
            hits = np.zeros(len(self.ids), np.bool_)
            for value in values:
                hits[index.get(value, [])] = True
            mask &= hits
        return mask

    def search(self, query: str, limit: int) -> list[int]:
        """Rows whose title contains `query` without regard to case, in row order, at most `limit`."""
        if self._folded_titles is None:
            self._folded_titles = [title.casefold() for title in self.titles]
        folded = query.casefold()
        found: list[int] = []
        for row in range(1, len(self.ids)):
            if folded in self._folded_titles[row]:
                found.append(row)
                if len(found) == limit:
                    break
        return found

    @property
    def _known(self) -> str:
        return ", ".join(self.attributes) or "none"

    def _index(self, attribute: str) -> dict[str, list[int]]:
        """value -> rows. Built on first use; two threads may build it twice, to the same result."""
        if attribute in self._rows_by_value:
            return self._rows_by_value[attribute]
        if attribute not in self._cells:
            raise UsageError(f"filter: unknown attribute; the bundle has {self._known} (got {shorten(attribute)})")
        separator = self.list_separators.get(attribute)
        index: dict[str, list[int]] = {}
        for row, cell in enumerate(self._cells[attribute], start=1):
            for value in set(cell.split(separator)) if separator else (cell,):
                index.setdefault(value, []).append(row)
        self._rows_by_value[attribute] = index
        return index
