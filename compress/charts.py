"""The plots of `report.html`: result -> plotly figures. Colours of text and grid come from the page (light or dark)."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from benchmarks.result import Comparison, LatencyRow, Metrics, Model, Result, StageTime
from compress.task import TITLES

# Mid-tones that keep their contrast on white and on near-black; the symbol repeats what the colour says.
COLOURS = {"teacher": "#8b6fd6", "student": "#0e9f86", "control": "#d9822b", "baseline": "#7d8896"}
SYMBOLS = {"teacher": "diamond", "student": "circle", "control": "square", "baseline": "triangle-up"}
SEGMENTS = {
    "test": "all test users",
    "tail_items": "tail items",
    "short_history": "short history",
    "cold_items": "cold items",
    "cold_items_only": "cold items, among themselves",
}

_QUIET = "#8a93a0"
_BETTER, _WORSE = "#0e9f86", "#d64550"


@dataclass(frozen=True)
class Point:
    """One model on one path: its cost, its test accuracy with interval, and how it is drawn."""

    model: Model
    name: str
    cost: float
    accuracy: float
    ci95: tuple[float, float] | None
    named: bool


def primary_metric(result: Result) -> str:
    """`ndcg@10`, or `auc` where no model ranks (like/dislike data)."""
    ranked = any(model.accuracy.test.ndcg_10 is not None for model in result.models)
    return "ndcg@10" if ranked or not result.models else "auc"


def value_of(metrics: Metrics, metric: str) -> tuple[float | None, tuple[float, float] | None]:
    """A metric and its interval, None where it was not measured."""
    if metric == "ndcg@10":
        return metrics.ndcg_10, metrics.ndcg_10_ci95
    return metrics.auc, metrics.auc_ci95


def headline_latency(model: Model, path: str = "cached") -> LatencyRow | None:
    """The row that headlines use: ONNX Runtime on the CPU, batch 1, fewest threads."""
    rows = [row for row in model.latency if row.path == path and row.runtime == "onnxruntime"]
    return min(rows, key=lambda row: (row.device != "cpu", row.batch, row.threads), default=None)


def points_by_latency(result: Result) -> list[Point]:
    """Every model's p95, and the teachers' text path as a point of its own."""
    found = []
    for model in result.models:
        for path, suffix in (("cached", ""), ("text", ", text path")):
            row = headline_latency(model, path)
            if row:
                found += _point(result, model, model.name + suffix, row.p95_ms)
    return found


def points_by_size(result: Result) -> list[Point]:
    """Every model's bytes."""
    return [
        point
        for model in result.models
        if model.size_bytes
        for point in _point(result, model, model.name, model.size_bytes / 1e6)
    ]


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Points that no other beats in both cost and accuracy, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def trade_off(result: Result, points: Sequence[Point], axis: str) -> go.Figure:
    """Accuracy against a cost on a log axis, the front as a line, the selected model ringed.

    The accuracy axis starts below the weakest candidate; weaker baselines are left to the table.
    """
    metric = primary_metric(result)
    front = pareto_front(points)
    figure = go.Figure()
    figure.add_scatter(
        x=[point.cost for point in front],
        y=[point.accuracy for point in front],
        mode="lines",
        name="Pareto front",
        line={"color": _QUIET, "width": 1.5, "shape": "hv", "dash": "dot"},
        hoverinfo="skip",
    )
    for role, colour in COLOURS.items():
        # The legend draws the first point: a chosen one is opaque.
        shown = sorted((p for p in points if p.model.role == role), key=lambda p: not p.named)
        if shown:
            figure.add_scatter(**_markers(shown, role, colour))
    ringed = [point for point in points if point.model.name == result.selected]
    if ringed:
        figure.add_scatter(
            x=[point.cost for point in ringed],
            y=[point.accuracy for point in ringed],
            mode="markers",
            name="selected",
            marker={"symbol": "circle-open", "size": 22, "color": _WORSE, "line": {"width": 2.5}},
            hoverinfo="skip",
        )
    low, high = _accuracy_range(points)
    for model in result.models:  # a baseline without a measured cost is a level to compare with
        accuracy, _ = value_of(model.accuracy.test, metric)
        placed = any(point.model is model for point in points)
        if model.role == "baseline" and accuracy is not None and low < accuracy < high and not placed:
            figure.add_hline(
                y=accuracy,
                line={"color": COLOURS["baseline"], "width": 1, "dash": "dash"},
                annotation={"text": html.escape(model.name), "font": {"size": 11}},
                annotation_position="bottom left",
            )
    for label in _labels(points):
        figure.add_annotation(label)
    figure.update_xaxes(type="log", title=axis, dtick="D2" if _decades(points) < 2 else 1)
    figure.update_yaxes(title=f"test {TITLES[metric]}", range=[low, high])
    return styled(figure, 420)


