"""Linear and logarithmic axes with round marks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.charts.drawing import line, text

_ROOM = 0.06  # of the axis, at both ends
_NAMES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}


@dataclass(frozen=True)
class Axis:
    """From `low` to `high` (both above 0 where `logarithmic`), marked at `ticks`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis, 0 to 1; beyond it outside of that."""
        low, high, at = (
            map(math.log, (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        )
        return (at - low) / (high - low) if high > low else 0.5

    def percent(self, value: float) -> float:
        return 100 * self.share(value)

    def up(self, value: float, top: float, bottom: float) -> float:
        """The place in pixels of an axis that rises from `bottom` to `top`."""
        return bottom - self.share(value) * (bottom - top)


def linear_axis(values: Iterable[float], count: int = 6, zero: bool = False) -> Axis:
    """Around `values`, with about `count` marks; from 0 where `zero`. Raises ValueError without a value."""
    found = list(values)
    low, high = min([*found, *([0.0] if zero else [])]), max(found)
    room = _ROOM * ((high - low) or abs(high) or 1.0)
    low, high = low - (0.0 if zero and low == 0.0 else room), high + room
    step = round_step((high - low) / count)
    ticks = tuple(step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))
    return Axis(low, high, ticks)


def log_axis(values: Iterable[float], count: int = 6) -> Axis:
    """The same on a logarithmic scale, marked at 1, 2 and 5 times powers of ten, fewer where those are too many.
    Raises ValueError without a value or where one is not above 0."""
    found = list(values)
    if not found or min(found) <= 0:
        raise ValueError("a logarithmic axis needs places above 0")
    low, high = min(found), max(found)
    if high < 2 * low:  # less than an octave is drawn as one
        low, high = low / math.sqrt(2), high * math.sqrt(2)
    room = (high / low) ** _ROOM
    low, high = low / room, high * room
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks: tuple[float, ...] = ()
    for factors, powers in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 4)):
        marks = (factor * 10.0**power for power in range(first, last + 1, powers) for factor in factors)
        ticks = tuple(value for value in marks if low <= value <= high)
        if len(ticks) <= count:
            break
    return Axis(low, high, ticks, logarithmic=True)


def round_step(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= value * (1 - 1e-9))


def short(value: float) -> str:
    """A mark's number: `0.05`, `200`, `5k`, `20M`."""
    if value and (abs(value) >= 10_000 or abs(value) < 0.001):
        power = min(max(3 * math.floor(math.log10(abs(value)) / 3 + 1e-9), -9), 12)
        return f"{value / 10.0**power:.4g}{_NAMES[power]}"
    return f"{value:.4g}"


def across(axis: Axis, top: float, bottom: float, title: str) -> list[str]:
    """A horizontal axis below `bottom`: lines, numbers (16 pixels) and title (34 pixels further down)."""
    parts = []
    for tick in axis.ticks:
        x = axis.percent(tick)
        parts.append(line(x, top, x, bottom, "grid"))
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        parts.append(text(x, bottom + 16, short(tick), anchor, "number"))
    return [*parts, text(50, bottom + 34, title, "middle", "number")]


def upright(axis: Axis, top: float, bottom: float) -> list[str]:
    """A vertical axis at the left: lines across, numbers to the left of the plot."""
    parts = []
    for tick in axis.ticks:
        y = axis.up(tick, top, bottom)
        parts.append(line(0, y, 100, y, "grid"))
        parts.append(text(0, y + 4, short(tick), "end", "number", -8))
    return parts
