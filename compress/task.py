"""What a data set asks of a model: the best items of a catalogue, or whether a user will like one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from compress.models.folder import read_json

Task = Literal["ranking", "likes"]
METRIC: Mapping[Task, str] = {"ranking": "ndcg@10", "likes": "auc"}
"""What validation chooses by, the gate asks for and a result leads with."""


def task_of(data: Path) -> Task:
    """The task of a `data` artifact."""
    task: Task = read_json(data / "dataset.json").get("task", "ranking")
    return task
