"""`slimrec plan`: what a run would find and what it would build, before any work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.result import Result
from benchmarks.tables import RESULTS
from compress.chain import Chain
from compress.pipeline import AFTER_GATE, Step, gate_of, selected, step_inputs, steps
from compress.recipe import Recipe
from compress.store import Artifact, Store, artifact_key, config_digest


@dataclass(frozen=True)
class PlannedStep:
    """`state` is sealed, to run, waits (an input is not there yet, so that its key is not known), or left out (its
    teacher failed the gate, or nothing was selected)."""

    title: str
    state: Literal["sealed", "to run", "waits", "left out"]
    seconds: float | None
    peak_rss_mb: float | None


def plan(recipe: Recipe, store: Store) -> Iterator[PlannedStep]:
    """What a run would find and what it would build.

    Seconds and memory are those of the sealed step; else of the last one of equal config in this store, of the shipped
    recipe's published run, or of the last of any config.
    """
    artifacts: dict[tuple[str, Chain | None], Artifact] = {}
    past, published = store.past(), published_costs(recipe.name)
    chains = 0
    for step in steps(recipe):
        if _is_left_out(step, recipe, artifacts):
            yield PlannedStep(step.title, "left out", 0.0, 0.0)
            continue
        chains += step.stage.name == "quantize"
        try:
            inputs = step_inputs(step, artifacts)
        except KeyError:
            inputs = None
        if inputs is not None and "quantize" in step.stage.inputs:
            inputs = inputs if sum(name.startswith("quantize/") for name in inputs) == chains else None
        found = None
        if inputs is not None:
            key = artifact_key(step.stage, step.config, {name: a.digest for name, a in inputs.items()})
            found = store.find(step.stage, key)
        if found is not None:
            artifacts[step.stage.name, step.chain] = found
            yield PlannedStep(step.title, "sealed", found.seconds, found.peak_rss_mb)
        else:
            like = past.get(step.stage.name, {})
            known = published.get((step.stage.name, None if step.chain is None else step.chain.variant))
            before = like.get(config_digest(step.config)) or known or like.get("")
            state: Literal["waits", "to run"] = "waits" if inputs is None else "to run"
            yield PlannedStep(step.title, state, before and before[0], before and before[1])


def published_costs(recipe: str) -> dict[tuple[str, str | None], tuple[float, float]]:
    """(stage, variant) -> (seconds, peak MB) where a shipped recipe was last measured; empty for other recipes."""
    table = RESULTS / f"{recipe}.json"
    if not table.is_file():
        return {}
    stages = Result.model_validate_json(table.read_text("utf-8")).stages
    return {(s.name, s.variant): (s.seconds, s.peak_rss_mb or 0.0) for s in stages}


def _is_left_out(step: Step, recipe: Recipe, artifacts: Mapping[tuple[str, Chain | None], Artifact]) -> bool:
    """Whether a run would skip the step, as far as what is sealed tells."""
    try:
        if step.chain is not None and step.chain.role == "student" and step.stage.name in AFTER_GATE:
            return not gate_of(recipe, step.chain.variant, artifacts).passed
        return step.stage.name == "pack" and selected(artifacts) is None
    except KeyError:
        return False
