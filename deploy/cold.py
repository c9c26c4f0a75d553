"""Items that came after the bundle: from their text to a place in the ranking, without retraining."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.catalogue import Catalogue
from deploy.errors import ConflictError, SlimrecError, UsageError
from deploy.journal import ItemJournal, StoredItem
from deploy.manifest import ITEMS, shorten
from deploy.tables import TITLE_COLUMNS
from deploy.template import fill, one_line, template_columns
from deploy.text import Vectors

MAX_COLD_ITEMS = 10_000
_OWN = ("item_id", "title", *TITLE_COLUMNS)


@dataclass(frozen=True, slots=True)
class NewItem:
    """A cold item as it is told: `attributes` of the bundle's items, `text` where the template's is not wanted."""

    id: str
    title: str
    attributes: Mapping[str, Sequence[str]]
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ColdTable:
    """Cold items at one moment, never changed: `vectors` float32 (m, dim), row r of `catalogue` is vector r - 1."""

    catalogue: Catalogue
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.catalogue)


class ColdItems:
    """The cold items of one bundle, in a journal that it may share. Thread-safe: a reader takes `table` once.

    Each change makes a new table: changes are rare beside the encoding and the sync to disk that they cost anyway.
    What is put through one bundle is ranked by all that share its journal, before `put` returns.
    """

    def __init__(
        self,
        warm: Catalogue,
        dim: int,
        *,
        encode: Callable[[Sequence[str]], Vectors] | None,
        encoder: str = "",
        template: str | None = None,
        journal: ItemJournal | None = None,
        most: int = MAX_COLD_ITEMS,
    ) -> None:
        """encode: texts -> vectors; None where the bundle cannot take cold items. encoder: names what `encode` is made
        of; vectors in the journal that another encoder made are made anew. Items of the journal that the bundle has
        among its own, or whose text it cannot make, are left in the journal, for a release that can.
        """
        self._warm, self._dim, self._most = warm, dim, most
        self._encode, self._encoder, self._template = encode, encoder, template
        self._journal = journal if journal is not None else ItemJournal(None)
        self._items: dict[str, StoredItem] = {}
        if encode is not None:
            # Most of the encoding before the journal is held: items come and go meanwhile.
            found = {item.id: (item, self._placed(item)) for item in self._journal.items.values()}
            with self._journal.changing:
                for item in self._journal.items.values():
                    before, placed = found.get(item.id, (None, None))
                    placed = placed if before is item else self._placed(item)
                    if placed is not None:
                        self._items[item.id] = placed
                self._journal.follow(self)
                self.table = self._built()
        else:
            self.table = self._built()

    @property
    def possible(self) -> bool:
        """Whether the bundle takes cold items: it has a text encoder, and its graph says user vectors."""
        return self._encode is not None

    @property
    def kept(self) -> bool:
        """Whether cold items outlive the process."""
        return self._journal.folder is not None

    def put(self, item: NewItem) -> bool:
        """Add an item, or replace the cold item of that id; durable, where the journal is, when this returns.

        Returns whether the id is new. Raises UsageError (an attribute that the bundle's items do not have, no text, a
        bundle that takes none) or ConflictError (an item of the bundle has the id, or there are too many).
        """
        if self._encode is None:
            raise UsageError("id: the bundle takes no cold items (it has no text encoder for its history graph)")
        if item.id in self._warm.row_of:
            raise ConflictError(f"id: is in the bundle's {ITEMS}; only cold items change (got {shorten(item.id)})")
        cells = self._warm.cells_of(item.attributes)
        text = item.text if item.text is not None else self._text(item.id, item.title, cells)
        if not one_line(text):
            raise UsageError("title: the item's text must not be blank, it is all that is known of it")
        with self._journal.changing:
            new = item.id not in self._items
            if new and len(self._items) >= self._most:
                raise ConflictError(f"id: there are {self._most} cold items, the most that are kept; remove some")
            self._journal.put(self._current(StoredItem(item.id, one_line(item.title), item.text, cells)))
        return new

    def remove(self, item: str) -> bool:
        """Forget a cold item; False where there is none of that id."""
        with self._journal.changing:
            if self._encode is None or item in self._warm.row_of or item not in self._journal.items:
                return False
            self._journal.remove(item)
        return True

    def take(self, item: StoredItem) -> None:
        """Rank an item that was put into the journal, here or through another bundle."""
        try:
            placed = self._placed(item)
        except SlimrecError:
            placed = None  # this bundle's encoder is not well: who put the item has been told by its own
        kept = {name: one for name, one in self._items.items() if placed is not None or name != item.id}
        self._items = kept if placed is None else {**kept, item.id: placed}
        self.table = self._built()

    def drop(self, item: str) -> None:
        """Rank it no more."""
        if item in self._items:
            self._items = {key: value for key, value in self._items.items() if key != item}
            self.table = self._built()

    def _placed(self, item: StoredItem) -> StoredItem | None:
        """The item as this bundle ranks it; None where it has the id among its own, or no text for it."""
        if item.id in self._warm.row_of:
            return None
        try:
            return self._current(item)
        except UsageError:
            return None

    def _text(self, item: str, title: str, cells: Mapping[str, str]) -> str:
        missing = [c for c in template_columns(self._template or "") if c not in _OWN and not self._warm.has(c)]
        if missing:
            raise UsageError(f"text: wanted, since the bundle's items do not show their {', '.join(missing)}")
        values = {name: cells.get(name, "") for name in self._warm.attributes}
        return fill(self._template, values | dict.fromkeys(TITLE_COLUMNS, title) | {"title": title, "item_id": item})

    def _current(self, item: StoredItem) -> StoredItem:
        """The item with the vector that this bundle's encoder gives its text."""
        assert self._encode is not None
        text = one_line(item.text if item.text is not None else self._text(item.id, item.title, item.cells))
        made_of = f"{self._encoder}:{text}"
        if item.made_of == made_of and item.vector is not None and len(item.vector) == self._dim:
            return item
        vector = self._encode([text])[0]
        if vector.shape != (self._dim,) or not np.isfinite(vector).all():
            raise UsageError("text: the bundle's encoder has no finite vector for it")
        return StoredItem(item.id, item.title, item.text, item.cells, made_of, vector)

    def _built(self) -> ColdTable:
        items = list(self._items.values())
        cells = {name: [item.cells.get(name, "") for item in items] for name in self._warm.attributes}
        catalogue = Catalogue([i.id for i in items], [i.title for i in items], cells, self._warm.list_separators)
        vectors = [item.vector for item in items if item.vector is not None]
        return ColdTable(catalogue, np.stack(vectors) if vectors else np.zeros((0, self._dim), np.float32))