def segments(models: Sequence[Model]) -> go.Figure | None:
    """NDCG@10 of each model on each segment with its interval; None where no segment was measured."""
    present = [key for key in SEGMENTS if any(_segment(model, key).ndcg_10 is not None for model in models)]
    if not present:
        return None
    figure = go.Figure()
    for place, model in enumerate(models):
        shift = (place - (len(models) - 1) / 2) * 0.7 / max(len(models), 1)
        rows = [(at, _segment(model, key)) for at, key in enumerate(present)]
        measured = [(at + shift, found, found.ndcg_10) for at, found in rows if found.ndcg_10 is not None]
        values = [value for _, _, value in measured]
        figure.add_scatter(
            x=values,
            y=[at for at, _, _ in measured],
            error_x=_errors(values, [found.ndcg_10_ci95 for _, found, _ in measured]),
            mode="markers",
            name=html.escape(model.name),
            marker={"symbol": SYMBOLS[model.role], "size": 9, "color": COLOURS[model.role]},
        )
    ticks = [_two_lines(SEGMENTS[key]) for key in present]
    figure.update_yaxes(
        tickvals=list(range(len(present))), ticktext=ticks, range=[len(present) - 0.5, -0.5], zeroline=False
    )
    figure.update_xaxes(title="test NDCG@10", rangemode="tozero")
    return styled(figure, 90 + len(present) * max(60, 22 * len(models)))


def latencies(result: Result, samples: Mapping[str, NDArray[np.float64]]) -> go.Figure | None:
    """Boxes of the raw times where given, else a bar from p50 to p99; None where nothing was timed."""
    figure = go.Figure()
    if samples:
        for name, times in samples.items():
            low, first, median, third, high = np.percentile(times, [5, 25, 50, 75, 95]).tolist()
            figure.add_box(
                y=[html.escape(name)],
                lowerfence=[low],
                q1=[first],
                median=[median],
                q3=[third],
                upperfence=[high],
                orientation="h",
                marker={"color": _colour_of(result, name)},
                showlegend=False,
            )
        count = len(samples)
    else:
        rows = [(model, row) for model in result.models for row in model.latency]
        for model, row in rows:
            figure.add_scatter(
                x=[row.p50_ms, row.p95_ms, row.p99_ms],
                y=[html.escape(latency_name(model, row))] * 3,
                mode="lines+markers",
                line={"color": COLOURS[model.role], "width": 3},
                marker={"symbol": ["circle", "line-ns-open", "line-ns-open"], "size": [9, 11, 7]},
                showlegend=False,
            )
        count = len(rows)
    if not count:
        return None
    figure.update_xaxes(type="log", title="milliseconds, ids to ids", dtick=1)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return styled(figure, 90 + 34 * count)


def latency_name(model: Model, row: LatencyRow) -> str:
    """How a row of `latency` is called in plots and in `Details.latency_ms`."""
    extras: list[str] = [row.path, *([row.runtime] if row.runtime != "onnxruntime" else [])]
    extras += [row.device] if row.device != "cpu" else []
    extras += [f"{row.threads} threads"] if row.threads > 1 else []
    extras += [f"batch {row.batch}"] if row.batch > 1 else []
    return f"{model.name} ({', '.join(extras)})"


def comparisons(found: Sequence[Comparison]) -> go.Figure | None:
    """Differences with their paired intervals around zero; None where nothing was compared."""
    if not found:
        return None
    figure = go.Figure()
    for outcome, colour in (("better", _BETTER), ("tie", _QUIET), ("worse", _WORSE)):
        shown = [(at, item) for at, item in enumerate(found) if item.verdict == outcome]
        if shown:
            differences = [item.difference for _, item in shown]
            figure.add_scatter(
                x=differences,
                y=[at for at, _ in shown],
                error_x=_errors(differences, [item.ci95 for _, item in shown]),
                mode="markers",
                name=outcome,
                showlegend=True,
                marker={"size": 9, "color": colour},
            )
    figure.add_vline(x=0, line={"color": _QUIET, "width": 1.5})
    figure.update_xaxes(title="difference")
    ticks = [_two_lines(comparison_name(item)) for item in found]
    figure.update_yaxes(
        tickvals=list(range(len(found))), ticktext=ticks, range=[len(found) - 0.5, -0.5], zeroline=False
    )
    return styled(figure, 110 + 46 * len(found))


