"""Answers on every set of cases -> the accuracy section of `result.json`, the same for baselines and graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ranks_of, summarise
from compress.data.dataset import SETS, Cases, CaseSet, Dataset

DEPTH = 1000
"""Answers kept per case; a target further down counts as not found."""

Answer = Callable[[CaseSet, Cases], NDArray[np.int32] | None]


def accuracy_of(answer: Answer, dataset: Dataset) -> tuple[dict[str, Any], dict[str, NDArray[np.int32]]]:
    """(metrics by set and segment, ranks (cases,) int32 by set). `answer` gives rows best first, (cases, depth), or
    None where there are none: then the set is absent."""
    accuracy: dict[str, Any] = {"segments": {}}
    ranks: dict[str, NDArray[np.int32]] = {}
    for name in SETS:
        cases = dataset.cases(name)
        top = answer(name, cases) if len(cases) else None
        if top is None:
            continue
        ranks[name] = found = ranks_of(top, cases.targets)
        if name == "cold":
            accuracy["segments"]["cold_items"] = summarise(found, top, dataset.n_items)
            continue
        accuracy[name] = summarise(found, top, dataset.n_items)
        for segment, mask in (("tail_items", cases.tail), ("short_history", cases.short)):
            if name == "test" and mask.any():
                accuracy["segments"][segment] = summarise(found[mask], top[mask], dataset.n_items)
    return accuracy, ranks
