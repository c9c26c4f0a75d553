"""A small line chart as SVG text, for tables that GitHub shows: no browser and no plotting library is needed."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.charts.axes import Axis, linear_axis, log_axis, upright
from benchmarks.charts.drawing import Drawing, line, text
from benchmarks.charts.style import SERIES

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 170, 32, 368
_CHARACTER = 8  # pixels, at most in the mean


@dataclass(frozen=True)
class Point:
    """`low` and `high` are the ends of its interval."""

    x: float
    y: float
    low: float
    high: float


def line_chart(
    lines: Mapping[str, Sequence[Point]],
    x_title: str,
    y_title: str,
    ticks: Mapping[float, str],
    logarithmic: bool = False,
) -> str:
    """Lines with intervals over a logarithmic x axis that is marked at `ticks`; the y axis starts at 0, or is
    `logarithmic` too.

    Raises ValueError without a point, or where a place on a logarithmic axis is not above 0.
    """
    points = [point for found in lines.values() for point in found]
    if not points or min([*(point.x for point in points), *ticks]) <= 0:
        raise ValueError("a chart needs points, and places above 0 on its logarithmic axis")
    sideways = log_axis([point.x for point in points])
    ends = [end for point in points for end in (point.low, point.high)]
    up = log_axis(ends) if logarithmic else linear_axis(ends, zero=True)
    parts = [*upright(up, _TOP, _BOTTOM), text(0, 14, y_title, "start", "number", 8 - _LEFT)]
    for x, label in ticks.items():
        if 0 <= sideways.share(x) <= 1:
            parts.append(text(sideways.percent(x), _BOTTOM + 18, label, "middle", "number"))
    parts.append(text(50, _BOTTOM + 38, x_title, "middle", "number"))
    for number, (name, found) in enumerate(lines.items()):
        # neighbours are drawn side by side, so that intervals do not hide each other
        parts += _line(name, found, number, sideways, up, 4.0 * (number - (len(lines) - 1) / 2))
    right = max(_RIGHT, 44 + _CHARACTER * max(map(len, lines)))
    drawing = Drawing(parts, _HEIGHT, f"{y_title} by {x_title}", _spoken(lines), _LEFT)
    return drawing.standalone(_WIDTH - _RIGHT + right, right)


def _line(name: str, points: Sequence[Point], number: int, sideways: Axis, up: Axis, shift: float) -> list[str]:
    colour = f"s{number % len(SERIES['light'])}"
    places = [(sideways.percent(p.x), up.up(p.y, _TOP, _BOTTOM), p) for p in points]
    drawn = [line(x1, y1, x2, y2, f"{colour} whisker") for (x1, y1, _), (x2, y2, _) in pairwise(places)]
    for x, y, point in places:
        low, high = (up.up(end, _TOP, _BOTTOM) for end in (point.low, point.high))
        drawn.append(line(x, low, x, high, f"{colour} faint"))
        drawn.append(f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="3" class="{colour}"/>')
    y = _TOP + 10 + 20 * number
    key = f'<path d="M14 {y - 4}h18" class="{colour}" stroke-width="3"/><text x="38" y="{y}">{html.escape(name)}</text>'
    return [
        f'<g transform="translate({shift:g} 0)">{"".join(drawn)}</g>',
        f'<svg x="100%" overflow="visible">{key}</svg>',
    ]


def _spoken(lines: Mapping[str, Sequence[Point]]) -> str:
    return "; ".join(
        f"{name}: " + ", ".join(f"{point.y:.3g} at {point.x:.3g}" for point in found) for name, found in lines.items()
    )
