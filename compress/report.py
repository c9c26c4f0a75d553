"""`report.html`: a result as one self-contained page. Everything comes from `Result`; raw times are optional."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from benchmarks.result import Model, Result
from compress import charts
from compress.search.chart import search_plot
from compress.task import TITLES

_TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True)
class Details:
    """What the page shows beyond the result. `latency_ms`: `charts.latency_name` -> raw times in ms (runs,)."""

    latency_ms: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def write_report(result: Result, details: Details | None, out: Path) -> None:
    """Writes the page to the file `out`. It needs no network: styles, data and plotly are inside."""
    out.write_text(render_report(result, details or Details()), encoding="utf-8")


def render_report(result: Result, details: Details) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, size=size, milliseconds=milliseconds, times=times, interval=interval)
    by_latency, by_size = charts.points_by_latency(result), charts.points_by_size(result)
    leaders = leading_models(result)
    plots = {
        "latency_front": _json(charts.trade_off(result, by_latency, "p95 latency, ms") if by_latency else None),
        "size_front": _json(charts.trade_off(result, by_size, "size, MB") if by_size else None),
        "search": _json(search_plot(result.search)),
        "segments": _json(charts.segments(leaders)),
        "latencies": _json(charts.latencies(result, details.latency_ms)),
        "comparisons": _json(charts.comparisons(result.comparisons)),
        "stages": _json(charts.stages(result.stages)),
    }
    return environment.get_template(_TEMPLATE.name).render(
        result=result,
        metric=charts.primary_metric(result),
        metric_title=TITLES[charts.primary_metric(result)],
        leaders=leaders,
        selected=selected_model(result),
        teacher=next((model for model in leaders if model.role == "teacher"), None),
        plots=plots,
        fronts={
            "latency": [point.name for point in charts.pareto_front(by_latency)],
            "size": [point.name for point in charts.pareto_front(by_size)],
        },
        segment_names=charts.SEGMENTS,
        raw_times=bool(details.latency_ms),
        headline=charts.headline_latency,
        value_of=charts.value_of,
        comparison_name=charts.comparison_name,
        plotly=Markup(get_plotlyjs()),
    )


def selected_model(result: Result) -> Model | None:
    """The model that `selected` names."""
    return next((model for model in result.models if model.name == result.selected), None)


def leading_models(result: Result) -> list[Model]:
    """What the summary shows: the chosen model of each role and the selected one, teachers first."""
    order = ["teacher", "student", "control", "baseline"]
    shown = [model for model in result.models if model.chosen or model.name == result.selected]
    return sorted(shown, key=lambda model: order.index(model.role))


def number(value: float | None, digits: int = 4) -> str:
    """A plain decimal, or an en dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"  # noqa: RUF001


def interval(pair: tuple[float, float] | None, digits: int = 4) -> str:
    """`[low, high]`, or nothing."""
    return "" if pair is None else f"[{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def size(value: float | None) -> str:
    """Bytes for people, in powers of ten."""
    if not value:
        return "–"  # noqa: RUF001
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float | None) -> str:
    """Three decimals below 1 ms, fewer above: equal columns stay comparable."""
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def times(value: float | None) -> str:
    """A ratio: `1.7x`."""
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.0f}×" if value >= 20 else f"{value:.2g}×"  # noqa: RUF001


def _json(figure: Any | None) -> Markup | None:
    """A figure as JSON inside a script element, which a "<" could end."""
    return None if figure is None else Markup(figure.to_json().replace("<", "\\u003c"))
