"""A result -> its drawings."""

from collections.abc import Sequence

from benchmarks.charts.drawing import Drawing
from benchmarks.charts.rows import Estimate, Spread, Stack, estimates, spreads, stacks
from benchmarks.charts.scatter import Spot, trade_off
from benchmarks.result import TITLES, LatencyRow, Metrics, Result, Search, StageTime, Trial
from benchmarks.seeds import Candidate, best_baseline, segment
from compress.report.words import (
    SEGMENTS,
    distinct,
    duration,
    facts,
    interval,
    leaders,
    milliseconds,
    number,
    served_path,
    standing,
)

_HOURS, _MINUTES = 7200.0, 180.0  # of the longest stage, from which a unit is used


def latency_front(result: Result, candidates: Sequence[Candidate]) -> Drawing | None:
    """Accuracy against p95; the teacher's text path is a point of its own. None where nothing was timed."""
    metric = result.metric
    path = served_path(result.models, metric)
    found = [
        (one, row, name + ("" if way == path else f", {way} path"))
        for one in candidates
        for way in (path, *(("cached",) if one.latency(path) is None else ()), "text")
        if (row := one.latency(way)) is not None
        for name in [one.name]
    ]
    spots = [_spot(result, candidates, one, row.p95_ms, label) for one, row, label in found]
    timed = {one.name for one, _, _ in found}
    best = best_baseline(candidates)
    levels = {} if best is None or best.name in timed or best.test is None else {best.name: best.test}
    limits = _limits(result, "max_p95_ms", "ms")
    shown = [spot for spot in spots if spot is not None]
    return trade_off(shown, "p95, ms", f"test {TITLES[metric]}", limits, levels) if shown else None


def size_front(result: Result, candidates: Sequence[Candidate]) -> Drawing | None:
    """Accuracy against bytes; None where no model has a size."""
    sized = [
        spot
        for one in candidates
        if one.first.size_bytes and (spot := _spot(result, candidates, one, one.first.size_bytes / 1e6, one.name))
    ]
    made = [spot for spot in sized if spot.kind != "baseline"] or sized
    lowest, highest = min((s.accuracy for s in made), default=0), max((s.accuracy for s in made), default=0)
    shown = [spot for spot in sized if spot in made or spot.accuracy > 2.5 * lowest - 1.5 * highest]
    limits = _limits(result, "max_size_mb", "MB")
    return trade_off(shown, "size, MB", f"test {TITLES[result.metric]}", limits) if shown else None


def search_front(found: Search | None) -> Drawing | None:
    """Every trial, the front among them, and the variant as the recipe has it; None without a search."""
    if found is None:
        return None
    spots = [_trial(trial, found.metric, written=False) for trial in found.trials]
    spots.append(_trial(found.of, found.metric, written=True))
    return trade_off(spots, "parameters", f"validation {TITLES[found.metric]}")


def segments(result: Result, candidates: Sequence[Candidate]) -> dict[str, Drawing]:
    """Title -> the leaders on each segment, or by each metric of likes; what was not measured is not there."""
    shown = leaders(candidates, result.selected)
    drawings = {}
    if result.metric == "auc":
        for metric, title in (("auc", "AUC over all rows"), ("uauc", "UAUC, the mean of users")):
            rows = [row for one in shown if (row := _estimate(one, "test", metric))]
            if rows:
                drawings[title] = estimates(rows, f"test {TITLES[metric]}", title)
        return drawings
    for key, title in SEGMENTS.items():
        rows = [row for one in shown if (row := _estimate(one, key, "ndcg_10"))]
        if rows:
            cases = segment(shown[0].first, key).cases
            drawings[title] = estimates(rows, "test NDCG@10" + ("" if cases is None else f", {cases} cases"), title)
    return drawings


def latencies(candidates: Sequence[Candidate]) -> Drawing | None:
    """The distribution of every timed path, the fastest first; None where nothing was timed."""
    timed = [(one, row) for one in candidates for row in one.first.latency]
    rows = [
        Spread(
            name=one.name,
            words=latency_name(one, row),
            figure=f"{milliseconds(row.p50_ms)} ms, p99 {milliseconds(row.p99_ms)}",
            kind=one.role,
            percentiles={50: row.p50_ms, 95: row.p95_ms, 99: row.p99_ms} | (row.percentiles_ms or {}),
        )
        for one, row in sorted(timed, key=lambda pair: pair[1].p50_ms)
    ]
    return spreads(rows, "milliseconds, ids to ids", "Distribution of latency by model") if rows else None


