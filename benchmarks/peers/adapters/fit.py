"""How long a peer trains: validation chooses the epoch, by our metric. numpy only."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg, ranks_of
from benchmarks.peers.adapters.serve import Settings
from benchmarks.peers.split import Rows, Split

_DEPTH = 10


class Watch:
    """Told of every epoch, it validates, keeps the best and says when to stop.

    `settings`: at most `epochs`; validated every `validate_every`; ended after `patience` validations without a better
    one, or after `budget` CPU seconds. With `batches` an epoch is so many of them, and there is one, not validated.
    """

    def __init__(
        self,
        split: Split,
        settings: Settings,
        rank: Callable[[Sequence[Rows], int], NDArray[np.int32]],
        keep: Callable[[], object],
    ) -> None:
        """`rank`: as `serve.Model.rank`, of the model as it is; `keep` saves it. The clock starts."""
        self._split, self._settings, self._rank, self._keep = split, settings, rank, keep
        self._wall, self._cpu, self._waited = time.perf_counter(), time.process_time(), 0
        self._best: dict[str, Any] = {"epoch": 0, "valid": None, "seconds": 0.0, "cpu_seconds": 0.0}
        self._epochs, self._ended = 0, "all epochs"
        self._curve: list[tuple[int, float]] = []

    def goes_on(self) -> bool:
        """Call it after each epoch: whether there is to be another."""
        self._epochs += 1
        if self._settings["batches"]:
            self._keep()
            self._ended = "hardly trained: times alone"
            return False
        last = self._epochs >= int(self._settings["epochs"])
        over = time.process_time() - self._cpu > float(self._settings["budget"])
        if self._epochs % int(self._settings["validate_every"]) == 0 or last or over:
            self._validate()
        if over:
            self._ended = f"its budget, {self._settings['budget']:g} CPU s"
        elif self._waited >= int(self._settings["patience"]):
            self._ended, over = f"{self._waited} validations without a better one", True
        return not (over or last)

    def told(self) -> dict[str, Any]:
        """What became of the training. `curve`: (epoch, validation NDCG@10). `seconds` and `cpu_seconds`: from the
        start to the end of the best epoch, the validations in between included."""
        return self._best | {"epochs": self._epochs, "ended": self._ended, "curve": self._curve}

    def _validate(self) -> None:
        ranks = ranks_of(self._rank(self._split.valid.lists, _DEPTH), self._split.valid_targets)
        value = float(ndcg(ranks, _DEPTH).mean())
        self._curve.append((self._epochs, round(value, 6)))
        self._waited += 1
        if self._best["valid"] is None or value > self._best["valid"]:
            self._waited = 0
            spent = {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}
            self._best = {"epoch": self._epochs, "valid": value, **spent}
            self._keep()


def windows(split: Split, length: int) -> list[Rows]:
    """Training histories cut into pieces of `length` + 1 events, each half over the next: as inputs and shifted targets
    every event but a history's first is asked for, about twice. For peers that read the end of a history alone."""
    step = max(1, length // 2)
    found = []
    for rows in split.train.lists:
        ends = range(len(rows), 1, -step) if len(rows) > length + 1 else [len(rows)]
        for end in ends:
            piece = rows[max(0, end - length - 1) : end]
            if len(piece) > 1:
                found.append(piece)
            if end <= length + 1:
                break
    return found


def lightning_options(settings: Settings, epochs: object) -> dict[str, Any]:
    """What every Lightning trainer here is given: the CPU, no files and no bars; `epochs`, a callback, ends it."""
    return {
        "max_epochs": int(settings["epochs"]),
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [epochs],
        "limit_train_batches": settings["batches"] or 1.0,
    }
