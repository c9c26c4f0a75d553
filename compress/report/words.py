"""Numbers and findings in plain words."""

from collections.abc import Sequence
from typing import Literal

from benchmarks.result import TITLES, Ci95, Comparison, Model, Result, StageTime
from benchmarks.seeds import Candidate

NONE = "–"  # noqa: RUF001
_LEVEL = 0.05
SEGMENTS = {
    "test": "All test users",
    "tail_items": "Tail items",
    "short_history": "Short history",
    "cold_items": "Cold items, among all",
    "cold_items_only": "Cold items, among themselves",
}


def number(value: float | None, digits: int = 4) -> str:
    """A plain decimal, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval(pair: Ci95 | None, digits: int = 4) -> str:
    """`[low, high]`, or nothing."""
    return "" if pair is None else f"[{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def size(value: float | None) -> str:
    """Bytes for people, in powers of ten."""
    if not value:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float | None) -> str:
    """Three decimals below 1 ms, fewer above: equal columns stay comparable."""
    if value is None:
        return NONE
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def times(value: float | None) -> str:
    """A ratio: `1.7x`."""
    if value is None:
        return NONE
    return f"{value:.0f}×" if value >= 20 else f"{value:.2g}×"  # noqa: RUF001


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `1 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def served_path(models: Sequence[Model], metric: str) -> str:
    """What the headline times: `like` where the leading metric is about likes and a graph says them, else `cached`."""
    likes = metric == "auc" and any(row.path == "like" for model in models for row in model.latency)
    return "like" if likes else "cached"


def leaders(candidates: Sequence[Candidate], selected: str | None) -> list[Candidate]:
    """What a summary shows: of each role the chosen variant in fp32 (else in what there is), and what ships."""
    order = ["teacher", "student", "control", "baseline"]
    fp32 = {(one.role, one.first.variant) for one in candidates if one.chosen and one.quantizer == "fp32"}
    shown = [
        one
        for one in candidates
        if one.name == selected
        or (one.chosen and (one.quantizer == "fp32" or (one.role, one.first.variant) not in fp32))
    ]
    return sorted(shown, key=lambda one: order.index(one.role))


def why_it_ships(result: Result) -> tuple[str, list[str]]:
    """The selection's reason, and what it says of others: records without `refused` have it in the reason alone."""
    if result.selection is None:
        return "", []
    first, *rest = result.selection.reason.split("; ")
    if result.selection.refused is None or result.selected is None:
        return first, rest
    return first, [f"{name}: {', '.join(why)}" for name, why in result.selection.refused.items()]


def standing(item: Comparison) -> Literal["better", "tie", "worse", "unsure"]:
    """The verdict; `unsure` where the interval excludes zero and Holm's correction for all comparisons does not."""
    return "unsure" if item.verdict != "tie" and (item.p_holm or 0.0) >= _LEVEL else item.verdict


def distinct(stages: Sequence[StageTime]) -> list[StageTime]:
    """Variants that share a step share its artifact, with its seconds and memory: each counts once."""
    return list({(stage.name, stage.seconds, stage.peak_rss_mb): stage for stage in stages}.values())


def facts(one: Candidate, metric: str, path: str) -> list[str]:
    """What is said of a candidate where its mark is pointed at, in lines."""
    row, seeds = one.latency(path) or one.latency(), len(one.models)
    lines = [f"{one.role}, {one.quantizer}" + (f", {seeds} seeds" if seeds > 1 else "")]
    lines.append(f"{TITLES[metric]} {number(one.test)} {interval(one.test_ci95)}".rstrip())
    if row is not None:
        lines.append(f"p50 {milliseconds(row.p50_ms)} ms, p95 {milliseconds(row.p95_ms)} ms, {row.path} path")
    if one.first.size_bytes:
        lines.append(size(one.first.size_bytes))
    return lines
