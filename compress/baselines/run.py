"""The stage `baselines`: each model's settings are chosen on validation, its answers kept for every set."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, TypeAdapter, field_validator

from benchmarks.accuracy import ndcg, ranks_of
from compress.accuracy import DEPTH
from compress.baselines.models import Baseline, Ease, Popularity, RecentPopularity, Trial
from compress.data.dataset import SETS, Dataset
from compress.models.mix import ItemBias, ItemItem
from compress.stage import Inputs, RunOptions, StageConfig
from compress.training import top_of_cases

BASELINE: TypeAdapter[Baseline] = TypeAdapter(Baseline)


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
    """Writes `<name>.npz` (`<set>_top` int32 (cases, min(n, 1000))) per model, and `baselines.json`."""
    data = Dataset.open(inputs["data"])
    valid = data.cases("valid")
    report = {}
    for model in config.models:
        started = time.perf_counter()
        best: Trial | None = None
        best_value, trials = -1.0, []
        for trial in options.progress(model.trials(data), model.name, None):
            value = float(ndcg(ranks_of(top_of_cases(trial.model, valid, 10), valid.targets), 10).mean())
            trials.append({"settings": trial.settings, "valid_ndcg@10": value})
            if value > best_value:
                best, best_value = trial, value
        if best is None:
            raise ValueError(f"{model.name} tried nothing")
        tops = {f"{name}_top": top_of_cases(best.model, data.cases(name), DEPTH) for name in SETS}
        np.savez(out / f"{model.name}.npz", **tops)  # type: ignore[arg-type]  # numpy types **arrays as a bool
        options.log(
            f"{model.name}: valid ndcg@10 {best_value:.4f} with {best.settings or 'no settings'} "
            f"({time.perf_counter() - started:.1f} s)"
        )
        report[model.name] = {
            "entry": model.model_dump(mode="json"),
            "settings": best.settings,
            "params": best.params,
            "valid_ndcg@10": best_value,
            "trials": trials,
        }
    (out / "baselines.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")


def fitted(name: str, report: Mapping[str, Any], data: Dataset) -> ItemItem | ItemBias:
    """The model of `baselines.json` once more, with the settings that validation chose."""
    entry = BASELINE.validate_python(report[name]["entry"])
    return next(iter(entry.at(report[name]["settings"]).trials(data))).model
