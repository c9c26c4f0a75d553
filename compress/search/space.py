"""What a search may change: dotted paths below `distil` and `prune` of one variant, each a list of choices or a range.

The teacher is not searched: the gate judges it once, for all trials. Quantizers need no search: every precision of
every candidate is measured.
"""

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from compress.explain import explain
from compress.stage import Stage, StageConfig

if TYPE_CHECKING:
    from compress.recipe import Variant

SEARCHED = ("distil", "prune")
FIXED = {"seed": "comes from `seeds` at the top of the recipe", "domain": "trials of one search share their domain"}
LISTED = 100  # whole numbers of a range that are all tried against the config
COMBINED = 1000  # combinations of values that are tried against the configs


def _number(value: Any) -> Any:
    if isinstance(value, str):  # YAML 1.1 reads 5e-4 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[Any, BeforeValidator(_number)]


class Range(BaseModel):
    """From `low` to `high`, both included; whole numbers where all that is written is whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @property
    def whole(self) -> bool:
        return all(isinstance(value, int) for value in (self.low, self.high, self.step) if value is not None)

    @property
    def values(self) -> tuple[Any, ...]:
        """Every value of a short range of whole numbers, else both ends."""
        if self.whole and (self.high - self.low) // (self.step or 1) < LISTED:
            return tuple(range(self.low, self.high + 1, self.step or 1))
        return self.low, self.high

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 where log is true")
        if self.step is not None:
            if self.log:
                raise ValueError("step and log exclude each other")
            steps = (self.high - self.low) / self.step if self.step > 0 else 0.0
            if steps < 1 or not math.isclose(steps, round(steps)):
                raise ValueError("step must divide high - low")
        return self


class Choices(BaseModel):
    """One of several values, each of which replaces its field whole."""

    model_config = ConfigDict(frozen=True)
    values: tuple[Any, ...]


Dimension = Choices | Range


class SearchConfig(BaseModel):
    """The section as written. A trial is stopped after `distil` where it validates `stop_margin` (relative) below the
    median of finished trials that are no larger; null: never."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    of: str
    trials: Annotated[int, Field(ge=1, le=1000)] = 12
    startup_trials: PositiveInt = 4  # drawn at random before the sampler learns from what it was told
    stop_margin: Annotated[float, Field(ge=0.0, lt=1.0)] | None = 0.05
    space: Annotated[dict[str, Any], Field(min_length=1)]


@dataclass(frozen=True)
class Search:
    """A checked section: `of` is the variant that trials change, `space` its dimensions by path."""

    config: SearchConfig
    of: "Variant"
    space: Mapping[str, Dimension]

    def trial_name(self, number: int) -> str:
        return f"{self.of.name}-t{number}"

    def trial(self, number: int, chosen: Mapping[str, Any]) -> "Variant":
        """The variant of a trial, counted from 1. Raises pydantic's ValidationError for values that do not fit."""
        return replace(self.of, name=self.trial_name(number), configs=changed(self.of.configs, chosen))


def changed(configs: Mapping[str, StageConfig], chosen: Mapping[str, Any]) -> dict[str, StageConfig]:
    """Configs by stage with the values at `chosen`'s paths in place of their own."""
    new = {stage: type(configs[stage]).model_validate(_overlaid(configs, stage, chosen)) for stage in _stages(chosen)}
    return {**configs, **new}


def _stages(chosen: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(path.partition(".")[0] for path in chosen))


def _overlaid(configs: Mapping[str, StageConfig], stage: str, chosen: Mapping[str, Any]) -> Any:
    values: Any = configs[stage].model_dump()
    for path, value in chosen.items():
        name, *fields = path.split(".")
        values = _with(values, fields, value) if name == stage else values
    return values


def _with(value: Any, fields: Sequence[str], new: Any) -> Any:
    if not fields:
        return new
    below = value if isinstance(value, dict) else {}
    return {**below, fields[0]: _with(below.get(fields[0]), fields[1:], new)}


