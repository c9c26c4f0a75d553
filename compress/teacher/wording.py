"""Item texts reworded in training: words and attribute values left out, values in another order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import Dataset
from compress.stage import Entry
from compress.training import Share


class Rewording(Entry):
    """What an item's text loses each time the LM reads it in training; by default nothing.

    Values are those of attributes that hold several (genres, categories), where the text shows them as the data does.
    """

    drop_words: Share = 0.0
    drop_values: Share = 0.0
    shuffle_values: bool = False

    @property
    def active(self) -> bool:
        return self != Rewording()


class Wordings:
    """The texts of a domain's items, reworded anew at every call."""

    def __init__(self, rewording: Rewording, dataset: Dataset, rng: np.random.Generator) -> None:
        self.rewording, self.texts, self.rng = rewording, dataset.texts, rng
        self.lists = [
            (dataset.attributes[name], separator)
            for name, separator in dataset.list_separators.items()
            if name in dataset.attributes
        ]

    def __call__(self, items: NDArray[np.int64]) -> list[str]:
        """Items (n,) counted from 0 -> their texts. Of a list or a text that has something, something stays."""
        return [self._reworded(int(item)) for item in items]

    def _reworded(self, item: int) -> str:
        text = self.texts[item]
        for cells, separator in self.lists:
            cell = " ".join(cells[item].split())
            values = [value.strip() for value in cell.split(separator) if value.strip()]
            if len(values) > 1 and cell in text:
                glue = separator if separator.isspace() or f"{separator} " not in cell else f"{separator} "
                text = text.replace(cell, glue.join(self._values(values)), 1)
        return " ".join(self._kept(text.split(), self.rewording.drop_words))

    def _values(self, values: Sequence[str]) -> list[str]:
        kept = self._kept(values, self.rewording.drop_values)
        return [kept[i] for i in self.rng.permutation(len(kept))] if self.rewording.shuffle_values else kept

    def _kept(self, parts: Sequence[str], rate: float) -> list[str]:
        if not rate or not parts:
            return list(parts)
        draws = self.rng.random(len(parts))
        stays = draws >= min(rate, draws.max())
        return [part for part, kept in zip(parts, stays, strict=True) if kept]
