"""An adapter's side of the conversation: one JSON object per line in, one out. numpy and the standard library only.

What a peer prints goes to stderr; stdout is the conversation's own. A question that fails is answered with `error`.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import latency
from benchmarks.memory import peak_rss_mb
from benchmarks.peers.split import Ragged, Rows, Split

Message = Mapping[str, Any]
Settings = Mapping[str, Any]


class Model(Protocol):
    """A trained model that answers."""

    @property
    def size_bytes(self) -> int:
        """Of the files it is served from, the list of item ids left out."""

    def rank(self, histories: Sequence[Rows], depth: int) -> NDArray[np.int32]:
        """Rows (histories, depth) of the whole catalogue, best first, none of a history's own; 0 where none is left."""

    def recommend(self, history: Sequence[str], k: int) -> list[str]:
        """The k best item ids, best first, none of the history's own."""


class Adapter(Protocol):
    """What a peer's file defines."""

    def train(self, split: Split, settings: Settings, out: Path) -> Mapping[str, Any]:
        """Leaves in `out` all that `open` needs. Returns what `fit.Fitted` says of the training."""

    def open(self, folder: Path, settings: Settings) -> Model:
        """Load what `train` left."""


class Session:
    """Answers the questions of one process: each method is one of them."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._model: Model | None = None

    def answer(self, message: Message) -> dict[str, Any]:
        """The answer to a message, or `error` with the exception's last line."""
        asked = dict(message)
        try:
            found: dict[str, Any] = getattr(self, f"do_{asked.pop('do')}")(**asked)
        except Exception as error:  # whatever a peer raises is its row's `why`
            traceback.print_exc()
            words = f"{type(error).__name__}: {error}".strip().splitlines()
            return {"error": words[0][:300]}
        return found

    def do_train(self, split: str, settings: Settings, out: str) -> dict[str, Any]:
        """Train on a split's file."""
        wall, cpu = time.perf_counter(), time.process_time()
        fitted = dict(self._adapter.train(Split.load(Path(split)), settings, Path(out)))
        return fitted | {
            "total_seconds": time.perf_counter() - wall,
            "total_cpu_seconds": time.process_time() - cpu,
            "rss_mb": peak_rss_mb(),
        }

    def do_open(self, folder: str, settings: Settings) -> dict[str, Any]:
        """Load a model and keep it for the questions that follow."""
        self._model = self._adapter.open(Path(folder), settings)
        return {"size_bytes": self._model.size_bytes}

    def do_rank(self, histories: str, out: str, depth: int) -> dict[str, Any]:
        """Rank the catalogue for the histories in a `Ragged` file; rows go to an `.npy` file."""
        with np.load(histories, allow_pickle=False) as file:
            lists = Ragged(file["offsets"], file["rows"]).lists
        np.save(out, self._opened.rank(lists, depth).astype(np.int32), allow_pickle=False)
        return {}

    def do_recommend(self, history: list[str], k: int) -> dict[str, Any]:
        """One history of ids -> ids. `answered_ns` is the system's monotonic clock, the asking process's too."""
        items = self._opened.recommend(history, k)
        return {"items": items, "answered_ns": time.monotonic_ns(), "rss_mb": peak_rss_mb()}

    def do_time(self, histories: list[list[str]], k: int, runs: int, seconds: float) -> dict[str, Any]:
        """A block of a round: warm up, then ask one history after another, at most `runs` or `seconds`."""
        turn, recommend = cycle(histories), self._opened.recommend
        found = latency(
            {"": lambda: recommend(next(turn), k)},
            rounds=1,
            min_runs=runs,
            min_seconds=seconds,
            warmup_seconds=seconds / 2,
        )[""]
        return {"ms": [round(sample, 6) for sample in found.samples_ms.tolist()], "unsettled": found.unsettled}

    def do_versions(self) -> dict[str, Any]:
        """Every distribution of this environment."""
        found = {part.metadata["Name"]: part.version for part in metadata.distributions()}
        return {
            "python": sys.version.split()[0],
            "packages": dict(sorted(found.items(), key=lambda one: one[0].lower())),
        }

    @property
    def _opened(self) -> Model:
        if self._model is None:
            raise ValueError("no model is open")
        return self._model


def serve(adapter: Adapter) -> None:
    """Answer until stdin ends."""
    answers, session = _own_stdout(), Session(adapter)
    for line in sys.stdin:
        answers.write(json.dumps(session.answer(json.loads(line))) + "\n")
        answers.flush()


def _own_stdout() -> TextIO:
    """The stdout we were given; whatever else writes there from now on writes to stderr."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own
