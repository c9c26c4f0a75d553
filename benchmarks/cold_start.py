"""Memory and load time of a fresh process: `fresh_process` starts one, `python -m benchmarks.cold_start` is it.

Load is process start to first answer, interpreter and imports included. Memory is the peak resident set.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.devices import used_memory_mb
from benchmarks.memory import peak_rss_mb
from deploy.errors import SlimrecError
from deploy.ranker import CPU


@dataclass(frozen=True)
class ColdStart:
    """What the fresh process loads and answers: a bundle (`items` None) or a history graph with its item file."""

    model: str
    history: tuple[str, ...]
    items: str | None = None
    k: int = 10
    threads: int = 1
    max_history: int = 50
    precision: str | None = None
    providers: tuple[str, ...] = CPU


@dataclass(frozen=True)
class Started:
    """One fresh process: peak resident set and GPU memory in MB (10^6 bytes), milliseconds to the first answer."""

    rss_mb: float
    load_ms: float
    device_memory_mb: float | None = None


def fresh_process(spec: ColdStart, *, repeats: int = 3, timeout_s: float = 300.0) -> tuple[float, float]:
    """(rss_mb, load_ms): medians of `fresh_processes`."""
    runs = fresh_processes(spec, repeats=repeats, timeout_s=timeout_s)
    return statistics.median(run.rss_mb for run in runs), statistics.median(run.load_ms for run in runs)


def fresh_processes(spec: ColdStart, *, repeats: int = 3, timeout_s: float = 300.0) -> list[Started]:
    """`repeats` processes, one after another. Raises SlimrecError with the process's own words where one fails."""
    return [_start(spec, timeout_s) for _ in range(repeats)]


def _start(spec: ColdStart, timeout_s: float) -> Started:
    environment = dict(os.environ)
    # A device keeps compiled modules; without them every import compiles again.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "benchmarks.cold_start", json.dumps(asdict(spec))]
    before = used_memory_mb(spec.providers)
    start = time.monotonic_ns()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise SlimrecError(f"{spec.model}: a fresh process could not answer ({words[-1]})")
    answer = json.loads(done.stdout.splitlines()[-1])
    used = answer["device_memory_mb"]
    gained = None if before is None or used is None else used - before
    return Started(answer["rss_mb"], (answer["answered_ns"] - start) / 1e6, gained)


def _answer(spec: ColdStart) -> object:
    """Answers once; returns what holds the session, which must live until memory has been read."""
    if spec.items is None:
        from deploy.runtime import Recommender

        bundle = Recommender.load(
            Path(spec.model), precision=spec.precision, threads=spec.threads, providers=spec.providers
        )
        bundle.recommend(spec.history, spec.k)
        return bundle
    from benchmarks.candidates import CachedPath
    from deploy.tables import read_items

    ids = read_items(Path(spec.items)).ids
    path = CachedPath(Path(spec.model), ids, max_history=spec.max_history, threads=spec.threads)
    path.recommend([spec.history], spec.k)
    return path


def main(arguments: list[str]) -> None:
    """Answer once and print `{"rss_mb", "answered_ns", "device_memory_mb"}`; the clock is the parent's too."""
    given: dict[str, Any] = json.loads(arguments[0])
    given |= {name: tuple(given[name]) for name in ("history", "providers")}
    spec = ColdStart(**given)
    answered_by = _answer(spec)
    answered = time.monotonic_ns()
    found = {"rss_mb": peak_rss_mb(), "answered_ns": answered, "device_memory_mb": used_memory_mb(spec.providers)}
    del answered_by
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
