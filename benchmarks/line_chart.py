"""A small line chart as SVG text, for tables that GitHub shows: no browser and no plotting library is needed."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 20, 52
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind readers too."""


@dataclass(frozen=True)
class Point:
    """`low` and `high` are the ends of its interval."""

    x: float
    y: float
    low: float
    high: float


def line_chart(lines: Mapping[str, Sequence[Point]], x_title: str, y_title: str, ticks: Mapping[float, str]) -> str:
    """Lines with intervals over a logarithmic x axis that is marked at `ticks`; the y axis starts at 0.

    Raises ValueError without a point, or where an x is not above 0.
    """
    points = [point for line in lines.values() for point in line]
    if not points or any(point.x <= 0 for point in [*points, *(Point(x, 0, 0, 0) for x in ticks)]):
        raise ValueError("a chart needs points, and places above 0 on its logarithmic axis")
    across = _Scale(math.log(min(p.x for p in points)), math.log(max(p.x for p in points)), LEFT, WIDTH - RIGHT)
    step = _round_step(max(p.high for p in points) / 5)
    up = _Scale(0.0, step * math.ceil(max(p.high for p in points) / step), HEIGHT - BOTTOM, TOP)
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for mark in range(round(up.high / step) + 1):
        y = up(mark * step)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{mark * step:.3g}", "end"))
    for x, label in ticks.items():
        parts.append(_text(across(math.log(x)), HEIGHT - BOTTOM + 20, label, "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_title, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle:.1f})">{_text(14, middle, y_title, "middle")}</g>')
    for number, (name, line) in enumerate(lines.items()):
        # neighbours are drawn side by side, so that intervals do not hide each other
        parts += _line(name, line, number, across, up, 4.0 * (number - (len(lines) - 1) / 2))
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="13" aria-label="{html.escape(f"{y_title} by {x_title}")}">'
    )
    return "\n".join([start, *parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (self.stop - self.start) * ((value - self.low) / span if span else 0.5)


def _line(name: str, line: Sequence[Point], number: int, across: _Scale, up: _Scale, shift: float) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    places = [(across(math.log(p.x)) + shift, p) for p in line]
    path = "L".join(f"{x:.1f} {up(p.y):.1f}" for x, p in places)
    bars = "".join(f"M{x:.1f} {up(p.low):.1f}V{up(p.high):.1f}" for x, p in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{up(p.y):.1f}" r="3" fill="{colour}"/>' for x, p in places)
    y = TOP + 14 + 20 * number
    key = f'<path d="M{WIDTH - RIGHT + 14} {y - 4}h18" stroke="{colour}" stroke-width="3"/>'
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        f'<path d="{bars}" stroke="{colour}" stroke-opacity=".5"/>',
        dots,
        key + _text(WIDTH - RIGHT + 38, y, name, "start"),
    ]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{html.escape(text)}</text>'


def _round_step(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= value * (1 - 1e-9))
