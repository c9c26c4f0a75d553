"""What a data set asks of a model: the best items of a catalogue, or whether a user will like one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from compress.models.folder import read_json

Task = Literal["ranking", "likes"]
METRIC: Mapping[Task, str] = {"ranking": "ndcg@10", "likes": "auc"}
"""What validation chooses by, the gate asks for and a result leads with."""
EVIDENCE: Mapping[str, str] = {"ndcg@10": "ranks.npz", "auc": "values.npz"}
"""What `bench` leaves for comparisons by it."""


def task_of(data: Path) -> Task:
    """The task of a `data` artifact."""
    task: Task = read_json(data / "dataset.json").get("task", "ranking")
    return task


def metric_of(data: Path) -> str:
    """The leading metric of a `data` artifact's task."""
    return METRIC[task_of(data)]


def leading(row: Mapping[str, Any]) -> tuple[str, float]:
    """(name, value) of a measured row's leading metric on validation."""
    valid = row["accuracy"]["valid"]
    name = next(name for name in METRIC.values() if valid.get(name) is not None)
    return name, float(valid[name])


def valid_value(row: Mapping[str, Any]) -> float:
    return leading(row)[1]
