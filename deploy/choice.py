"""Which of a bundle's graphs is the fastest on this machine, among those that are no worse than the chosen one."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict

from deploy.errors import GateError
from deploy.manifest import EVIDENCE, parse_record
from deploy.runtime import Recommender

ROUNDS, CALLS = 5, 10
MARGIN = 0.05
"""A graph must be this much faster than the bundle's default to be taken in its place: noise must not choose."""


class _Row(BaseModel):
    """What the choice reads of a measured model."""

    model_config = ConfigDict(extra="ignore")

    name: str
    precision: str
    accuracy: Mapping[str, Any]


class _Evidence(BaseModel):
    model_config = ConfigDict(extra="ignore")

    chosen: str | None = None
    models: list[_Row] = []


def fastest(recommender: Recommender) -> Recommender:
    """`recommender`, which has passed its self-test, or the same bundle answered by a graph that is faster here.

    Asked are fp32 and what validated at least as well as the bundle's default: no accuracy is given up for speed that
    the packing did not give up. Each must answer its golden cases; all are timed in turns on their histories, batch 1.
    """
    candidates = [recommender]
    for precision in _no_worse(recommender):
        other = recommender.with_precision(precision)
        try:
            other.self_test()
        except GateError:
            continue
        candidates.append(other)
    if len(candidates) == 1:
        return recommender
    times: list[list[float]] = [[] for _ in candidates]
    for _ in range(ROUNDS):
        for candidate, found in zip(candidates, times, strict=True):
            found.append(_seconds(candidate))
    seconds = [median(found) for found in times]
    best = min(range(len(candidates)), key=seconds.__getitem__)
    return candidates[best] if seconds[best] < (1 - MARGIN) * seconds[0] else recommender


def _seconds(recommender: Recommender) -> float:
    histories = recommender.golden_histories
    start = time.perf_counter()
    for call in range(CALLS):
        recommender.recommend(histories[call % len(histories)])
    return time.perf_counter() - start


def _no_worse(recommender: Recommender) -> list[str]:
    """The bundle's other precisions that may stand in for the one at hand."""
    evidence = parse_record(_Evidence, recommender.bundle.read(EVIDENCE), EVIDENCE)
    chosen = next((_valid(row) for row in evidence.models if row.name == evidence.chosen), 0.0)
    others = [name for name in recommender.bundle.manifest.model.precisions if name != recommender.precision]

    def may(precision: str) -> bool:
        found = [_valid(row) for row in evidence.models if row.precision == precision]
        return precision == "fp32" or max(found, default=0.0) >= chosen > 0.0

    return sorted(filter(may, others))


def _valid(row: _Row) -> float:
    """The leading metric on validation: AUC of like/dislike data, NDCG@10 else."""
    found = row.accuracy.get("valid") or {}
    value = found.get("auc")
    return float(value if value is not None else found.get("ndcg@10") or 0.0)