def read_search(raw: Any, variants: Sequence["Variant"], stages: Sequence[Stage]) -> tuple[Search | None, list[str]]:
    """The section as given -> (search, mistakes); the search is None where there are mistakes."""
    try:
        config = SearchConfig.model_validate(raw)
    except ValidationError as error:
        mistakes = [(path, message) for path, message in explain(error, SearchConfig, raw)]
        return None, [f"{'.'.join(['search', *map(str, path)])}: {message}" for path, message in mistakes]
    allowed = [variant.name for variant in variants if variant.role in ("student", "control")]
    of = next((variant for variant in variants if variant.name == config.of and config.of in allowed), None)
    if of is None:
        given = ", ".join(allowed)
        return None, [f"search.of: no such student or control; allowed: {given} (got {config.of!r})"]
    space: dict[str, Dimension] = {}
    search = Search(config, of, space)
    names = [search.trial_name(number) for number in range(1, config.trials + 1)]
    errors = [f"variants.{v.name}: this name is a trial's; choose another" for v in variants if v.name in names]
    for path, given in config.space.items():
        errors += _path_mistakes(path, config.space, stages) or _read_dimension(path, given, of, space)
    errors = errors or list(_misfits(search))
    return (None, errors) if errors else (search, [])


def _path_mistakes(path: str, every: Mapping[str, Any], stages: Sequence[Stage]) -> list[str]:
    where = f"search.space.{path}"
    stage, _, field = path.partition(".")
    if stage == "quantize":
        return [f"{where}: quantizers need no search; list them in quantize, every precision is measured"]
    if stage not in SEARCHED:
        known = stage in [each.name for each in stages]
        what = "this stage is not searched" if known else "unknown stage"
        return [f"{where}: {what}; allowed: {', '.join(SEARCHED)}"]
    if not field:
        return [f"{where}: name a field of {stage}, such as search.space.{stage}.FIELD"]
    if field in FIXED:
        return [f"{where}: {FIXED[field]}"]
    above = [other for other in every if path.startswith(f"{other}.")]
    return [f"{where}: lies below search.space.{above[0]}, which replaces it; keep one of the two"] if above else []


def _read_dimension(path: str, given: Any, of: "Variant", space: dict[str, Dimension]) -> list[str]:
    """Adds to `space` what was given for a path; returns what is wrong with it."""
    where = f"search.space.{path}"
    if isinstance(given, list):
        if not given or any(value in given[:index] for index, value in enumerate(given)):
            return [f"{where}: list different choices, at least one (got {given!r})"]
        dimension: Dimension = Choices(values=tuple(given))
    elif isinstance(given, dict):
        try:
            dimension = Range.model_validate(given)
        except ValidationError as error:
            found = explain(error, Range, given)
            return [f"{'.'.join([where, *map(str, at)])}: {message}" for at, message in found]
    else:
        return [f"{where}: a list of choices, or a range {{low, high}} (got {given!r})"]
    space[path] = dimension
    mistakes: dict[str, None] = {}
    for value in dimension.values:
        mistakes |= dict.fromkeys(_refused(of, {path: value}))
    return list(mistakes)


def _misfits(search: Search) -> Iterator[str]:
    """The first combination of values that a config refuses although it takes each alone, where there are few enough
    to try them all; of more, a run stops at the one that is proposed."""
    values = [dimension.values for dimension in search.space.values()]
    if math.prod(map(len, values)) > COMBINED:
        return
    for chosen in itertools.product(*values):
        if mistakes := list(_refused(search.of, dict(zip(search.space, chosen, strict=True)), True)):
            yield mistakes[0]
            return


def _refused(of: "Variant", chosen: Mapping[str, Any], together: bool = False) -> Iterator[str]:
    """What the configs of a variant have against values; of how they fit `together` only where asked."""
    told = ", ".join(f"{path}={value!r}" for path, value in chosen.items())
    for stage in _stages(chosen):
        values = _overlaid(of.configs, stage, chosen)
        try:
            type(of.configs[stage]).model_validate(values)
        except ValidationError as error:
            for at, message in explain(error, type(of.configs[stage]), values):
                place = ".".join([stage, *map(str, at)])
                if any(place == path or place.startswith(f"{path}.") for path in chosen):
                    yield f"search.space.{place}: {message}"
                elif together:
                    yield f"search.space: {told}: {place}: {message.partition(' (got {')[0]}"
