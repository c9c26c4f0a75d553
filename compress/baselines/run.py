"""The stage `baselines`: each model's settings are chosen on validation, its answers kept for every set."""

import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from benchmarks.accuracy import ndcg, ranks_of, top_rows
from compress.baselines.models import Baseline, Ease, Popularity, RecentPopularity, Score, Trial
from compress.data.dataset import SETS, Cases, Dataset
from compress.stage import Inputs, RunOptions, StageConfig

DEPTH = 1000
_CHUNK_SCORES = 8_000_000  # scores alive at once: 32 MB


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
            value = valid_ndcg(trial.score, valid)
            trials.append({"settings": trial.settings, "valid_ndcg@10": value})
            if value > best_value:
                best, best_value = trial, value
        if best is None:
            raise ValueError(f"{model.name} tried nothing")
        tops = {f"{name}_top": answers(best.score, data.cases(name)) for name in SETS}
        np.savez(out / f"{model.name}.npz", **tops)  # type: ignore[arg-type]  # numpy types **arrays as a bool
        options.log(
            f"{model.name}: valid ndcg@10 {best_value:.4f} with {best.settings or 'no settings'} "
            f"({time.perf_counter() - started:.1f} s)"
        )
        report[model.name] = {
            "settings": best.settings,
            "params": best.params,
            "valid_ndcg@10": best_value,
            "trials": trials,
        }
    (out / "baselines.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")


def valid_ndcg(score: Score, cases: Cases) -> float:
    """Mean NDCG@10 over the cases, the full catalogue ranked, seen items excluded; 0 without cases."""
    return float(ndcg(ranks_of(answers(score, cases, 10), cases.targets), 10).mean()) if len(cases) else 0.0


def answers(score: Score, cases: Cases, depth: int = DEPTH) -> NDArray[np.int32]:
    """Rows best first, seen items excluded: int32 (cases, min(n_items, depth)), 0 where nothing is left."""
    probe = score(cases, slice(0, 0))
    seen, step = cases.seen, max(1, _CHUNK_SCORES // probe.shape[1])
    parts = [np.empty((0, min(depth, probe.shape[1] - 1)), dtype=np.int32)]
    for start in range(0, len(cases), step):
        part = slice(start, start + step)
        parts.append(top_rows(score(cases, part), seen[part], depth))
    return np.concatenate(parts)
