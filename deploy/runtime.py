"""A verified bundle that answers: raw item ids in, raw item ids out. Torch-free."""

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, RootModel

from deploy.bundle import Bundle, open_bundle
from deploy.catalogue import Catalogue, Filter
from deploy.cold import ColdItems, ColdTable
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.filters import Allowed, Filters
from deploy.golden import Golden, check_cases, check_likes, check_text
from deploy.journal import ItemJournal
from deploy.likes import LikeScorer
from deploy.manifest import GOLDEN, ITEMS, POPULAR, parse_record, sha256_hex, shorten
from deploy.ranker import CPU, Ranker, Rows, Scores, first_line
from deploy.text import TextEncoder, Vectors


class Popular(RootModel[list[Annotated[int, Field(ge=1, strict=True)]]]):
    """`popular.json`: a JSON list of item rows, the most popular recently first."""


@dataclass(slots=True)  # frozen ones take four times as long to make, ten times a request
class ScoredItem:
    """One answer. `score` is the model's (a dot product); None where recent popularity answered."""

    id: str
    score: float | None
    title: str


@dataclass(slots=True)
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
        journal: ItemJournal | None = None,
    ) -> None:
        """Open the parts of a verified bundle; `self_test` is the caller's next step.

        providers: as in `load`. catalogue: the bundle's, where it has been read already. journal: where cold items are
        kept; without one they are forgotten when the process ends. Raises UsageError.
        """
        model = bundle.manifest.model
        self.bundle = bundle
        self._threads, self._spin, self._providers = threads, spin, providers
        self._max_history = model.max_history
        self.catalogue = catalogue or Catalogue.read(bundle.path(ITEMS), bundle.manifest.list_separators)
        n_items = len(self.catalogue)
        if n_items != model.n_items:
            raise UsageError(f"{ITEMS}: must have {model.n_items} items, as the manifest says (got {n_items})")
        self._filters = Filters(self.catalogue)
        self._popular = parse_record(Popular, bundle.read(POPULAR), POPULAR).root
        if len(set(self._popular)) != len(self._popular) or max(self._popular, default=0) > n_items:
            raise UsageError(f"{POPULAR}: must be different rows from 1 to {n_items}")
        self._golden = parse_record(Golden, bundle.read(GOLDEN), GOLDEN)
        self._text: TextEncoder | None = None
        self._text_lock = threading.Lock()
        self._open_graphs(precision or model.default)
        self.cold = self._cold_items(journal)
        self._no_cold = ColdItems(self.catalogue, model.dim, encode=None).table

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
        journal: ItemJournal | None = None,
    ) -> "Recommender":
        """Verify the bundle at `path` (folder or archive), open it and ask it its golden answers.

        key: the pinned public key's PEM file; None checks integrity only. precision: one of the manifest's, None takes
        its default. threads: of one request. spin: whether idle worker threads keep a core busy (lower latency).
        providers: ONNX Runtime's, as `open_session` takes them. journal: see `Recommender`.
        Raises UsageError (unreadable, malformed) or GateError (digest, signature, golden answer).
        """
        bundle = open_bundle(path, key)
        recommender = cls(bundle, precision=precision, threads=threads, spin=spin, providers=providers, journal=journal)
        recommender.self_test()
        return recommender

    def with_precision(self, precision: str) -> Self:
        """The same bundle answered by another of its graphs; all else is shared. Raises UsageError."""
        other = copy.copy(self)
        other._open_graphs(precision)
        return other

    @property
    def golden_histories(self) -> list[list[str]]:
        """The histories of the golden cases, oldest first."""
        return [case.history for case in self._golden.cases]

    @property
    def says_likes(self) -> bool:
        """Whether `like` answers: the bundle has a like graph."""
        return self._likes is not None

    def _open_graphs(self, precision: str) -> None:
        model = self.bundle.manifest.model
        if precision not in model.precisions:
            known = ", ".join(sorted(model.precisions))
            raise UsageError(f"precision: the bundle has {known} (got {precision})")
        path, threads, spin, providers = self.bundle.path, self._threads, self._spin, self._providers
        self.precision = precision
        self.ranker = Ranker(path(model.precisions[precision]), threads=threads, spin=spin, providers=providers)
        self._likes = None
        if model.likes is not None:
            like = path(model.likes[precision])
            self._likes = LikeScorer(like, threads=threads, spin=spin, providers=providers)

    def _cold_items(self, journal: ItemJournal | None) -> ColdItems:
        model, files = self.bundle.manifest.model, self.bundle.manifest.files
        text = model.text
        if text is None or text.dim != model.dim or not self.ranker.says_users:
            return ColdItems(self.catalogue, model.dim, encode=None)
        parts = f"{files[text.graph].sha256} {files[text.tokenizer].sha256} {text.max_tokens}"
        return ColdItems(
            self.catalogue,
            model.dim,
            encode=self.text_vectors,
            encoder=sha256_hex(parts.encode())[:16],
            template=text.template,
            journal=journal,
        )

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
        """The k best of the bundle's own items and their scores; a history without a known id is a UsageError."""
        (answer,) = self._answers([history], k, None, None, self._no_cold)
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
        `max_history` items of the bundle; a history without one gets the recently popular items. Cold items are ranked
        beside the others, and left out where they were seen; the model does not read them in a history. Raises
        UsageError where k is below 1 or an attribute is unknown.
        """
        return self._answers(histories, k, excludes, filter, self.cold.table)

    def _answers(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        excludes: Sequence[Sequence[str]] | None,
        filter: Filter | None,
        cold: ColdTable,
    ) -> list[Recommendation]:
        if k < 1:
            raise UsageError(f"k: must be at least 1 (got {k})")
        excludes = excludes if excludes is not None else [()] * len(histories)
        if len(excludes) != len(histories):
            raise UsageError(f"excludes: one list per history, {len(histories)}, is wanted (got {len(excludes)})")
        if len(histories) == 1 and not filter and not len(cold):
            return [self._answer(histories[0], k, excludes[0])]
        allowed = self._filters.allowed(filter) if filter else None
        answers: list[Recommendation | None] = [None] * len(histories)
        asked: list[_Asked] = []
        for place, (history, exclude) in enumerate(zip(histories, excludes, strict=True)):
            rows, unknown = self._split(history, cold)
            left_out, unknown_left_out = self._split(exclude, cold)
            unknown = list(dict.fromkeys(unknown + unknown_left_out))
            read = [row for row in rows if row <= len(self.catalogue)] if len(cold) else rows
            if read:
                asked.append(_Asked(place, read, rows + left_out, unknown))
            else:
                answers[place] = self._popular_items(k, rows + left_out, unknown, allowed)
        if asked:
            ranked = self._ranked(asked, k, allowed, cold, filter)
            for question, (scores, best) in zip(asked, ranked, strict=True):
                answers[question.place] = Recommendation(self._named(best, scores, cold), question.unknown, "model")
        return [answer for answer in answers if answer is not None]

    def _answer(self, history: Sequence[str], k: int, exclude: Sequence[str]) -> Recommendation:
        """What most requests are: one history, no filter, no cold items; the same answer, without what many need."""
        rows, unknown = self.catalogue.split(history)
        left_out: list[int] = []
        if exclude:
            left_out, more = self.catalogue.split(exclude)
            unknown += more
        if unknown:
            unknown = list(dict.fromkeys(unknown))
        if not rows:
            return self._popular_items(k, left_out, unknown, None)
        if len(rows) > self._max_history:  # of what the graph reads it leaves all out by itself
            rows, left_out = rows[-self._max_history :], rows[: -self._max_history] + left_out
        scores, best = self.ranker.best(rows, left_out, min(k, len(self.catalogue)))
        return Recommendation(self._named(best, scores, self._no_cold), unknown, "model")

    def _ranked(
        self, asked: Sequence["_Asked"], k: int, allowed: Allowed | None, cold: ColdTable, filter: Filter | None
    ) -> list[tuple[list[float], list[int]]]:
        """(scores, rows) of each question, best first; what may not be shown scores -inf."""
        n_items, limit = len(self.catalogue), self.bundle.manifest.model.max_history
        history = _pad([question.read[-limit:] for question in asked])
        left_out = [question.left_out for question in asked]
        blocked = None if allowed is None else allowed.blocked
        if not len(cold):
            scores, rows = self.ranker.rank(history, _pad(left_out, blocked), min(k, n_items))
            return list(zip(scores.tolist(), rows.tolist(), strict=True))
        warm = [[row for row in rows if row <= n_items] for rows in left_out]
        scores, rows, users = self.ranker.rank_with_users(history, _pad(warm, blocked), min(k, n_items))
        cold_scores: Scores = users @ cold.vectors.T
        if filter:
            cold_scores[:, ~cold.catalogue.allowed(filter)[1:]] = -np.inf
        for line, out in zip(cold_scores, left_out, strict=True):
            line[[row - n_items - 1 for row in out if row > n_items]] = -np.inf
        all_scores = np.concatenate([scores, cold_scores], axis=1)
        cold_rows = np.broadcast_to(np.arange(n_items + 1, n_items + 1 + len(cold)), cold_scores.shape)
        all_rows = np.concatenate([rows, cold_rows], axis=1)
        best = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        return [(s[b].tolist(), r[b].tolist()) for s, r, b in zip(all_scores, all_rows, best, strict=True)]

    def _split(self, ids: Sequence[str], cold: ColdTable) -> tuple[list[int], list[str]]:
        """The rows of the known ids, cold items behind the bundle's own, and the unknown ids."""
        rows, unknown = self.catalogue.split(ids)
        if not len(cold) or not unknown:
            return rows, unknown
        more, unknown = cold.catalogue.split(unknown)
        return rows + [len(self.catalogue) + row for row in more], unknown

    def search(self, query: str, limit: int) -> list[tuple[str, str]]:
        """(id, title) of items whose title contains `query` without regard to case, cold ones last."""
        found: list[tuple[str, str]] = []
        for catalogue in (self.catalogue, self.cold.table.catalogue):
            rows = catalogue.search(query, limit - len(found)) if len(found) < limit else []
            found += [(catalogue.ids[row], catalogue.titles[row]) for row in rows]
        return found

    def like(
        self,
        item: str,
        history: Sequence[str],
        liked: Sequence[bool] | None = None,
        ratings: tuple[int, int] = (0, 0),
    ) -> float:
        """The log-odds that a user with this rated history (item ids, oldest first) likes `item`; see `likes`."""
        return self.likes([item], history, liked, ratings)[0]

    def likes(
        self,
        items: Sequence[str],
        history: Sequence[str],
        liked: Sequence[bool] | None = None,
        ratings: tuple[int, int] = (0, 0),
    ) -> list[float]:
        """The log-odds that a user with this rated history (item ids, oldest first) likes each of `items`.

        liked: which of the history was liked, all of it by default. ratings: how many items the user is known to like
        and to dislike, as the model counted them when it was trained (like/dislike rows before the one asked). Unknown
        ids of the history are skipped, of the rest the most recent `max_history` are read. Raises UsageError where the
        bundle says nothing of likes, has not an item (cold ones neither), or `liked` is not as long as `history`.
        """
        if self._likes is None:
            raise UsageError(f"{self.bundle.manifest.name}: the bundle ranks, it does not say how likely a like is")
        marks = [True] * len(history) if liked is None else list(liked)
        if len(marks) != len(history):
            raise UsageError(f"liked: one mark per item of the history, {len(history)}, is wanted (got {len(marks)})")
        asked = self.rows_of(items)
        if 0 in asked:
            raise UsageError(f"items: must be in {ITEMS} (got {shorten(items[asked.index(0)])})")
        known = [pair for pair in zip(self.rows_of(history), marks, strict=True) if pair[0]]
        known = known[-self.bundle.manifest.model.max_history :] or [(0, False)]
        rows, rated = (np.array([column]).repeat(len(asked), axis=0) for column in zip(*known, strict=True))
        counts = np.array([ratings], np.int64).repeat(len(asked), axis=0)
        logits = self._likes.logits(rows.astype(np.int64), rated.astype(bool), np.array(asked, np.int64), counts)
        return [float(value) for value in logits]

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

    def _named(self, rows: list[int], scores: list[float], cold: ColdTable) -> list[ScoredItem]:
        ids, titles = self.catalogue.ids, self.catalogue.titles
        n_items, masked = len(self.catalogue), float("-inf")
        if not len(cold) and scores[-1] != masked:  # the last is the worst: nothing is left out
            return [ScoredItem(ids[row], score, titles[row]) for row, score in zip(rows, scores, strict=True)]
        named = []
        for row, score in zip(rows, scores, strict=True):
            if score == masked:
                break
            if row <= n_items:
                named.append(ScoredItem(ids[row], score, titles[row]))
            else:
                row -= n_items
                named.append(ScoredItem(cold.catalogue.ids[row], score, cold.catalogue.titles[row]))
        return named

    def _popular_items(
        self, k: int, left_out: list[int], unknown: list[str], allowed: Allowed | None
    ) -> Recommendation:
        skipped = set(left_out)
        items: list[ScoredItem] = []
        for row in self._popular:
            if row not in skipped and (allowed is None or allowed.mask[row]):
                items.append(ScoredItem(self.catalogue.ids[row], None, self.catalogue.titles[row]))
                if len(items) == k:
                    break
        return Recommendation(items, unknown, "popularity")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A history that the model reads: the rows it is given, all that are left out, and where the answer goes."""

    place: int
    read: list[int]
    left_out: list[int]
    unknown: list[str]


@contextlib.contextmanager
def _running(graph: str) -> Iterator[None]:
    """Whatever a graph that does not fit its bundle raises at run time becomes a GateError."""
    try:
        yield
    except SlimrecError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise GateError(f"{graph}: fails on its golden answers ({first_line(error)})") from error


def _pad(lists: list[list[int]], extra: Rows | None = None) -> Rows:
    """Lists of rows -> int64 (len(lists), longest), left-padded with 0; `extra` is appended to each."""
    if len(lists) == 1 and extra is None and lists[0]:
        return np.array(lists, np.int64)
    width = max(map(len, lists))
    tail = 0 if extra is None else len(extra)
    out = np.zeros((len(lists), width + tail), np.int64)
    for place, rows in enumerate(lists):
        out[place, width - len(rows) : width] = rows
    if extra is not None:
        out[:, width:] = extra
    return out
