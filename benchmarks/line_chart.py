"""A small line chart as SVG text, for tables that GitHub shows: no browser and no plotting library is needed."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 20, 52
_CHARACTER = 8  # pixels, at most in the mean
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind readers too."""


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
    points = [point for line in lines.values() for point in line]
    if not points or min([*(point.x for point in points), *ticks]) <= 0:
        raise ValueError("a chart needs points, and places above 0 on its logarithmic axis")
    lowest, highest = min(p.low for p in points), max(p.high for p in points)
    if logarithmic and lowest <= 0:
        raise ValueError("a chart needs points above 0 on its logarithmic axis")
    across = _Scale(min(p.x for p in points), max(p.x for p in points), LEFT, WIDTH - RIGHT, logarithmic=True)
    marks = _powers(lowest, highest) if logarithmic else _multiples(highest)
    up = _Scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP, logarithmic)
    parts = []
    for mark in marks:
        y = up(mark)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(svg_text(LEFT - 8, y + 4, f"{mark:.3g}", "end"))
    for x, label in ticks.items():
        parts.append(svg_text(across(x), HEIGHT - BOTTOM + 20, label, "middle"))
    parts.append(svg_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_title, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle:.1f})">{svg_text(14, middle, y_title, "middle")}</g>')
    for number, (name, line) in enumerate(lines.items()):
        # neighbours are drawn side by side, so that intervals do not hide each other
        parts += _line(name, line, number, across, up, 4.0 * (number - (len(lines) - 1) / 2))
    width = WIDTH - RIGHT + max(RIGHT, 44 + _CHARACTER * max(map(len, lines)))
    parts.insert(0, f'<rect width="{width}" height="{HEIGHT}" fill="white"/>')
    return svg(parts, width, HEIGHT, f"{y_title} by {x_title}")


def svg(parts: Sequence[str], width: int, height: int, label: str) -> str:
    """A whole drawing; `label` is what is read to those who do not see it."""
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" '
        f'font-size="13" aria-label="{html.escape(label)}">'
    )
    return "\n".join([start, *parts, "</svg>"]) + "\n"


def _multiples(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`."""
    step = round_step(highest / 5)
    return [step * mark for mark in range(math.ceil(highest / step - 1e-9) + 1)]


def _powers(lowest: float, highest: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from at most `lowest` to at least `highest`; the powers alone where many."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    factors = (1, 2, 5) if last - first < 4 else (1,)
    marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    start = max(mark for mark in marks if mark <= lowest * (1 + 1e-9))
    stop = min(mark for mark in marks if mark >= highest * (1 - 1e-9) and mark > start)
    return [mark for mark in marks if start <= mark <= stop]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (
            map(math.log, (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        )
        return self.start + (self.stop - self.start) * ((at - low) / (high - low) if high > low else 0.5)


def _line(name: str, line: Sequence[Point], number: int, across: _Scale, up: _Scale, shift: float) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    places = [(across(p.x) + shift, p) for p in line]
    path = "L".join(f"{x:.1f} {up(p.y):.1f}" for x, p in places)
    bars = "".join(f"M{x:.1f} {up(p.low):.1f}V{up(p.high):.1f}" for x, p in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{up(p.y):.1f}" r="3" fill="{colour}"/>' for x, p in places)
    y = TOP + 14 + 20 * number
    key = f'<path d="M{WIDTH - RIGHT + 14} {y - 4}h18" stroke="{colour}" stroke-width="3"/>'
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        f'<path d="{bars}" stroke="{colour}" stroke-opacity=".5"/>',
        dots,
        key + svg_text(WIDTH - RIGHT + 38, y, name, "start"),
    ]


def svg_text(x: float, y: float, text: str, anchor: str) -> str:
    """`anchor`: which part of the text stands at x: `start`, `middle` or `end`."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{html.escape(text)}</text>'


def round_step(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= value * (1 - 1e-9))
