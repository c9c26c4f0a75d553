"""One ONNX Runtime session around the graph history -> top-k (contract: `docs/ARCHITECTURE.md`, "quantize")."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from deploy.errors import UsageError

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

CPU = ("CPUExecutionProvider",)
CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")

# TF32 rounds what is called fp32 to ten bits: answers would no longer be those that were recorded.
_OPTIONS: dict[str, dict[str, str]] = {CUDA[0]: {"use_tf32": "0"}}


def open_session(
    graph: Path, *, threads: int = 1, providers: Sequence[str] = CPU, spin: bool = True
) -> ort.InferenceSession:
    """A sequential, quiet session. `spin=False` lets idle worker threads sleep instead of burning a core.

    Raises UsageError where ONNX Runtime cannot load `graph` or has not one of `providers`.
    """
    absent = [name for name in providers if name not in ort.get_available_providers()]
    if absent:
        raise UsageError(f"{graph.name}: this onnxruntime lacks the provider (got {', '.join(absent)})")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    named = [(name, _OPTIONS.get(name, {})) for name in providers]
    try:
        return ort.InferenceSession(str(graph), options, providers=named)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise UsageError(f"{graph.name}: onnxruntime cannot load it ({first_line(error)})") from None


ONE_BY_ONE = "slimrec.one_by_one"
"""Metadata of graphs that scale activations over a whole batch: what is answered must not depend on the neighbours."""


def wants_one_by_one(session: ort.InferenceSession) -> bool:
    """Whether the graph's answer to one input changes with what else is in the batch."""
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return ONE_BY_ONE in metadata


def first_line(error: Exception) -> str:
    """The first line of a message, cut to 200 characters."""
    return str(error).strip().partition("\n")[0][:200]


OUTPUTS = ("scores", "rows")
USER_VECTOR = "user_vector"
"""An output of history graphs beside which a text encoder ships: what cold items are scored against."""


_MOST_LINES, _EXCLUDE_STEP = 64, 16


class _Line:
    """One history's inputs and outputs in arrays that the graph reads and writes in place: a call allocates nothing and
    copies what goes in alone. Of one (history length, length of exclude, k)."""

    def __init__(self, session: ort.InferenceSession, length: int, left_out: int, k: int) -> None:
        history, exclude = np.zeros((1, length), np.int64), np.zeros((1, left_out), np.int64)
        scores, rows = np.empty((1, k), np.float32), np.empty((1, k), np.int64)
        self.binding = session.io_binding()
        for name, array in (("history", history), ("exclude", exclude), ("k", np.array([k], np.int64))):
            self.binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        self.binding.bind_output("scores", "cpu", 0, np.float32, scores.shape, scores.ctypes.data)
        self.binding.bind_output("rows", "cpu", 0, np.int64, rows.shape, rows.ctypes.data)
        self.history, self.exclude, self.scores, self.rows = history[0], exclude[0], scores[0], rows[0]


class _Bound(threading.local):
    """A thread's inputs and outputs: for answers of one shape (batch, k, whether with user vectors), and its lines."""

    shape = (0, 0, False)
    binding: Any = None

    def __init__(self) -> None:
        self.lines: dict[tuple[int, int, int], _Line] = {}


class Ranker:
    """history -> the k best rows. Thread-safe: a session may run from several threads."""

    def __init__(self, graph: Path, *, threads: int = 1, providers: Sequence[str] = CPU, spin: bool = True) -> None:
        """graph: `history.<precision>.onnx`. Raises UsageError where it cannot be loaded or has other inputs."""
        self._session = open_session(graph, threads=threads, providers=providers, spin=spin)
        self._bound = _Bound()
        self._one_by_one = wants_one_by_one(self._session)
        inputs = {value.name for value in self._session.get_inputs()}
        outputs = {value.name for value in self._session.get_outputs()}
        if inputs != {"history", "exclude", "k"} or not {"scores", "rows"} <= outputs:
            raise UsageError(
                f"{graph.name}: must map history, exclude, k to scores, rows "
                f"(got {', '.join(sorted(inputs))} to {', '.join(sorted(outputs))})"
            )
        self._says_users = USER_VECTOR in outputs

    @property
    def says_users(self) -> bool:
        """Whether the graph says user vectors."""
        return self._says_users

    def rank(self, history: Rows, exclude: Rows, k: int) -> tuple[Scores, Rows]:
        """The k best rows of each history, best first.

        history: int64 (batch, length), oldest first, left-padded with 0. exclude: int64 (batch, m), padded with 0.
        k: at most the number of items. Row 0, the history and `exclude` score -inf.
        Returns scores float32 (batch, k) and rows int64 (batch, k).
        """
        scores, rows = self._run(history, exclude, k, with_users=False)
        return scores, rows

    def best(self, history: Sequence[int], exclude: Sequence[int], k: int) -> tuple[list[float], list[int]]:
        """As `rank` for one history, of at least one row, in lists: (scores, rows), k each, best first.

        What a call costs beyond the graph is some microseconds: a thread's arrays are bound once for each shape.
        """
        wide = -(-len(exclude) // _EXCLUDE_STEP) * _EXCLUDE_STEP or 1
        shape = len(history), wide, k
        line = self._bound.lines.get(shape) or self._new_line(*shape)
        line.history[:] = history
        if exclude:
            line.exclude[: len(exclude)] = exclude
            line.exclude[len(exclude) :] = 0
        self._session.run_with_iobinding(line.binding)
        return line.scores.tolist(), line.rows.tolist()

    def rank_with_users(self, history: Rows, exclude: Rows, k: int) -> tuple[Scores, Rows, Scores]:
        """As `rank`, and the user vectors float32 (batch, dim). Only of graphs that say them."""
        scores, rows, users = self._run(history, exclude, k, with_users=True)
        return scores, rows, users

    def _run(self, history: Rows, exclude: Rows, k: int, with_users: bool) -> list[Any]:
        if self._one_by_one and len(history) > 1:
            starts = np.argmax(history > 0, axis=1)  # without the padding, which would move the scales too
            parts = [
                self._run(history[i : i + 1, starts[i] :], exclude[i : i + 1], k, with_users)
                for i in range(len(history))
            ]
            return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        shape = (len(history), k, with_users)
        if self._bound.shape != shape:
            self._bound.binding, self._bound.shape = self._bind(k, with_users), shape
        binding = self._bound.binding
        binding.bind_cpu_input("history", history)
        binding.bind_cpu_input("exclude", exclude)
        self._session.run_with_iobinding(binding)
        arrays: list[Any] = binding.copy_outputs_to_cpu()
        return arrays

    def _new_line(self, length: int, left_out: int, k: int) -> _Line:
        lines = self._bound.lines
        if len(lines) == _MOST_LINES:
            lines.pop(next(iter(lines)))  # the oldest
        line = lines[length, left_out, k] = _Line(self._session, length, left_out, k)
        return line

    def _bind(self, k: int, with_users: bool) -> Any:
        """Outputs of one shape that a thread's calls write to: allocated once, and 4 us less a call than `session.run`.

        ONNX Runtime keeps them bound with the shape of the first call.
        """
        binding = self._session.io_binding()
        binding.bind_cpu_input("k", np.array([k], np.int64))
        for name in (*OUTPUTS, USER_VECTOR) if with_users else OUTPUTS:
            binding.bind_output(name)
        return binding
