"""Latency side by side with ours, and fresh processes."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.measure import Latency
from benchmarks.peers.process import AdapterProcess
from benchmarks.peers.record import AgainstOurs, FreshProcesses
from benchmarks.peers.split import Split
from benchmarks.ratios import paired
from benchmarks.result import Record

Open = Callable[[], AdapterProcess]
"""Starts a process whose next question is `open`."""


class Conditions(Record):
    """How times are taken: they enter a row's key. `seconds`: the most that each side is timed for, over all rounds."""

    history: int = 20
    k: int = 10
    threads: int = 1
    rounds: int = 10
    runs: int = 1000
    seconds: float = 10.0
    fresh: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Served:
    """How a process is started, and what it opens."""

    start: Open
    opens: Mapping[str, Any]

    def opened(self) -> AdapterProcess:
        """A process that has its model."""
        process = self.start()
        try:
            process.ask("open", **self.opens)
        except BaseException:
            process.close()
            raise
        return process


def histories(split: Split, conditions: Conditions) -> list[list[str]]:
    """64 histories of different items that have training events, drawn once: what everybody is asked."""
    rng = np.random.default_rng(conditions.seed)
    known = np.unique(split.train.rows)
    length = min(conditions.history, len(known) - conditions.k)
    return [[split.ids[row - 1] for row in rng.choice(known, length, replace=False)] for _ in range(64)]


def side_by_side(peer: Served, ours: Served, asked: Sequence[Sequence[str]], conditions: Conditions) -> AgainstOurs:
    """Both in turn, the order drawn anew in each round. Raises PeerError."""
    draw = random.Random(conditions.seed)
    blocks: dict[str, list[dict[str, Any]]] = {"peer": [], "ours": []}
    with peer.opened() as first, ours.opened() as second:
        processes = {"peer": first, "ours": second}
        question: dict[str, Any] = {
            "histories": [list(history) for history in asked],
            "k": conditions.k,
            "runs": -(-conditions.runs // conditions.rounds),
            "seconds": conditions.seconds / conditions.rounds,
        }
        for _ in range(conditions.rounds):
            for name in draw.sample(sorted(processes), 2):
                blocks[name].append(processes[name].ask("time", **question))
    found, own = _latency(blocks["peer"]), _latency(blocks["ours"])
    ratio = paired(found.round_medians(), own.round_medians())
    return AgainstOurs(
        history=len(asked[0]),
        k=conditions.k,
        threads=conditions.threads,
        rounds=conditions.rounds,
        p50_ms=found.p50_ms,
        p95_ms=found.p95_ms,
        p99_ms=found.p99_ms,
        runs=found.runs,
        round_p50_ms=found.round_medians().tolist(),
        unsettled=found.unsettled,
        ours_p50_ms=own.p50_ms,
        ours_p95_ms=own.p95_ms,
        ours_round_p50_ms=own.round_medians().tolist(),
        ratio=ratio.ratio,
        ci95=ratio.interval(),
    )


def fresh_processes(peer: Served, history: Sequence[str], conditions: Conditions) -> tuple[FreshProcesses, int]:
    """Each opens the model and answers once; with the model's bytes. Raises PeerError."""
    starts, sizes, memory = [], [], []
    for _ in range(conditions.fresh):
        with peer.start() as process:
            sizes.append(int(process.ask("open", **peer.opens)["size_bytes"]))
            answer = process.ask("recommend", history=list(history), k=conditions.k)
            starts.append((answer["answered_ns"] - process.started_ns) / 1e6)
            memory.append(answer["rss_mb"])
    found = FreshProcesses(
        cold_start_ms=statistics.median(starts),
        rss_mb=statistics.median(memory),
        cold_start_ms_runs=starts,
        rss_mb_runs=memory,
    )
    return found, sizes[0]


def _latency(blocks: Sequence[Mapping[str, Any]]) -> Latency:
    rounds = np.repeat(np.arange(len(blocks)), [len(block["ms"]) for block in blocks])
    samples = np.concatenate([np.array(block["ms"], np.float64) for block in blocks])
    return Latency(samples, rounds, unsettled=sum(block["unsettled"] for block in blocks))
