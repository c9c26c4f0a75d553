"""A search in the middle of a run: trials one after another, each an ordinary `distil` and `prune` of the store.

Nothing else is kept: a search that was killed proposes the same values again, and finds what it built.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from benchmarks import result
from compress.chain import Chain
from compress.gate import per_user
from compress.models.folder import load_scorer
from compress.pipeline import Run, Step, step_inputs, steps
from compress.quantize.quantize import count_parameters
from compress.recipe import Recipe, Variant
from compress.search.sampler import Sampler
from compress.search.space import SEARCHED, Search
from compress.store import Artifact
from compress.task import metric_of
from deploy.errors import UsageError

Artifacts = Mapping[tuple[str, Chain | None], Artifact]
Build = Callable[[Step, Mapping[str, Artifact]], Artifact]


@dataclass(frozen=True)
class Values:
    """Validation NDCG@10 (AUC for like/dislike data), to maximise, and parameters, to minimise."""

    valid: float
    parameters: int

    def dominates(self, other: "Values") -> bool:
        return self != other and self.valid >= other.valid and self.parameters <= other.parameters


@dataclass(frozen=True)
class Trial:
    """What one proposal gave. `stopped` says why there is no `pruned`."""

    variant: Variant
    chosen: Mapping[str, Any]
    built: tuple[tuple[Step, Artifact], ...]
    distilled: Values
    pruned: Values | None = None
    stopped: str | None = None


def run_search(recipe: Recipe, run: Run, build: Build, log: Callable[[str], None]) -> Recipe:
    """Run what is left of a search once all chains of the recipe are there; returns the recipe with the trials that no
    other dominates as variants. `run` gets their artifacts, the record, and what was built for the others."""
    search = recipe.search
    if search is None:
        return recipe
    gate = run.gates.get(search.of.name)
    if gate is not None and not gate.passed:
        log(f"search: no trials of {search.of.name}, whose teacher failed the gate")
        return recipe
    trials = []
    for trial in search_trials(recipe, run.artifacts, build):
        trials.append(trial)
        log(f"search {trial.variant.name}: {_told(trial)}")
    chosen = front(trials)
    log(f"search: {len(chosen)} of {len(trials)} trials go on: {', '.join(trial.variant.name for trial in chosen)}")
    run.search = _record(recipe, search, run, trials, chosen)
    for trial in trials:
        if trial not in chosen:
            run.aside += trial.built
            continue
        run.steps += [step for step, _ in trial.built]
        run.artifacts |= {(step.stage.name, step.chain): artifact for step, artifact in trial.built}
        if gate is not None:  # its teachers are those of the variant it changes
            run.gates[trial.variant.name] = gate
        if (choice := run.choices.get(search.of.name)) is not None:
            run.choices[trial.variant.name] = choice
    return extended(recipe, chosen)


def search_trials(recipe: Recipe, artifacts: Artifacts, build: Build) -> Iterator[Trial]:
    """The trials of a recipe in turn. A proposal that was made before is answered at once and is no trial of its own;
    where as many in a row as there are trials were made before, the search ends."""
    search = recipe.search
    assert search is not None
    sampler = Sampler(search.space, recipe.seeds[0], search.config.startup_trials)
    trials: list[Trial] = []
    repeats = 0
    while len(trials) < search.config.trials and repeats < search.config.trials:
        chosen = sampler.ask()
        variant = _variant(search, len(trials) + 1, chosen)
        trial = next((t for t in trials if t.variant.configs == variant.configs), None)
        repeats = 0 if trial is None else repeats + 1
        if trial is None:
            trial = _run_trial(recipe, search, variant, chosen, trials, artifacts, build)
            trials.append(trial)
            yield trial
        sampler.tell(None if trial.pruned is None else (trial.pruned.valid, trial.pruned.parameters))


def trial_steps(recipe: Recipe, search: Search, variant: Variant) -> list[Step]:
    """What a trial runs: the steps of the variant it changes, of the recipe's first seed, with its own configs. They
    read that variant's teacher."""
    seed, own = recipe.seeds[0], Chain(search.of.role, search.of.name, recipe.seeds[0])
    return [
        replace(
            step,
            chain=Chain(variant.role, variant.name, seed),
            config=variant.configs[step.stage.name].model_copy(update={"seed": seed}),
        )
        for step in steps(recipe)
        if step.chain == own and step.stage.name in SEARCHED
    ]


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Finished trials that no other dominates; of equal ones the first."""
    found: list[Trial] = []
    values = [trial.pruned for trial in trials if trial.pruned is not None]
    for trial in trials:
        own = trial.pruned
        if own is None or any(other.dominates(own) for other in values) or own in [t.pruned for t in found]:
            continue
        found.append(trial)
    return found


def reason_to_stop(search: Search, distilled: Values, finished: Sequence[Values]) -> str | None:
    """Why a trial ends after `distil`, in words: it validates below the median of the finished trials that were no
    larger then, by more than the margin. None before `startup_trials` have finished.

    By hand, after Golovin et al., Google Vizier (KDD 2017), section 3.2.2: Optuna's pruners know one objective only.
    Larger trials are left out of the median, or no small student would ever be finished.
    """
    margin, fair = search.config.stop_margin, [v.valid for v in finished if v.parameters <= distilled.parameters]
    if margin is None or len(finished) < search.config.startup_trials or not fair:
        return None
    median = statistics.median(fair)
    if distilled.valid >= median * (1 - margin):
        return None
    return f"validation {distilled.valid:.4f} after distil, median of trials no larger {median:.4f}"


def extended(recipe: Recipe, trials: Sequence[Trial]) -> Recipe:
    """The recipe with trials as variants, which run in all its seeds."""
    return replace(recipe, variants=(*recipe.variants, *(trial.variant for trial in trials)))


def _variant(search: Search, number: int, chosen: Mapping[str, Any]) -> Variant:
    try:
        return search.trial(number, chosen)
    except ValidationError as error:
        raise UsageError(
            f"search.space: {_written(chosen)}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        ) from error


def _run_trial(
    recipe: Recipe,
    search: Search,
    variant: Variant,
    chosen: Mapping[str, Any],
    before: Sequence[Trial],
    artifacts: Artifacts,
    build: Build,
) -> Trial:
    distil, prune = trial_steps(recipe, search, variant)
    artifact = build(distil, step_inputs(distil, artifacts))
    built = ((distil, artifact),)
    distilled = _values(artifact)
    reason = reason_to_stop(search, distilled, [trial.distilled for trial in before if trial.stopped is None])
    if reason is not None:
        return Trial(variant, chosen, built, distilled, stopped=reason)
    artifact = build(prune, step_inputs(prune, {**artifacts, ("distil", distil.chain): artifact}))
    return Trial(variant, chosen, (*built, (prune, artifact)), distilled, _values(artifact))


def _values(artifact: Artifact) -> Values:
    scorer = load_scorer(artifact.path)
    if scorer is None:
        raise UsageError("search: a trial has to rank items; a text student does not")
    return Values(float(per_user([artifact.path]).mean()), count_parameters(scorer))


def _record(
    recipe: Recipe, search: Search, run: Run, trials: Sequence[Trial], chosen: Sequence[Trial]
) -> result.Search:
    own = _values(run.artifacts["prune", Chain(search.of.role, search.of.name, recipe.seeds[0])])
    return result.Search(
        metric=metric_of(run.artifacts["data", None].path),
        of=result.Trial(name=search.of.name, valid=own.valid, params=own.parameters),
        trials=[
            result.Trial(
                name=trial.variant.name,
                chosen=dict(trial.chosen),
                valid=(trial.pruned or trial.distilled).valid,
                params=(trial.pruned or trial.distilled).parameters,
                stopped=trial.stopped,
                front=trial in chosen,
            )
            for trial in trials
        ],
    )


def _told(trial: Trial) -> str:
    given = _written(trial.chosen)
    if trial.pruned is None:
        return f"{given}: stopped, {trial.stopped}"
    return f"{given}: validation {trial.pruned.valid:.4f}, {trial.pruned.parameters} parameters"


def _written(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {f'{v:.4g}' if isinstance(v, float) else v}" for path, v in chosen.items())
