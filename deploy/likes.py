"""One ONNX Runtime session around a like graph (contract: `docs/ARCHITECTURE.md`, "quantize")."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deploy.errors import UsageError
from deploy.ranker import CPU, Rows, open_session, wants_one_by_one

INPUTS = {"history", "liked", "items", "ratings"}


class LikeScorer:
    """A rated history and an item -> the log-odds of a like. Thread-safe: a session may run from several threads."""

    def __init__(self, graph: Path, *, threads: int = 1, providers: Sequence[str] = CPU, spin: bool = True) -> None:
        """graph: `like.<precision>.onnx`. Raises UsageError where it cannot be loaded or has other inputs."""
        self._session = open_session(graph, threads=threads, providers=providers, spin=spin)
        self._one_by_one = wants_one_by_one(self._session)
        inputs = {value.name for value in self._session.get_inputs()}
        if inputs != INPUTS or "logits" not in {value.name for value in self._session.get_outputs()}:
            raise UsageError(
                f"{graph.name}: must map {', '.join(sorted(INPUTS))} to logits (got {', '.join(sorted(inputs))})"
            )

    def logits(
        self, history: Rows, liked: npt.NDArray[np.bool_], items: Rows, ratings: Rows
    ) -> npt.NDArray[np.float32]:
        """float32 (batch,).

        history: int64 (batch, length), oldest first, left-padded with 0; liked: bool (batch, length), which of it was
        liked; items: int64 (batch,), the rows asked about; ratings: int64 (batch, 2), how many items the user was known
        to like and to dislike.
        """
        if self._one_by_one and len(history) > 1:
            starts = np.argmax(history > 0, axis=1)  # without the padding, which would move the scales too
            return np.concatenate(
                [
                    self.logits(history[i : i + 1, s:], liked[i : i + 1, s:], items[i : i + 1], ratings[i : i + 1])
                    for i, s in enumerate(starts.tolist())
                ]
            )
        feed = {"history": history, "liked": liked, "items": items, "ratings": ratings}
        found: npt.NDArray[np.float32] = self._session.run(["logits"], feed)[0]
        return found
