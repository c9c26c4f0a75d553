"""How long a recipe will take, from the stages of published runs: a rate per unit of work, carried over."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compress.advise.published import Published
from compress.chain import Role
from compress.distil.distil import DistilConfig
from compress.distil.text import TextStudent
from compress.recipe import Recipe
from compress.stage import StageConfig
from compress.teacher.transfer import SourceConfig, TargetConfig
from compress.teacher.two_level import TwoLevel
from compress.training import Training
from compress.training.softmax import SampledSoftmax


@dataclass(frozen=True)
class Work:
    """A stage of one chain: its kind, how many units it works off, and how many items one unit scores against."""

    kind: str
    units: float
    items: float


@dataclass(frozen=True)
class Size:
    """Events and items of the domains `target` and `source`."""

    target: tuple[int, int]
    source: tuple[int, int] = (0, 0)


def seconds(recipe: Recipe, size: Size, published: Published) -> float | None:
    """The training time to expect, in seconds on the published runs' machines; None where they say too little.

    A stage's rate per unit grows along a straight line with the items scored, through the published rates. What ran
    before under equal keys is not counted twice.
    """
    rates = _rates(published)
    total = 0.0
    for work in works(recipe, size):
        points = rates.get(work.kind)
        if not points:
            return None
        total += work.units * _at(points, work.items)
    return total


def works(recipe: Recipe, size: Size) -> Iterator[Work]:
    """The trainings of a recipe, those of equal configs once, per seed."""
    seen = set()
    for variant in recipe.variants:
        for seed in recipe.seeds:
            upstream: list[str] = []
            for stage, config in variant.configs.items():
                upstream.append(config.model_dump_json())
                key = (stage, seed, *upstream, variant.teachers)
                work = _work(stage, config, variant.role, size)
                if work is not None and key not in seen and not (variant.teachers and stage in ("source", "target")):
                    seen.add(key)
                    yield work


def _work(stage: str, config: StageConfig, role: Role, size: Size) -> Work | None:
    events, items = size.target
    if isinstance(config, SourceConfig | TargetConfig) and isinstance(config.method, TwoLevel):
        events, items = size.source if isinstance(config, SourceConfig) else size.target
        return _trained("teacher", config.method.training, config.method.max_history, events, items)
    if isinstance(config, DistilConfig):
        if isinstance(config.student, TextStudent):
            return Work("text", config.student.training.epochs * (items + size.source[1]), 0)
        if role in ("control", "student") and hasattr(config.student, "max_history"):
            return _trained("student", config.training, config.student.max_history, events, items)
    if stage == "pretrain" and getattr(getattr(config, "objective", None), "name", "none") != "none":
        return Work("pretrain", items + size.source[1], 0)
    return None


def _trained(kind: str, training: Training, length: int, events: int, items: int) -> Work:
    scored = items
    if isinstance(training.softmax, SampledSoftmax):
        scored = min(items, training.softmax.negatives + training.batch_size * length)
    return Work(kind, training.epochs * events, scored)


def _rates(published: Published) -> dict[str, list[tuple[float, float]]]:
    """kind -> (items scored, seconds per unit) of every published training."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for result, recipe in published.runs:
        size = Size((result.dataset.interactions, result.dataset.items))
        variants = {variant.name: variant for variant in recipe.variants}
        for row in result.stages:
            variant = variants.get(row.variant or "")
            config = variant.configs.get(row.name) if variant else None
            if variant is None or config is None or isinstance(config, SourceConfig):
                continue  # a source's size is not in the result
            work = _work(row.name, config, variant.role, size)
            if work is not None and work.units and row.seconds > 1:
                found[work.kind].append((work.items, row.seconds / work.units))
    return found


def _at(points: list[tuple[float, float]], items: float) -> float:
    """The rate at `items`: on the line through the points where it rises, else their mean."""
    known = [items for items, _ in points]
    rates = [rate for _, rate in points]
    slope, start = np.polyfit(known, rates, 1) if len(set(known)) > 1 else (0.0, float(np.mean(rates)))
    if slope <= 0:
        return float(np.mean(rates))
    return float(max(start + slope * items, min(rates)))
