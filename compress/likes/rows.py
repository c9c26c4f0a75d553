"""Like/dislike rows as later stages read them. numpy only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Rows:
    """Questions of one split: does user `users[i]` like item `items[i]`, and the answer `labels[i]`.

    `users` int32 (index of the user), `items` int32 rows, `labels` bool, `times` float64 or None: (rows,). Row i's
    history, oldest first, is `history[offsets[i]:offsets[i + 1]]` int32 rows, with `history_likes` bool beside it.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    labels: NDArray[np.bool_]
    times: NDArray[np.float64] | None
    offsets: NDArray[np.int64]
    history: NDArray[np.int32]
    history_likes: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items in each history, int64 (rows,)."""
        return np.diff(self.offsets)

    def owners(self) -> NDArray[np.int64]:
        """The row of each history item, int64 (history items,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def newest(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The last `most` items of each history, oldest first, and 1 where liked, 0 where not: int64 and float32
        (rows, most), padded with 0 on the left."""
        places = self.offsets[1:, None] - np.arange(most, 0, -1)
        inside = places >= self.offsets[:-1, None]
        at = np.where(inside, places, 0)
        if not len(self.history):
            return np.zeros(at.shape, np.int64), np.zeros(at.shape, np.float32)
        items = np.where(inside, self.history[at], 0).astype(np.int64)
        return items, np.where(inside, self.history_likes[at], 0).astype(np.float32)

    def take(self, index: NDArray[np.integer[Any]]) -> "Rows":
        """The rows `index` int (n,), in that order."""
        lengths = self.lengths[index]
        starts = np.repeat(self.offsets[index] - np.concatenate([[0], np.cumsum(lengths)])[:-1], lengths)
        places = starts + np.arange(int(lengths.sum()))
        return Rows(
            self.users[index],
            self.items[index],
            self.labels[index],
            None if self.times is None else self.times[index],
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            self.history[places],
            self.history_likes[places],
        )


@dataclass(frozen=True)
class LikeData:
    """The rows of a domain by split. `ordered`: histories and rows are in the order of time."""

    n_items: int
    ordered: bool
    parts: Mapping[Split, Rows]

    @classmethod
    def open(cls, folder: Path, domain: str = "target") -> "LikeData":
        """Reads `domain` of a `data` artifact of the like/dislike task."""
        facts = json.loads((folder / "dataset.json").read_text("utf-8"))["domains"][domain]
        with np.load(folder / "domains" / domain / "rows.npz", allow_pickle=False) as stored:
            parts = {split: _rows(split, stored) for split in SPLITS}
        return cls(facts["items"], facts["timed"], parts)

    def __getitem__(self, split: Split) -> Rows:
        return self.parts[split]


def _rows(split: Split, stored: Mapping[str, NDArray[Any]]) -> Rows:
    return Rows(**{name: stored.get(f"{split}_{name}") for name in Rows.__dataclass_fields__})  # type: ignore[arg-type]


def write_rows(path: Path, parts: Mapping[Split, Rows]) -> None:
    """Writes `rows.npz`, which `LikeData.open` reads back."""
    fields = ((f"{split}_{name}", value) for split, rows in parts.items() for name, value in vars(rows).items())
    np.savez(path, **{name: value for name, value in fields if value is not None})


def write_logits(path: Path, logits: Mapping[Split, NDArray[np.float64]]) -> None:
    """A model's log-odds of a like, float32 (rows,) by split; `train` in the order of `training_rows`."""
    arrays: dict[str, Any] = {split: values.astype(np.float32) for split, values in logits.items()}
    np.savez(path, **arrays)


def read_logits(path: Path) -> dict[Split, NDArray[np.float64]]:
    """What `write_logits` wrote, as float64."""
    with np.load(path, allow_pickle=False) as stored:
        return {split: stored[split].astype(np.float64) for split in SPLITS if split in stored.files}
