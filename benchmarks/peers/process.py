"""Our side of the conversation with an adapter: one process in the peer's environment, one JSON line each way."""

import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.environment import ROOT
from deploy.errors import SlimrecError


class PeerError(SlimrecError):
    """A peer that could not answer: its row says why."""


class AdapterProcess:
    """An adapter that runs. Its stderr goes to a log."""

    def __init__(self, python: Path, module: str, log: Path, *, threads: int = 1) -> None:
        """`module`: as after `python -m`. Starts it; `started_ns` is the monotonic clock just before."""
        self._log, self._module = log, module
        log.parent.mkdir(parents=True, exist_ok=True)
        self._stderr = log.open("ab")
        self.started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            [str(python), "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(threads),
            cwd=log.parent,
        )

    def ask(self, do: str, *, timeout_s: float = 600.0, **message: Any) -> dict[str, Any]:
        """The answer to one question. Raises PeerError where the adapter fails, dies or takes longer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write((json.dumps({"do": do, **message}) + "\n").encode())
            stdin.flush()
        except BrokenPipeError:
            raise PeerError(f"{do}: {self._last_words()}") from None
        ready, _, _ = select.select([stdout], [], [], timeout_s)
        if not ready:
            self.close()
            raise PeerError(f"{do}: no answer in {timeout_s:.0f} s")
        line = stdout.readline()
        if not line:
            raise PeerError(f"{do}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{do}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _last_words(self) -> str:
        code = self._process.wait(timeout=10)
        said = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        return f"{self._module} ended with {code} ({said[-1][:200] if said else 'without a word'})"


def _environment(threads: int) -> dict[str, str]:
    """As ours, with this repository's code, so many threads, no network and no GPU."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return kept | {
        "PYTHONPATH": str(ROOT),
        **dict.fromkeys(counts, str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
