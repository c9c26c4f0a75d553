"""Candidates over their seeds: what tables and charts have a line for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from benchmarks.result import Ci95, LatencyRow, Metrics, Model, Result, Role


@dataclass(frozen=True)
class Candidate:
    """One variant in one precision, in every seed that it was trained with. Times, bytes and memory are the first's."""

    models: tuple[Model, ...]

    @property
    def first(self) -> Model:
        return self.models[0]

    @property
    def name(self) -> str:
        return self.first.name

    @property
    def role(self) -> Role:
        return self.first.role

    @property
    def chosen(self) -> bool:
        return self.first.chosen

    @property
    def quantizer(self) -> str:
        """`fp32`, or the quantizer's name; of a baseline `fp32`."""
        return _quantizer(self.first)

    @cached_property
    def test(self) -> float | None:
        """The leading metric on test, the mean of the seeds."""
        return self.mean(lambda model: model.accuracy.test.leading)

    @cached_property
    def test_ci95(self) -> Ci95 | None:
        return self.interval(lambda model: model.accuracy.test.leading_ci95)

    def mean(self, of: Callable[[Model], float | None]) -> float | None:
        """Over the seeds; None where one lacks the number."""
        found = [value for model in self.models if (value := of(model)) is not None]
        return fmean(found) if len(found) == len(self.models) else None

    def interval(self, of: Callable[[Model], Ci95 | None]) -> Ci95 | None:
        """The seeds' intervals, their ends averaged; None where one lacks it."""
        found = [pair for model in self.models if (pair := of(model)) is not None]
        if len(found) < len(self.models):
            return None
        return fmean(low for low, _ in found), fmean(high for _, high in found)

    def latency(self, path: str = "cached") -> LatencyRow | None:
        """What headlines use: ONNX Runtime on the CPU, the smallest batch, the fewest threads."""
        rows = [row for row in self.first.latency if row.path == path and row.runtime == "onnxruntime"]
        return min(rows, key=lambda row: (row.device != "cpu", row.batch, row.threads), default=None)


def by_candidate(models: Iterable[Model]) -> list[Candidate]:
    """In order of first appearance."""
    groups: dict[tuple[str, str, str], list[Model]] = {}
    for model in models:
        groups.setdefault((model.role, model.variant, _quantizer(model)), []).append(model)
    return [Candidate(tuple(found)) for found in groups.values()]


def shipped(result: Result, candidates: Iterable[Candidate]) -> Candidate | None:
    """The one that `selected` names."""
    return next((one for one in candidates if any(model.name == result.selected for model in one.models)), None)


def best_baseline(candidates: Iterable[Candidate]) -> Candidate | None:
    """The most accurate on test of those that nothing is trained for."""
    found = [one for one in candidates if one.role == "baseline" and one.test is not None]
    return max(found, key=lambda one: one.test or 0.0, default=None)


def segment(model: Model, name: str) -> Metrics:
    """The test metrics of a segment; `test` is all of them."""
    found = model.accuracy.test if name == "test" else getattr(model.accuracy.segments, name)
    assert isinstance(found, Metrics)
    return found


def _quantizer(model: Model) -> str:
    return "fp32" if model.role == "baseline" else model.name.rpartition("-")[2]
