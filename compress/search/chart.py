"""The plot of a search in `report.html`: validation against parameters, trial by trial."""

import html

import plotly.graph_objects as go

from benchmarks.result import Search, Trial
from compress.charts import styled
from compress.task import TITLES

_FRONT, _QUIET, _AS_WRITTEN = "#0e9f86", "#8a93a0", "#d9822b"


def search_plot(found: Search | None) -> go.Figure | None:
    """Every trial as a point, the front as a line, the variant as written beside them; None without a search."""
    if found is None:
        return None
    front = sorted((trial for trial in found.trials if trial.front), key=lambda trial: trial.params)
    finished = [trial for trial in found.trials if trial.stopped is None and not trial.front]
    stopped = [trial for trial in found.trials if trial.stopped is not None]
    figure = go.Figure()
    for name, trials, symbol, colour in (
        ("on the front", front, "circle", _FRONT),
        ("finished", finished, "circle-open", _QUIET),
        ("stopped after distil", stopped, "x-thin-open", _QUIET),
        (f"{html.escape(found.of.name)} as written", [found.of], "square", _AS_WRITTEN),
    ):
        if trials:
            figure.add_scatter(
                x=[trial.params for trial in trials],
                y=[trial.valid for trial in trials],
                text=[_hover(trial) for trial in trials],
                hoverinfo="text",
                mode="lines+markers" if trials is front else "markers",
                line={"color": _QUIET, "width": 1.5, "shape": "hv", "dash": "dot"},
                name=name,
                showlegend=True,
                marker={"symbol": symbol, "size": 10, "color": colour},
            )
    figure.update_xaxes(title="parameters", type="log")
    figure.update_yaxes(title=f"validation {TITLES[found.metric]}")
    return styled(figure, 380)


def _hover(trial: Trial) -> str:
    lines = [trial.name, *(f"{path} {value}" for path, value in trial.chosen.items())]
    return "<br>".join(html.escape(line) for line in lines)
