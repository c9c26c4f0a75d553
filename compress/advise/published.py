"""What was measured, for rules to lean on: the shipped recipes' published results, and findings of docs/LOG.md."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.result import LatencyRow, Model, Result
from benchmarks.tables import RESULTS
from compress.recipe import Recipe

SHIPPED = Path(__file__).parents[2] / "recipes"

FINDINGS = {
    "encoder": "a step of 32 texts takes MiniLM .66 CPU s, SmolLM2-135M 3.6 with LoRA",
    "sparse": "ids with frozen text .0494, ids alone .046",
    "dense": "the three mixed .1356; the gate (control-text .1334) passes, where each alone fails",
    "frozen": "Frozen text is the control to beat.",
    "history": "a short history (50: .123, 20: .127, 10: .124)",
    "source": "one block .1636 on validation with the source stage and .1581 without",
    "unordered": "a source without order teaches nothing that can be told from chance",
    "sampled": "with the batch's targets and 512 sampled negatives an epoch takes 19 s",
    "int8": "INT8 pays from about 100,000 items",
    "trees": "boosted trees over twelve plain features .735 / .690",
    "liked": "the liked fraction of a row's own history, untrained, .726 on films and .699 on books",
}
"""Sentences of docs/LOG.md, word for word: a test looks each of them up there."""


def finding(name: str) -> str:
    """A finding as a reason quotes it."""
    return f"docs/LOG.md: {FINDINGS[name]}"


@dataclass(frozen=True)
class Published:
    """Results that ship with the code, each with its recipe as it is now."""

    runs: Sequence[tuple[Result, Recipe]]

    @classmethod
    def load(cls) -> "Published":
        """Every `benchmarks/results/RECIPE.json` of a shipped recipe that ranks a catalogue."""
        from compress.pipeline import STAGES
        from compress.recipe_file import load_recipe

        runs = []
        for path in sorted(RESULTS.glob("*.json")):
            recipe = SHIPPED / f"{path.stem}.yaml"
            if recipe.is_file():
                content = json.loads(path.read_text("utf-8"))
                if isinstance(content, list):  # one result per draw of like/dislike rows
                    continue
                result = Result.model_validate(content)
                if result.protocol.split != "published":
                    runs.append((result, load_recipe(recipe, STAGES)))
        return cls(runs)

    def small_models(self, precision: str) -> Iterator[tuple[Result, Model, LatencyRow]]:
        """Students and controls of one quantizer (or fp32), first seed, each with its row on the CPU."""
        for result, _ in self.runs:
            for model in result.models:
                if model.role not in ("student", "control") or not model.name.endswith(f"-{precision}") or model.seed:
                    continue
                if model.served is not None:
                    yield result, model, model.served

    @cached_property
    def gates(self) -> str:
        """The published teachers and controls on validation, as a reason says it (the LM alone, if measured)."""
        told = []
        for result, _ in self.runs:
            if result.gate is None:
                continue
            alone = [model.accuracy.valid.ndcg_10 or 0.0 for model in result.models if model.variant == "teacher-lm"]
            told.append(
                f"{result.recipe}, {result.dataset.interactions / result.dataset.items:.0f} events an item: "
                + (f"LM alone {fmean(alone):.4f}, " if alone else "")
                + f"teacher {result.gate.teacher_valid:.4f}, control {result.gate.control_valid:.4f}"
            )
        return "; ".join(told)

    def int8(self) -> tuple[float, float] | None:
        """Median over published models of (bytes, p50) of `int8_per_row` over those of fp32; None without any."""
        pairs = {
            (result.recipe, model.variant): (model.size_bytes, row.p50_ms)
            for result, model, row in self.small_models("fp32")
        }
        ratios = [
            (model.size_bytes / size, row.p50_ms / p50)
            for result, model, row in self.small_models("int8_per_row")
            for size, p50 in [pairs.get((result.recipe, model.variant), (None, 0.0))]
            if size and model.size_bytes
        ]
        return (float(np.median([s for s, _ in ratios])), float(np.median([p for _, p in ratios]))) if ratios else None

    @property
    def machine(self) -> str:
        """The CPUs of the published runs."""
        return ", ".join(dict.fromkeys(result.machine.cpu for result, _ in self.runs))
