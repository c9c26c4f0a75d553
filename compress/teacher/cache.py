"""What a teacher leaves for its students: its best items at every training position, computed once."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field

from compress.data.dataset import Dataset
from compress.models.mix import Scorer
from compress.stage import RunOptions
from compress.training import at_once, warm_items

CachedScores = Annotated[int, Field(ge=1, le=10_000, description="best items kept per training position")]


@torch.no_grad()
def cached_scores(model: Scorer, dataset: Dataset, top: int, options: RunOptions) -> dict[str, NDArray[Any]]:
    """`score_items` int32 and `scores` float16, (positions, top), best first.

    Positions are numbered through all users as `windows` numbers them; the teacher sees the whole history before each,
    up to what it reads. Cold items never appear: students learn over the warm catalogue. Items the user already had
    stay in: repeats are part of what the teacher believes.
    """
    sequences = dataset.train_sequences()
    warm = warm_items(dataset).to(model.device)
    top = min(top, int(warm.sum()))
    n = sum(max(0, len(events) - 1) for events in sequences)
    rows, values = np.zeros((n, top), np.int32), np.zeros((n, top), np.float16)
    start = 0
    batch = at_once(model.n_items)
    for histories in options.progress(
        contexts(sequences, model.max_history, batch), "teacher's scores", -(-n // batch)
    ):
        scores = model.scores(torch.from_numpy(histories).to(model.device))
        best = scores.masked_fill(~warm, -torch.inf).topk(top)
        at = slice(start, start + len(histories))
        rows[at], values[at] = best.indices.cpu().numpy(), best.values.cpu().numpy()
        start += len(histories)
    return {"score_items": rows, "scores": values}


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