def comparison_name(item: Comparison) -> str:
    """`a minus b`, with its segment."""
    return f"{item.a} minus {item.b}" + (f", {SEGMENTS[item.segment]}" if item.segment else "")


def stages(found: Sequence[StageTime]) -> go.Figure | None:
    """Seconds per stage in order of first appearance, computed now and taken from the store."""
    if not found:
        return None
    order = list(dict.fromkeys(stage.name for stage in found))
    figure = go.Figure()
    for cached, label, colour in ((False, "this run", "#3f7fd1"), (True, "from the store", _QUIET)):
        seconds = [sum(s.seconds for s in found if s.name == name and s.cached == cached) for name in order]
        if any(seconds):
            figure.add_bar(x=seconds, y=order, orientation="h", name=label, marker={"color": colour})
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="seconds")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return styled(figure, 110 + 26 * len(order))


def _point(result: Result, model: Model, name: str, cost: float) -> list[Point]:
    accuracy, ci95 = value_of(model.accuracy.test, primary_metric(result))
    if accuracy is None or cost <= 0:
        return []
    return [Point(model, name, cost, accuracy, ci95, model.chosen or model.name == result.selected)]


def _markers(points: Sequence[Point], role: str, colour: str) -> dict[str, Any]:
    values = [point.accuracy for point in points]
    return {
        "x": [point.cost for point in points],
        "y": values,
        "error_y": {**_errors(values, [point.ci95 if point.named else None for point in points]), "width": 0},
        "mode": "markers",
        "name": role,
        "hovertext": [html.escape(point.name) for point in points],
        "cliponaxis": False,
        "marker": {
            "symbol": SYMBOLS[role],
            "size": [11 if point.named else 7 for point in points],
            "opacity": [1.0 if point.named else 0.55 for point in points],
            "color": colour,
        },
    }


def _labels(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Names of the chosen models, clear of their markers and inside the plot; controls below, the rest above."""
    places = [math.log10(point.cost) for point in points]
    left, width = min(places), max(max(places) - min(places), 1e-9)
    labels, labelled = [], set()
    for point, place in zip(points, places, strict=True):
        # the precisions of one variant lie too close together for a name each
        group = (point.model.variant, point.name.removeprefix(point.model.name))
        if point.named and group not in labelled:
            labelled.add(group)
            share = (place - left) / width
            labels.append(
                {
                    "x": place,  # annotations on a log axis want the exponent
                    "y": point.accuracy,
                    "text": html.escape(point.name),
                    "font": {"size": 11},
                    "showarrow": False,
                    "xanchor": "left" if share < 0.2 else "right" if share > 0.8 else "center",
                    "yshift": -22 if point.model.role == "control" else 22,
                }
            )
    return labels


def _accuracy_range(points: Sequence[Point]) -> tuple[float, float]:
    models = [point for point in points if point.model.role != "baseline"] or list(points)
    low = min(min(point.accuracy, *(point.ci95 or ())) for point in models)
    high = max(max(point.accuracy, *(point.ci95 or ())) for point in models)
    best = max((point.accuracy for point in points if point.model.role == "baseline"), default=low)
    low = min(low, best)
    room = 0.15 * (high - low or high or 1.0)
    return max(0.0, low - room), high + room


def _errors(values: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> dict[str, Any]:
    pairs = [(value, value) if ci is None else ci for value, ci in zip(values, intervals, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) for value, (_, high) in zip(values, pairs, strict=True)],
        "arrayminus": [max(0.0, value - low) for value, (low, _) in zip(values, pairs, strict=True)],
        "thickness": 1.2,
        "width": 4,
    }


def _segment(model: Model, key: str) -> Metrics:
    accuracy = model.accuracy
    return accuracy.test if key == "test" else getattr(accuracy.segments, key)


def _colour_of(result: Result, name: str) -> str:
    owners = [model for model in result.models if name == model.name or name.startswith(f"{model.name} (")]
    return COLOURS[owners[0].role] if owners else _QUIET


def _decades(points: Sequence[Point]) -> float:
    costs = [point.cost for point in points]
    return math.log10(max(costs) / min(costs)) if costs else 0.0


def _two_lines(text: str) -> str:
    """Breaks a long label in the middle: on a phone the plot needs the width."""
    head, cut, tail = html.escape(text).partition(" minus ")
    if cut:
        return f"{head}<br>minus {tail}"
    head, cut, tail = head.partition(", ")
    return f"{head},<br>{tail}" if cut else head


def styled(figure: go.Figure, height: int) -> go.Figure:
    """What all plots share; `height` in pixels."""
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 12, "r": 16, "t": 12, "b": 12},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure
