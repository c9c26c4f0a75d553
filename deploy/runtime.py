"""A verified bundle that answers: raw item ids in, raw item ids out. Torch-free."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, RootModel

from deploy.bundle import Bundle, open_bundle
from deploy.catalogue import Catalogue, Filter
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.golden import Golden, check_cases, check_likes, check_text
from deploy.likes import LikeScorer
from deploy.manifest import GOLDEN, ITEMS, POPULAR, parse_record, shorten
from deploy.ranker import CPU, Ranker, Rows, first_line
from deploy.text import TextEncoder, Vectors


class Popular(RootModel[list[Annotated[int, Field(ge=1, strict=True)]]]):
    """`popular.json`: a JSON list of item rows, the most popular recently first."""


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """One answer. `score` is the model's (a dot product); None where recent popularity answered."""

    id: str
    score: float | None
    title: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`items` best first; `unknown` names ids that the bundle does not have; `source` is `model` or `popularity`."""

    items: list[ScoredItem]
    unknown: list[str]
    source: str


class Recommender:
    """Answers requests from one bundle. Thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: str | None = None,
        threads: int = 1,
        spin: bool = True,
        providers: Sequence[str] = CPU,
        catalogue: Catalogue | None = None,
    ) -> None:
        """Open the parts of a verified bundle; `self_test` is the caller's next step. `catalogue`: the bundle's, where
        it has been read already. Raises UsageError."""
        model = bundle.manifest.model
        self.bundle = bundle
        self.precision = precision or model.default
        self._threads = threads
        if self.precision not in model.precisions:
            known = ", ".join(sorted(model.precisions))
            raise UsageError(f"precision: the bundle has {known} (got {self.precision})")
        self.catalogue = catalogue or Catalogue.read(bundle.path(ITEMS), bundle.manifest.list_separators)
        n_items = len(self.catalogue)
        if n_items != model.n_items:
            raise UsageError(f"{ITEMS}: must have {model.n_items} items, as the manifest says (got {n_items})")
        self._popular = parse_record(Popular, bundle.read(POPULAR), POPULAR).root
        if len(set(self._popular)) != len(self._popular) or max(self._popular, default=0) > n_items:
            raise UsageError(f"{POPULAR}: must be different rows from 1 to {n_items}")
        self._golden = parse_record(Golden, bundle.read(GOLDEN), GOLDEN)
        graph = bundle.path(model.precisions[self.precision])
        self.ranker = Ranker(graph, threads=threads, spin=spin, providers=providers)
        self._likes: LikeScorer | None = None
        if model.likes is not None:
            like = bundle.path(model.likes[self.precision])
            self._likes = LikeScorer(like, threads=threads, spin=spin, providers=providers)
        self._text: TextEncoder | None = None
        self._text_lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: Path,
        key: Path | None = None,
        *,
        precision: str | None = None,
        threads: int = 1,
        spin: bool = True,
        providers: Sequence[str] = CPU,
    ) -> "Recommender":
        """Verify the bundle at `path` (folder or archive), open it and ask it its golden answers.

        key: the pinned public key's PEM file; None checks integrity only. precision: one of the manifest's, None takes
        its default. threads: of one request. spin: whether idle worker threads keep a core busy (lower latency).
        providers: ONNX Runtime's, as `open_session` takes them.
        Raises UsageError (unreadable, malformed) or GateError (digest, signature, golden answer).
        """
        bundle = open_bundle(path, key)
        recommender = cls(bundle, precision=precision, threads=threads, spin=spin, providers=providers)
        recommender.self_test()
        return recommender

    @property
    def release(self) -> str:
        """Name and short digest of the bundle."""
        return self.bundle.release

    def self_test(self) -> None:
        """Ask every golden case. Raises GateError where an answer differs from the recorded one."""
        with _running(self.bundle.manifest.model.precisions[self.precision]):
            check_cases(self._golden, self.precision, self)
        if self._likes is not None:
            with _running((self.bundle.manifest.model.likes or {})[self.precision]):
                check_likes(self._golden, self.precision, self)

    def top(self, history: Sequence[str], k: int) -> tuple[list[str], list[float]]:
        """The model's k best ids and scores; unlike `recommend`, a history without a known id is a UsageError."""
        answer = self.recommend(history, k)
        if answer.source != "model":
            raise UsageError(f"{GOLDEN}: a case's history has no item of {ITEMS}")
        return [item.id for item in answer.items], [float(item.score or 0.0) for item in answer.items]

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """The row of each id, 0 (padding) where the bundle does not have it."""
        return [self.catalogue.row_of.get(item, 0) for item in ids]

    def recommend(
        self, history: Sequence[str], k: int = 10, exclude: Sequence[str] = (), filter: Filter | None = None
    ) -> Recommendation:
        """The k best items for one history; see `recommend_many`."""
        return self.recommend_many([history], k, [exclude], filter)[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        excludes: Sequence[Sequence[str]] | None = None,
        filter: Filter | None = None,
    ) -> list[Recommendation]:
        """The k best items for each history (item ids, oldest first), at most k, never one of its own items.

        excludes: further ids to leave out, one list per history. filter: attribute -> allowed values; an item must
        have one of them for every attribute. Unknown ids are skipped and named. The model reads the most recent
        `max_history` items; a history without a known id gets the recently popular items. Raises UsageError where k
        is below 1 or an attribute is unknown.
        """
        if k < 1:
            raise UsageError(f"k: must be at least 1 (got {k})")
        k = min(k, len(self.catalogue))
        excludes = excludes if excludes is not None else [()] * len(histories)
        if len(excludes) != len(histories):
            raise UsageError(f"excludes: one list per history, {len(histories)}, is wanted (got {len(excludes)})")
        allowed = self.catalogue.allowed(filter) if filter else None
        answers: list[Recommendation | None] = [None] * len(histories)
        known: list[tuple[int, list[int], list[int], list[str]]] = []
        for place, (history, exclude) in enumerate(zip(histories, excludes, strict=True)):
            rows, unknown = self.catalogue.split(history)
            left_out, unknown_left_out = self.catalogue.split(exclude)
            unknown = list(dict.fromkeys(unknown + unknown_left_out))
            if rows:
                known.append((place, rows, rows + left_out, unknown))
            else:
                answers[place] = self._popular_items(k, left_out, unknown, allowed)
        if known:
            blocked = np.flatnonzero(~allowed) if allowed is not None else None
            limit = self.bundle.manifest.model.max_history
            scores, rows_out = self.ranker.rank(
                _pad([rows[-limit:] for _, rows, _, _ in known]),
                _pad([left_out for _, _, left_out, _ in known], blocked),
                k,
            )
            for (place, _, _, unknown), row_scores, row_items in zip(
                known, scores.tolist(), rows_out.tolist(), strict=True
            ):
                answers[place] = Recommendation(self._named(row_items, row_scores), unknown, "model")
        return [answer for answer in answers if answer is not None]

    def like(
        self,
        item: str,
        history: Sequence[str],
        liked: Sequence[bool] | None = None,
        ratings: tuple[int, int] = (0, 0),
    ) -> float:
        """The log-odds that a user with this rated history (item ids, oldest first) likes `item`.

        liked: which of the history was liked, all of it by default. ratings: how many items the user is known to like
        and to dislike, as the model counted them when it was trained (like/dislike rows before the one asked). Unknown
        ids of the history are skipped, of the rest the most recent `max_history` are read. Raises UsageError where the
        bundle says nothing of likes, has not the item, or `liked` is not as long as `history`.
        """
        if self._likes is None:
            raise UsageError(f"{self.bundle.manifest.name}: the bundle ranks, it does not say how likely a like is")
        marks = [True] * len(history) if liked is None else list(liked)
        if len(marks) != len(history):
            raise UsageError(f"liked: one mark per item of the history, {len(history)}, is wanted (got {len(marks)})")
        (asked,) = self.rows_of([item])
        if not asked:
            raise UsageError(f"item: must be in {ITEMS} (got {shorten(item)})")
        known = [pair for pair in zip(self.rows_of(history), marks, strict=True) if pair[0]]
        known = known[-self.bundle.manifest.model.max_history :] or [(0, False)]
        rows, rated = (np.array([column]) for column in zip(*known, strict=True))
        counts = np.array([ratings], np.int64)
        return float(self._likes.logits(rows.astype(np.int64), rated.astype(bool), np.array([asked]), counts)[0])

    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Item texts -> float32 (len(texts), dim) in the space of the item table.

        The encoder is opened, and asked its golden text, on first use. Raises UsageError where the bundle has none,
        GateError where the golden vector differs.
        """
        with self._text_lock:
            if self._text is None:
                self._text = self._open_text()
        return self._text.encode(texts)

    def _open_text(self) -> TextEncoder:
        text = self.bundle.manifest.model.text
        if text is None:
            raise UsageError(f"{self.bundle.manifest.name}: the bundle has no text encoder")
        path = self.bundle.path
        encoder = TextEncoder(path(text.graph), path(text.tokenizer), text.max_tokens, threads=self._threads)
        if self._golden.text is None:
            raise GateError(f"{GOLDEN}: text: no recorded answer for the text encoder")
        with _running(text.graph):
            check_text(self._golden.text, encoder.encode([self._golden.text.text])[0], self._golden.tolerance)
        return encoder

    def _named(self, rows: list[int], scores: list[float]) -> list[ScoredItem]:
        ids, titles = self.catalogue.ids, self.catalogue.titles
        masked = float("-inf")
        return [
            ScoredItem(ids[row], score, titles[row]) for row, score in zip(rows, scores, strict=True) if score != masked
        ]

    def _popular_items(
        self,
        k: int,
        left_out: list[int],
        unknown: list[str],
        allowed: npt.NDArray[np.bool_] | None,
    ) -> Recommendation:
        skipped = set(left_out)
        items: list[ScoredItem] = []
        for row in self._popular:
            if row not in skipped and (allowed is None or allowed[row]):
                items.append(ScoredItem(self.catalogue.ids[row], None, self.catalogue.titles[row]))
                if len(items) == k:
                    break
        return Recommendation(items, unknown, "popularity")


@contextlib.contextmanager
def _running(graph: str) -> Iterator[None]:
    """Whatever a graph that does not fit its bundle raises at run time becomes a GateError."""
    try:
        yield
    except SlimrecError:
        raise
    except Exception as error:
        raise GateError(f"{graph}: fails on its golden answers ({first_line(error)})") from error


def _pad(lists: list[list[int]], extra: npt.NDArray[np.intp] | None = None) -> Rows:
    """Lists of rows -> int64 (len(lists), longest), left-padded with 0; `extra` is appended to each."""
    width = max(map(len, lists))
    tail = 0 if extra is None else len(extra)
    out = np.zeros((len(lists), width + tail), np.int64)
    for place, rows in enumerate(lists):
        out[place, width - len(rows) : width] = rows
    if extra is not None:
        out[:, width:] = extra
    return out
