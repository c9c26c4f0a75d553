"""Models that score the whole catalogue: id map, filter of seen items and top k, for peers that have none."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import top_rows
from benchmarks.peers.split import Rows, padded

Scores = NDArray[np.float32]
Score = Callable[[Rows], Scores]
"""Left-padded histories int64 (batch, length) -> scores float32 (batch, n + 1), row 0 for padding."""

_BATCH = 256


class Scored:
    """A `serve.Model` of a function that scores. `ids[0]` is row 1; the last `length` rows of a history are read."""

    def __init__(self, ids: Sequence[str], length: int, score: Score, size_bytes: int) -> None:
        self._ids = ["", *ids]
        self._row_of = {item: row for row, item in enumerate(ids, start=1)}
        self._length, self._score = length, score
        self.size_bytes = size_bytes

    def rank(self, histories: Sequence[Rows], depth: int) -> NDArray[np.int32]:
        """As `serve.Model.rank`, in batches."""
        return rank_by(self._score, histories, depth, self._length)

    def recommend(self, history: Sequence[str], k: int) -> list[str]:
        """As `serve.Model.recommend`; unknown ids are skipped."""
        rows = [row for row in map(self._row_of.get, history) if row]
        asked = np.zeros((1, self._length), np.int64)
        kept = rows[-self._length :]
        asked[0, self._length - len(kept) :] = kept
        scores = self._score(asked)[0]
        scores[0] = -np.inf
        scores[rows] = -np.inf
        best = np.argpartition(scores, -k)[-k:]
        return [self._ids[row] for row in best[np.argsort(-scores[best])]]


def rank_by(score: Score, histories: Sequence[Rows], depth: int, length: int) -> NDArray[np.int32]:
    """As `serve.Model.rank`, by a function that scores."""
    parts = [histories[start : start + _BATCH] for start in range(0, len(histories), _BATCH)]
    return np.concatenate([top_rows(score(padded(part, length)), part, depth) for part in parts])


def files_bytes(*paths: Path) -> int:
    """Bytes of files that a model is served from."""
    return sum(path.stat().st_size for path in paths)


def save_ids(folder: Path, ids: Sequence[str]) -> None:
    """The catalogue, in row order: what maps raw ids."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ids.npy", np.array(ids), allow_pickle=False)


def load_ids(folder: Path) -> list[str]:
    """What `save_ids` wrote."""
    ids: Any = np.load(folder / "ids.npy", allow_pickle=False)
    return list(ids.tolist())
