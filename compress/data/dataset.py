"""A domain as later stages read it. numpy only."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deploy.tables import read_items

CaseSet = Literal["valid", "test", "cold"]
SETS: tuple[CaseSet, ...] = ("valid", "test", "cold")


@dataclass(frozen=True)
class Cases:
    """Questions with one right answer each. `users` int32, `targets` int32 rows, `tail` and `short` bool: (cases,).

    Case i's history is `items[starts[i]:stops[i]]`, oldest first.
    """

    users: NDArray[np.int32]
    targets: NDArray[np.int32]
    tail: NDArray[np.bool_]
    short: NDArray[np.bool_]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    items: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.targets)

    def histories(self, max_history: int) -> NDArray[np.int64]:
        """The last `max_history` rows of each history, oldest first, left-padded with 0: int64 (cases, max_history)."""
        places = self.stops[:, None] - np.arange(max_history, 0, -1)
        inside = places >= self.starts[:, None]
        return np.where(inside, self.items[np.where(inside, places, 0)], 0).astype(np.int64)

    @cached_property
    def seen(self) -> list[NDArray[np.int32]]:
        """The rows of each whole history: what a ranking excludes. int32, ragged."""
        return [self.items[start:stop] for start, stop in zip(self.starts, self.stops, strict=True)]


@dataclass(frozen=True)
class Dataset:
    """One domain. Rows are 1-based; `titles`, `texts` and each attribute hold one text per item (index = row - 1).

    `offsets` int64 (users + 1), `items` int32 and `times` float64 (events), `train` bool (events).
    """

    item_ids: list[str]
    titles: list[str]
    texts: list[str]
    attributes: dict[str, list[str]]
    users: list[str]
    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    times: NDArray[np.float64]
    split: dict[str, NDArray[Any]]
    segments: dict[str, NDArray[np.bool_]]
    list_separators: dict[str, str]

    @classmethod
    def open(cls, folder: Path, domain: str = "target") -> "Dataset":
        """Reads `domain` of a `data` artifact; raises KeyError where the artifact has no such domain."""
        described = json.loads((folder / "dataset.json").read_text("utf-8"))
        if domain not in described["domains"]:
            raise KeyError(domain)
        at = folder / "domains" / domain
        items = read_items(at / "items.item")
        texts = items.attributes.pop("text")
        events, split, segments = (_arrays(at / f"{name}.npz") for name in ("events", "split", "segments"))
        users = at.joinpath("users.txt").read_bytes().decode("utf-8").removesuffix("\n").split("\n")
        return cls(
            items.ids,
            items.titles,
            texts,
            items.attributes,
            users,
            **events,
            split=split,
            segments=segments,
            list_separators=described["domains"][domain]["list_separators"],
        )

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def train(self) -> NDArray[np.bool_]:
        train: NDArray[np.bool_] = self.split["train"]
        return train

    @property
    def cold_items(self) -> NDArray[np.int32]:
        """Rows without any event by design, int32."""
        rows: NDArray[np.int32] = self.split["cold_items"]
        return rows

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """Training events per row, int64 (n_items + 1,)."""
        return np.bincount(self.items[self.train], minlength=self.n_items + 1)

    def train_sequences(self) -> list[NDArray[np.int32]]:
        """Per user the training rows, oldest first (empty where a user has none), int32."""
        bounds = zip(self.offsets[:-1], self.offsets[1:], strict=True)
        return [self.items[start:stop][self.train[start:stop]] for start, stop in bounds]

    def cases(self, name: CaseSet) -> Cases:
        """The cases of `valid`, `test` or `cold`."""
        users, stops = self.split[f"{name}_users"], self.split[f"{name}_positions"]
        targets = self.split["cold_targets"] if name == "cold" else self.items[stops]
        tail, short = self.segments[f"{name}_tail"], self.segments[f"{name}_short"]
        return Cases(users, targets, tail, short, self.offsets[users], stops, self.items)


def domain_names(folder: Path) -> list[str]:
    """The domains of a `data` artifact."""
    return list(json.loads((folder / "dataset.json").read_text("utf-8"))["domains"])


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
