"""Our split as a peer sees it: training histories, validation cases, test histories. Test targets stay with us.

numpy only: the adapters read it in the peers' environments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """Lists of rows end to end: `rows` int64 (total,), list i is `rows[offsets[i]:offsets[i + 1]]`."""

    offsets: Rows
    rows: Rows

    @classmethod
    def of(cls, lists: Sequence[Rows]) -> "Ragged":
        offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in lists])]).astype(np.int64)
        return cls(offsets, np.concatenate(lists).astype(np.int64) if lists else np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> Rows:
        return self.rows[self.offsets[place] : self.offsets[place + 1]]

    @cached_property
    def lists(self) -> list[Rows]:
        return [self[place] for place in range(len(self))]


@dataclass(frozen=True)
class Split:
    """Rows are 1-based places in `ids`, the catalogue; histories are oldest first. `train`: one list per user;
    `valid_targets` int64 (cases,). A test history is all that its user did before the event that is asked for."""

    ids: list[str]
    train: Ragged
    valid: Ragged
    valid_targets: Rows
    test: Ragged

    @property
    def n_items(self) -> int:
        return len(self.ids)

    def save(self, path: Path) -> None:
        parts = {name: getattr(self, name) for name in ("train", "valid", "test")}
        arrays = {
            f"{name}_{field}": getattr(part, field) for name, part in parts.items() for field in ("offsets", "rows")
        }
        np.savez(path, ids=np.array(self.ids), valid_targets=self.valid_targets, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Split":
        with np.load(path, allow_pickle=False) as file:
            parts = {name: Ragged(file[f"{name}_offsets"], file[f"{name}_rows"]) for name in ("train", "valid", "test")}
            return cls(file["ids"].tolist(), valid_targets=file["valid_targets"], **parts)


def padded(lists: Sequence[Rows], length: int, fill: int = 0) -> Rows:
    """The last `length` rows of each list, left-padded: int64 (lists, length)."""
    table = np.full((len(lists), length), fill, np.int64)
    for line, rows in zip(table, lists, strict=True):
        kept = rows[-length:]
        line[length - len(kept) :] = kept
    return table
