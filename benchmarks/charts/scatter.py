"""Accuracy against a cost, with the Pareto front."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.charts.axes import Axis, across, linear_axis, log_axis, upright
from benchmarks.charts.drawing import Drawing, Labels, line, mark, of_model, text
from benchmarks.charts.style import ROLES

_TOP, _BOTTOM, _HEIGHT, _LEFT = 22, 320, 362, 50


@dataclass(frozen=True)
class Spot:
    """One model. `words` describe it where it is not seen; `label` stands beside it where there is room. What is
    `faint` is drawn pale; `on_front`: may be part of the front."""

    name: str
    words: str
    kind: str
    cost: float
    accuracy: float
    ci95: tuple[float, float] | None = None
    label: str = ""
    ringed: bool = False
    faint: bool = False
    on_front: bool = True


def pareto_front(spots: Iterable[Spot]) -> list[Spot]:
    """Those that no other beats in both cost and accuracy, cheapest first."""
    front: list[Spot] = []
    for spot in sorted((spot for spot in spots if spot.on_front), key=lambda s: (s.cost, -s.accuracy)):
        if not front or spot.accuracy > front[-1].accuracy:
            front.append(spot)
    return front


def trade_off(
    spots: Sequence[Spot],
    cost: str,
    accuracy: str,
    limits: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Drawing:
    """Up is more accurate, left is cheaper; the cost's axis is logarithmic. `limits`: words -> the cost that a budget
    allows; `levels`: name -> the accuracy of what has no cost. Levels that would flatten the rest are left out.

    Raises ValueError without a spot or where a cost is not above 0.
    """
    limits = limits or {}
    ends = [end for spot in spots for end in (spot.accuracy, *(() if spot.faint else spot.ci95 or ()))]
    reach = max(ends) - min(ends)
    shown = {name: value for name, value in (levels or {}).items() if value > min(ends) - 1.5 * reach}
    up = linear_axis([*ends, *shown.values()])
    sideways = log_axis([*(spot.cost for spot in spots), *limits.values()])
    front = pareto_front(spots)
    parts = [*upright(up, _TOP, _BOTTOM), *across(sideways, _TOP, _BOTTOM, cost)]
    parts.append(text(0, 12, accuracy, "start", "number", 8 - _LEFT))
    places = {id(spot): (sideways.percent(spot.cost), up.up(spot.accuracy, _TOP, _BOTTOM)) for spot in spots}
    labels = Labels([places[id(spot)] for spot in spots], _TOP, _BOTTOM)
    parts += _steps([places[id(spot)] for spot in front])
    for name, value in limits.items():
        x = sideways.percent(value)
        parts.append(line(x, _TOP, x, _BOTTOM, "limit"))
        parts.append(text(x, _TOP - 6, name, "end" if x > 50 else "start", "number"))
    for name, value in shown.items():
        y = up.up(value, _TOP, _BOTTOM)
        parts += [line(0, y, 100, y, "level"), text(100, y - 5, name, "end", "number")]
    for spot in sorted(spots, key=lambda spot: not spot.faint):  # what matters is drawn last, over the rest
        parts.append(of_model(spot.name, _spot(spot, *places[id(spot)], up), spot.words))
    for spot in sorted(spots, key=lambda spot: (not spot.ringed, spot.faint, -spot.accuracy)):
        if spot.label:
            parts.append(labels.place(*places[id(spot)], spot.label))
    best = ", ".join(dict.fromkeys(spot.name for spot in front))
    return Drawing(
        [part for part in parts if part],
        _HEIGHT,
        f"{accuracy} against {cost}",
        f"{len(spots)} points; up is more accurate, left is cheaper. No other beats in both: {best}.",
        _LEFT,
    )


def _steps(places: Sequence[tuple[float, float]]) -> list[str]:
    """From each point of the front to the next: right first, then up."""
    parts = []
    for (x1, y1), (x2, y2) in pairwise(places):
        parts += [line(x1, y1, x2, y1, "front"), line(x2, y1, x2, y2, "front")]
    return parts


def _spot(spot: Spot, x: float, y: float, up: Axis) -> list[str]:
    shape = ROLES.get(spot.kind, "circle")
    parts = []
    if spot.ci95 is not None and not spot.faint:
        low, high = (up.up(end, _TOP, _BOTTOM) for end in spot.ci95)
        parts.append(line(x, low, x, high, f"whisker {spot.kind}"))
    parts.append(f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="14" class="hit"/>')
    parts.append(mark(x, y, shape, f"{spot.kind} faint" if spot.faint else spot.kind))
    parts.append(f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="11" class="halo{" ring" if spot.ringed else ""}"/>')
    return parts