def latency_name(one: Candidate, row: LatencyRow) -> str:
    """A timed path: the model, and what is not the rule of it."""
    extras: list[str] = [f"{row.path} path"] if row.path != "cached" else []
    extras += [row.runtime] if row.runtime != "onnxruntime" else []
    extras += [row.device] if row.device != "cpu" else []
    extras += [f"{row.threads} threads"] if row.threads > 1 else []
    extras += [f"batch {row.batch}"] if row.batch > 1 else []
    return ", ".join([one.name, *extras])


def comparisons(result: Result) -> Drawing | None:
    """Paired differences around zero; None where nothing was compared."""
    kinds = {"better": "good", "worse": "bad"}
    several = len({item.metric for item in result.comparisons}) > 1
    rows = [
        Estimate(
            name="",
            words=f"{item.a} − {item.b}" + (f", {item.segment.replace('_', ' ')}" if item.segment else ""),  # noqa: RUF001
            figure=f"{standing(item)} {item.difference:+.4f}" + (f" {TITLES[item.metric]}" if several else ""),
            kind=kinds.get(standing(item), "soft"),
            value=item.difference,
            ci95=item.ci95,
            shape="circle",
        )
        for item in result.comparisons
    ]
    return estimates(rows, "difference on test", "Paired differences between models", zero=True) if rows else None


def stage_times(stages: Sequence[StageTime]) -> Drawing | None:
    """Seconds per stage in the order of the run, what was computed now before what the store had; None without."""
    by_stage: dict[str, list[StageTime]] = {}
    for stage in distinct(stages):
        by_stage.setdefault(stage.name, []).append(stage)
    if not by_stage:
        return None
    longest = max(sum(stage.seconds for stage in found) for found in by_stage.values())
    unit, scale = ("hours", 3600.0) if longest >= _HOURS else ("minutes", 60.0) if longest >= _MINUTES else ("s", 1.0)
    rows = []
    for name, found in by_stage.items():
        peak = max((stage.peak_rss_mb for stage in found if stage.peak_rss_mb is not None), default=None)
        spent = [(stage.seconds, "soft" if stage.cached else "now") for stage in found if stage.seconds > 0]
        figure = duration(sum(stage.seconds for stage in found)) + ("" if peak is None else f", {peak / 1e3:.1f} GB")
        ordered = sorted(spent, key=lambda pair: pair[1] == "soft")
        rows.append(Stack(name="", words=name, figure=figure, kind="now", amounts=ordered))
    return stacks(rows, unit, "Time and peak memory per stage", scale)


def _spot(result: Result, candidates: Sequence[Candidate], one: Candidate, cost: float, label: str) -> Spot | None:
    if one.test is None or cost <= 0:
        return None
    metric, shown = result.metric, leaders(candidates, result.selected)
    return Spot(
        name=one.name,
        words=f"{label}: {'; '.join(facts(one, metric, served_path(result.models, metric)))}",
        kind=one.role,
        cost=cost,
        accuracy=one.test,
        ci95=one.test_ci95,
        label=label if one in shown else "",
        ringed=any(model.name == result.selected for model in one.models),
        faint=one not in shown,
    )


def _trial(trial: Trial, metric: str, written: bool) -> Spot:
    chosen = "; ".join(f"{path} {value}" for path, value in trial.chosen.items())
    state = "as written" if written else "on the front" if trial.front else trial.stopped or "finished"
    return Spot(
        name=f"{trial.name}-fp32",
        words=f"{trial.name}, {state}: {TITLES[metric]} {number(trial.valid)}, {trial.params:,} parameters; {chosen}",
        kind="control" if written else "student" if trial.front else "baseline",
        cost=trial.params,
        accuracy=trial.valid,
        label=trial.name if trial.front or written else "",
        faint=trial.stopped is not None,
        on_front=trial.front,
    )


def _estimate(one: Candidate, key: str, metric: str) -> Estimate | None:
    def of(metrics: Metrics) -> tuple[float | None, tuple[float, float] | None]:
        return getattr(metrics, metric), getattr(metrics, f"{metric}_ci95")

    value = one.mean(lambda model: of(segment(model, key))[0])
    if value is None:
        return None
    ci95 = one.interval(lambda model: of(segment(model, key))[1])
    return Estimate(
        name=one.name,
        words=one.name,
        figure=f"{number(value)} {interval(ci95)}".rstrip(),
        kind=one.role,
        value=value,
        ci95=ci95,
    )


def _limits(result: Result, field: str, unit: str) -> dict[str, float]:
    budget = result.selection.budget if result.selection else {}
    return {f"budget {budget[field]:g} {unit}": budget[field]} if field in budget else {}
