"""Answers on every set of cases -> the accuracy section of `result.json`, the same for baselines, files and graphs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ranks_of, summarise
from compress.chain import gathered
from compress.data.dataset import SETS, Cases, CaseSet, Dataset
from compress.models.folder import read_json
from compress.stage import Inputs

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


def _written(tops: Mapping[CaseSet, NDArray[np.int32]]) -> Answer:
    """Answers that were written down before, by set."""
    return lambda name, _cases: tops.get(name)


def baseline_rows(folder: Path, dataset: Dataset) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.int32]]]:
    """The baselines' answers as rows of the same form. They are references: nothing of them is exported or timed."""
    rows: list[dict[str, Any]] = []
    ranks: dict[str, NDArray[np.int32]] = {}
    for name, facts in read_json(folder / "baselines.json").items():
        with np.load(folder / f"{name}.npz", allow_pickle=False) as tops:
            kept = {set_name: tops[f"{set_name}_top"] for set_name in SETS}
        accuracy, found = accuracy_of(_written(kept), dataset)
        ranks |= {f"{name}/{cases}": values for cases, values in found.items()}
        row = {"name": name, "role": "baseline", "variant": name, "seed": None, "precision": "fp32"}
        rows.append(
            {**row, "accuracy": accuracy, "params": facts["params"], "size_bytes": 4 * facts["params"], "latency": []}
        )
    return rows, ranks


def given_rows(
    inputs: Inputs, dataset: Dataset, not_measured: list[dict[str, str]]
) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.int32]]]:
    """Rows of the teachers that are answers in files, and in `not_measured` what files cannot tell."""
    rows: list[dict[str, Any]] = []
    ranks: dict[str, NDArray[np.int32]] = {}
    for chain, folder in gathered(inputs, "prune"):
        if not (folder / "answers.npz").exists():
            continue
        why = "its answers were given as files: there is no model to run"
        not_measured.append({"what": f"latency, memory and size of {chain.role} {chain.name}", "why": why})
        with np.load(folder / "answers.npz", allow_pickle=False) as tops:
            kept = {name: tops[f"{name}_top"] for name in SETS if f"{name}_top" in tops.files}
        for name in ("valid", "test"):
            if len(dataset.cases(name)) and name not in kept:
                judged = read_json(folder / "metrics.json")["coverage"][name]
                why = f"its answers cover {judged['judged']} of {judged['cases']} {name} cases"
                not_measured.append({"what": f"accuracy of {chain.role} {chain.name} on {name}", "why": why})
        if "valid" not in kept:
            continue  # what validation cannot choose has no row
        accuracy, found = accuracy_of(_written(kept), dataset)
        row = {"name": f"{chain.name}-fp32", "role": chain.role, "variant": chain.variant, "seed": chain.seed}
        ranks |= {f"{row['name']}/{cases}": values for cases, values in found.items()}
        rows.append({**row, "precision": "fp32", "accuracy": accuracy, "latency": []})
    return rows, ranks
