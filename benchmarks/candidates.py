"""What a latency is measured through: raw item ids -> id map -> graph -> top-k -> raw item ids.

Every candidate goes through the same class, so that only the graphs differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.likes import LikeScorer
from deploy.ranker import CPU, Ranker, Scores, open_session
from deploy.text import TextEncoder

Histories = Sequence[Sequence[str]]


class IdMap:
    """Item ids <-> catalogue rows. `ids[0]` is row 1."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._row = {item: row for row, item in enumerate(ids, start=1)}
        self._ids = ["", *ids]

    def __len__(self) -> int:
        return len(self._row)

    def rows(self, histories: Histories, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The last `length` known items of each history, and the earlier ones, which only the filter sees.

        Unknown ids are skipped. Returns int64 (batch, longest), int64 (batch, most earlier, at least 1): left-padded.
        """
        row_of = self._row.get
        known = [[row for row in map(row_of, history) if row] for history in histories]
        return _padded([rows[-length:] for rows in known]), _padded([rows[:-length] for rows in known])

    def ids(self, rows: NDArray[np.int64], scores: Scores) -> list[list[str]]:
        """Ids of the rows (batch, k) that may be shown: those not scored -inf."""
        shown = np.isfinite(scores)
        return [
            [self._ids[row] for row, keep in zip(line, kept, strict=True) if keep]
            for line, kept in zip(rows.tolist(), shown.tolist(), strict=True)
        ]


class CachedPath:
    """A history graph with its item table inside (path `cached`)."""

    def __init__(
        self,
        graph: Path,
        ids: Sequence[str],
        *,
        max_history: int = 50,
        threads: int = 1,
        providers: Sequence[str] = CPU,
    ) -> None:
        """graph: `history.<precision>.onnx`. ids: item ids in row order. Raises UsageError as `Ranker`."""
        self._items = IdMap(ids)
        self._ranker = Ranker(graph, threads=threads, providers=providers)
        self._max_history = max_history

    def recommend(self, histories: Histories, k: int = 10) -> list[list[str]]:
        """The k best unseen item ids of each history of ids (oldest first), best first."""
        history, earlier = self._items.rows(histories, self._max_history)
        scores, rows = self._ranker.rank(history, earlier, min(k, len(self._items)))
        return self._items.ids(rows, scores)


class LikePath:
    """A like graph (path `like`): a history of ids, all liked -> how likely a like of one more item is."""

    def __init__(
        self,
        graph: Path,
        ids: Sequence[str],
        *,
        max_history: int = 50,
        threads: int = 1,
        providers: Sequence[str] = CPU,
    ) -> None:
        """graph: `like.<precision>.onnx`. ids: item ids in row order. Raises UsageError as `LikeScorer`."""
        self._items = IdMap(ids)
        self._scorer = LikeScorer(graph, threads=threads, providers=providers)
        self._max_history = max_history

    def ask(self, histories: Histories) -> list[float]:
        """The log-odds that each history's user likes its first item, from what follows it."""
        asked, _ = self._items.rows([history[:1] for history in histories], 1)
        history, _ = self._items.rows([history[1:] for history in histories], self._max_history)
        ratings = np.array([(len(history), 0) for history in histories], np.int64)
        found: list[float] = self._scorer.logits(history, history > 0, asked[:, 0], ratings).tolist()
        return found


class TextPath:
    """A teacher at request time (path `text`): the history's texts -> vectors -> top-k."""

    def __init__(
        self,
        graph: Path,
        text_graph: Path,
        tokenizer: Path,
        texts: Mapping[str, str],
        *,
        max_tokens: int = 32,
        max_history: int = 50,
        threads: int = 1,
    ) -> None:
        """graph: `history_vectors.<precision>.onnx`. texts: item id -> text, in row order. Raises UsageError."""
        self._items = IdMap(list(texts))
        self._texts = texts
        self._encoder = TextEncoder(text_graph, tokenizer, max_tokens, threads=threads)
        self._session = open_session(graph, threads=threads)
        self._max_history = max_history

    def recommend(self, histories: Histories, k: int = 10) -> list[list[str]]:
        """As `CachedPath.recommend`, encoding every title of every history anew."""
        history, earlier = self._items.rows(histories, self._max_history)
        known = [[item for item in items if item in self._texts][-self._max_history :] for items in histories]
        vectors = self._encoder.encode([self._texts[item] for items in known for item in items])
        table = np.zeros((*history.shape, vectors.shape[1]), dtype=np.float32)
        table[history > 0] = vectors  # row-major order is the order of the texts
        feed = {
            "history": history,
            "vectors": table,
            "exclude": earlier,
            "k": np.array([min(k, len(self._items))], dtype=np.int64),
        }
        scores, rows = self._session.run(["scores", "rows"], feed)
        return self._items.ids(rows, scores)


def _padded(lists: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    if len(lists) == 1:  # nothing to line up: a request of one is the common one
        return np.array([lists[0] or (0,)], np.int64)
    width = max((len(rows) for rows in lists), default=0) or 1
    table = np.zeros((len(lists), width), dtype=np.int64)
    for line, rows in zip(table, lists, strict=True):
        if rows:
            line[-len(rows) :] = rows
    return table
