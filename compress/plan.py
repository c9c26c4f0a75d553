"""`slimrec plan`: what a run would find and what it would build, before any work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.result import Result
from benchmarks.tables import RESULTS
from compress.chain import Chain
from compress.pipeline import AFTER_GATE, Step, gate_of, selected, step_inputs, steps
from compress.recipe import Recipe
from compress.search.space import Search
from compress.search.trials import Trial, extended, front, search_trials, trial_steps
from compress.store import Artifact, Store, artifact_key, config_digest


@dataclass(frozen=True)
class PlannedStep:
    """`state` is sealed, to run, waits (an input is not there yet, so that its key is not known), or left out (its
    teacher failed the gate, or nothing was selected)."""

    title: str
    state: Literal["sealed", "to run", "waits", "left out"]
    seconds: float | None
    peak_rss_mb: float | None
    of_trial: bool = False  # of a search


def plan(recipe: Recipe, store: Store) -> Iterator[PlannedStep]:
    """What a run would find and what it would build. A search is followed as far as its trials are sealed: what it
    proposes next depends on what they gave.

    Seconds and memory are those of the sealed step; else of the last one of equal config in this store, of the shipped
    recipe's published run, or of the last of any config.
    """
    planner = _Planner(recipe, store)
    if recipe.search is None:
        yield from map(planner.step, steps(recipe))
        return
    chains = [step for step in steps(recipe) if step.stage.scope != "gather"]
    yield from map(planner.step, chains)
    yield from planner.trials(recipe.search)
    done = {(step.stage.name, step.chain) for step in chains} | planner.artifacts.keys()
    yield from (planner.step(step) for step in steps(planner.recipe) if (step.stage.name, step.chain) not in done)


class NotSealedError(Exception):
    """The search stops at a step that is to run."""


class _Planner:
    """Follows the steps of a recipe through the store."""

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe, self.store = recipe, store
        self.artifacts: dict[tuple[str, Chain | None], Artifact] = {}
        self.past, self.published = store.past(), published_costs(recipe.name)
        self.chains_left = False  # whether something of a chain is not sealed, so that nothing can be gathered yet

    def step(self, step: Step) -> PlannedStep:
        if _is_left_out(step, self.recipe, self.artifacts):
            return PlannedStep(step.title, "left out", 0.0, 0.0)
        try:
            inputs = step_inputs(step, self.artifacts)
        except KeyError:
            inputs = None
        if "quantize" in step.stage.inputs and self.chains_left:
            inputs = None
        found = None if inputs is None else self._find(step, inputs)
        if found is None:
            self.chains_left = self.chains_left or step.stage.scope == "variant"
            return self._to_come(step, "waits" if inputs is None else "to run")
        self.artifacts[step.stage.name, step.chain] = found
        return _sealed(step, found)

    def trials(self, search: Search) -> Iterator[PlannedStep]:
        """The steps of all trials. Where all are sealed, the recipe gets the variants that a run goes on with."""
        planned: list[PlannedStep] = []
        trials: list[Trial] = []

        def build(step: Step, inputs: Mapping[str, Artifact]) -> Artifact:
            found = self._find(step, inputs)
            planned.append(
                replace(self._to_come(step, "to run"), of_trial=True) if found is None else _sealed(step, found)
            )
            if found is None:
                raise NotSealedError
            return found

        like = trial_steps(self.recipe, search, search.of)
        if _is_left_out(like[0], self.recipe, self.artifacts):
            return
        try:
            for trial in search_trials(self.recipe, self.artifacts, build):
                trials.append(trial)
        except (NotSealedError, KeyError):  # or the variant's teacher is not there yet
            self.chains_left = True
            yield from planned
            told = [step.title for step in planned]
            for number in range(len(trials) + 1, search.config.trials + 1):
                variant = replace(search.of, name=search.trial_name(number))
                waiting = trial_steps(self.recipe, search, variant)
                later = [self._to_come(step, "waits") for step in waiting if step.title not in told]
                yield from (replace(step, of_trial=True) for step in later)
            return
        yield from planned
        chosen = front(trials)
        self.recipe = extended(self.recipe, chosen)
        for trial in chosen:
            self.artifacts |= {(step.stage.name, step.chain): artifact for step, artifact in trial.built}

    def _find(self, step: Step, inputs: Mapping[str, Artifact]) -> Artifact | None:
        key = artifact_key(step.stage, step.config, {name: a.digest for name, a in inputs.items()})
        return self.store.find(step.stage, key)

    def _to_come(self, step: Step, state: Literal["waits", "to run"]) -> PlannedStep:
        like = self.past.get(step.stage.name, {})
        known = self.published.get((step.stage.name, None if step.chain is None else step.chain.variant))
        before = like.get(config_digest(step.config)) or known or like.get("")
        return PlannedStep(step.title, state, before and before[0], before and before[1])


def _sealed(step: Step, found: Artifact) -> PlannedStep:
    return PlannedStep(step.title, "sealed", found.seconds, found.peak_rss_mb)


def published_items(recipe: str) -> int | None:
    """The catalogue on which a shipped recipe was last measured; None for other recipes."""
    found = _published(recipe)
    return None if found is None else found.dataset.items


def _published(recipe: str) -> Result | None:
    table = RESULTS / f"{recipe}.json"
    return Result.model_validate_json(table.read_text("utf-8")) if table.is_file() else None


def published_costs(recipe: str) -> dict[tuple[str, str | None], tuple[float, float]]:
    """(stage, variant) -> (seconds, peak MB) where a shipped recipe was last measured; empty for other recipes."""
    found = _published(recipe)
    return {(s.name, s.variant): (s.seconds, s.peak_rss_mb or 0.0) for s in found.stages} if found else {}


def _is_left_out(step: Step, recipe: Recipe, artifacts: Mapping[tuple[str, Chain | None], Artifact]) -> bool:
    """Whether a run would skip the step, as far as what is sealed tells."""
    try:
        if step.chain is not None and step.chain.role == "student" and step.stage.name in AFTER_GATE:
            return not gate_of(recipe, step.chain.variant, artifacts).passed
        return step.stage.name == "pack" and selected(artifacts) is None
    except KeyError:
        return False
