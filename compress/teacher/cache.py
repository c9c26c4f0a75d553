"""What a teacher leaves for its students: its best items at every training position, computed once."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from benchmarks.accuracy import at_once
from compress.data.dataset import Dataset
from compress.models.mix import Scorer
from compress.models.sequence import SequenceModel
from compress.stage import RunOptions
from compress.training import warm_items
from deploy.errors import UsageError


class CachedScores(BaseModel):
    """What is kept per training position: the `top` best items, `tail` others drawn uniformly without repetition (6
    bytes each), and with `user_vectors` the teacher's (2 bytes a dimension). A recipe may write `top` alone, as a
    number."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    top: Annotated[int, Field(ge=1, le=10_000)] = 100
    tail: Annotated[int, Field(ge=0, le=10_000)] = 0
    user_vectors: bool = False

    @model_validator(mode="before")
    @classmethod
    def _top_alone(cls, value: Any) -> Any:
        return value if isinstance(value, dict | cls) else {"top": value}

    @model_serializer(mode="wrap")
    def _as_written(self, write: SerializerFunctionWrapHandler) -> Any:
        """A cache of best items alone is their number, as recipes write it: keys of older artifacts stay."""
        return self.top if self.only_top else write(self)

    @property
    def only_top(self) -> bool:
        return not self.tail and not self.user_vectors

    @property
    def leaves(self) -> frozenset[str]:
        """As `StageConfig.leaves`."""
        return frozenset(name for name in ("tail", "user_vectors") if getattr(self, name))

    def only_lists(self, what: str) -> int:
        """`top`, for a teacher that is lists and nothing beside. Raises UsageError where more is asked for."""
        if not self.only_top:
            raise UsageError(
                f"cached_scores: {what} has no scores of other items and no user vectors of its own; leave out tail "
                f"and user_vectors (got {self.model_dump()})"
            )
        return self.top


@torch.no_grad()
def cached_scores(
    model: Scorer, dataset: Dataset, wanted: CachedScores, options: RunOptions
) -> dict[str, NDArray[Any]]:
    """`score_items` int32 and `scores` float16, (positions, top), best first; where wanted `tail_items` and
    `tail_scores`, (positions, tail), and `user_vectors` float16 (positions, dim).

    Positions are numbered through all users as `windows` numbers them; the teacher sees the whole history before each,
    up to what it reads. Cold items never appear: students learn over the warm catalogue. Items the user already had
    stay in: repeats are part of what the teacher believes. Raises UsageError where a mix is asked for user vectors.
    """
    if wanted.user_vectors and not isinstance(model, SequenceModel):
        raise UsageError("cached_scores.user_vectors: a mix has no user vectors of a common space (got true)")
    sequences = dataset.train_sequences()
    warm = warm_items(dataset).to(model.device)
    rows = warm.nonzero()[:, 0].cpu().numpy()
    top = min(wanted.top, len(rows))
    tail = min(wanted.tail, len(rows) - top)
    n = sum(max(0, len(events) - 1) for events in sequences)
    kept: dict[str, NDArray[Any]] = {"score_items": np.zeros((n, top), np.int32), "scores": np.zeros((n, top), "f2")}
    if wanted.tail:
        kept |= {"tail_items": np.zeros((n, tail), np.int32), "tail_scores": np.zeros((n, tail), np.float16)}
    if wanted.user_vectors and isinstance(model, SequenceModel):
        kept["user_vectors"] = np.zeros((n, model.shape.item_dim), np.float16)
    rng = np.random.default_rng(0)  # fixed: what a teacher leaves is a function of the teacher
    start = 0
    batch = at_once(model.n_items)
    for histories in options.progress(
        contexts(sequences, model.max_history, batch), "teacher's scores", -(-n // batch)
    ):
        asked = torch.from_numpy(histories).to(model.device)
        at = slice(start, start + len(histories))
        scores = model.scores(asked)
        best = scores.masked_fill(~warm, -torch.inf).topk(top)
        kept["score_items"][at], kept["scores"][at] = best.indices.cpu().numpy(), best.values.cpu().numpy()
        if wanted.tail:
            drawn = drawn_beside(rows, kept["score_items"][at], tail, rng)
            chosen = torch.from_numpy(drawn).to(model.device)
            kept["tail_items"][at], kept["tail_scores"][at] = drawn, scores.gather(1, chosen).cpu().numpy()
        if "user_vectors" in kept and isinstance(model, SequenceModel):
            kept["user_vectors"][at] = model.user_vectors(asked).cpu().numpy()
        start += len(histories)
    return kept


def drawn_beside(
    rows: NDArray[np.int64], without: NDArray[np.int32], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Per line of `without` (lines, n) int32, different rows each, `count` of the other `rows` (ascending), drawn
    uniformly without repetition: (lines, count) int64."""
    places = np.sort(np.searchsorted(rows, without), 1) - np.arange(without.shape[1])  # others before each of them
    left = len(rows) - without.shape[1]
    found = np.zeros((len(without), count), np.int64)
    for line, before in zip(found, places, strict=True):
        number = rng.choice(left, count, replace=False, shuffle=False)  # among the others
        line[:] = rows[number + np.searchsorted(before, number, side="right")]
    return found


def training_positions(dataset: Dataset) -> NDArray[np.int64]:
    """Each event's number as a training target, as `contexts` and `windows` count, -1 for the others: (events,)."""
    trained = np.flatnonzero(dataset.train)
    owners = np.searchsorted(dataset.offsets, trained, side="right")
    targets = trained[1:][owners[1:] == owners[:-1]]
    numbers = np.full(len(dataset.items), -1, np.int64)
    numbers[targets] = np.arange(len(targets))
    return numbers


def contexts(sequences: Sequence[NDArray[np.int32]], length: int, batch: int = 512) -> Iterator[NDArray[np.int64]]:
    """The history before every training target, user by user: (up to `batch`, length) int64, padded on the left."""
    waiting: list[NDArray[np.int64]] = []
    n = 0
    for events in sequences:
        if len(events) < 2:
            continue
        padded = np.concatenate([np.zeros(length, np.int64), events[:-1]])
        waiting.append(sliding_window_view(padded, length)[1:])
        n += len(events) - 1
        while n >= batch:
            whole = np.concatenate(waiting)
            yield whole[:batch]
            waiting, n = [whole[batch:]], n - batch
    if n:
        yield np.concatenate(waiting)
