"""The stage `baselines`: each model's settings are chosen on validation, its answers kept for every set."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, field_validator

from benchmarks.accuracy import auc, ndcg, ranks_of
from compress.accuracy import DEPTH
from compress.baselines.likes import LikeBaseline, LikeTask, LikeTrial
from compress.baselines.models import Baseline, Ease, Popularity, RecentPopularity, Trial
from compress.data.dataset import SETS, Dataset
from compress.likes.rows import LikeData, write_logits
from compress.models.mix import ItemBias, ItemItem
from compress.stage import Inputs, RunOptions, StageConfig
from compress.task import task_of
from compress.training import top_of_cases
from deploy.errors import UsageError

BASELINE: TypeAdapter[Baseline] = TypeAdapter(Baseline)
RANKING = ("popularity", "recent_popularity", "ease")
LIKES = ("item_mean", "liked_fraction", "recent_liked_fraction", "boosted_trees")


class BaselinesConfig(StageConfig):
    """Which models to fit on the target domain."""

    models: tuple[Baseline, ...] = Field(default=(Popularity(), RecentPopularity(), Ease()), max_length=16)

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: tuple[Baseline, ...]) -> tuple[Baseline, ...]:
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(f"each model at most once (got {', '.join(names)})")
        return models


def train_baselines(config: BaselinesConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """Writes `<name>.npz` per model and `baselines.json`: `<set>_top` int32 (cases, min(n, 1000)), or for like/dislike
    data the log-odds of a like, float32 (rows,) by split. Raises UsageError where a model does not fit the data."""
    task = task_of(inputs["data"])
    ranking = [model for model in config.models if not isinstance(model, LikeBaseline)]
    likes = [model for model in config.models if isinstance(model, LikeBaseline)]
    if wrong := ranking if task == "likes" else likes:
        known = ", ".join(LIKES if task == "likes" else RANKING)
        names = ", ".join(model.name for model in wrong)
        raise UsageError(f"baselines.models: for {task} data these exist: {known} (got {names})")
    report = _ranking_report(ranking, inputs["data"], out, options)
    report |= _like_report(likes, config.seed, inputs["data"], out, options)
    (out / "baselines.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")


def _ranking_report(
    models: Sequence[Popularity | RecentPopularity | Ease], folder: Path, out: Path, options: RunOptions
) -> dict[str, Any]:
    data = Dataset.open(folder)
    valid = data.cases("valid")

    def value(trial: Trial) -> float:
        return float(ndcg(ranks_of(top_of_cases(trial.model, valid, 10), valid.targets), 10).mean())

    report: dict[str, Any] = {}
    for model in models:
        best, report[model.name] = _best(model, model.trials(data), value, "ndcg@10", options)
        tops = {f"{name}_top": top_of_cases(best.model, data.cases(name), DEPTH) for name in SETS}
        np.savez(out / f"{model.name}.npz", **tops)  # type: ignore[arg-type]  # numpy types **arrays as a bool
    return report


def _like_report(
    models: Sequence[LikeBaseline], seed: int, folder: Path, out: Path, options: RunOptions
) -> dict[str, Any]:
    if not models:
        return {}
    task = LikeTask.of(LikeData.open(folder), Dataset.open(folder), seed)
    labels = task.data["valid"].labels
    report: dict[str, Any] = {}
    for model in models:
        trials = model.like_trials(task)
        best, report[model.name] = _best(model, trials, lambda trial: auc(trial.valid, labels) or 0.0, "auc", options)
        write_logits(out / f"{model.name}.npz", best.logits())
    return report


AnyTrial = TypeVar("AnyTrial", Trial, LikeTrial)


def _best(
    model: Baseline, trials: Iterator[AnyTrial], value: Callable[[AnyTrial], float], metric: str, options: RunOptions
) -> tuple[AnyTrial, dict[str, Any]]:
    """The trial of highest validation value, the first of equals, and the model's lines of `baselines.json`."""
    started = time.perf_counter()
    best: AnyTrial | None = None
    best_value, tried = -1.0, []
    for trial in options.progress(trials, model.name, None):
        found = value(trial)
        tried.append({"settings": trial.settings, f"valid_{metric}": found})
        if found > best_value:
            best, best_value = trial, found
    if best is None:
        raise ValueError(f"{model.name} tried nothing")
    options.log(
        f"{model.name}: valid {metric} {best_value:.4f} with {best.settings or 'no settings'} "
        f"({time.perf_counter() - started:.1f} s)"
    )
    facts = {"entry": model.model_dump(mode="json"), "settings": best.settings, "params": best.params}
    return best, {**facts, f"valid_{metric}": best_value, "trials": tried}


def fitted(name: str, report: Mapping[str, Any], data: Dataset) -> ItemItem | ItemBias:
    """The model of `baselines.json` once more, with the settings that validation chose."""
    entry = BASELINE.validate_python(report[name]["entry"])
    if isinstance(entry, LikeBaseline):
        raise TypeError(f"{name} answers rows and ranks nothing")
    return next(iter(entry.at(report[name]["settings"]).trials(data))).model
