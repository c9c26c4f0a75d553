"""Charts of rows: each has its words above its marks, so that a phone shows them whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.charts.axes import across, linear_axis, log_axis
from benchmarks.charts.drawing import Drawing, bar, line, mark, of_model, text
from benchmarks.charts.style import ROLES

_ROW, _TOP = 40, 6
_FITS = 44  # characters of a row's words on a phone
_SEEN = 0.25  # percent: a bar that is shorter is drawn as long as this


@dataclass(frozen=True)
class Row:
    """`name`: the model that it is of, or nothing; `words` stand at its left, `figure` at its right."""

    name: str
    words: str
    figure: str
    kind: str


@dataclass(frozen=True)
class Estimate(Row):
    """A value with its 95 % interval; `shape` is its mark, by default that of its role."""

    value: float
    ci95: tuple[float, float] | None = None
    shape: str = ""


@dataclass(frozen=True)
class Spread(Row):
    """Times in ms by percentile: at least 50, 95 and 99; with 1, 5, 25 and 75 a whole distribution."""

    percentiles: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack(Row):
    """(amount, kind) one after the other."""

    amounts: Sequence[tuple[float, str]] = ()


def estimates(rows: Sequence[Estimate], axis: str, title: str, zero: bool = False) -> Drawing:
    """Dots with whiskers. `zero`: differences, around a line at 0. Raises ValueError without a row."""
    ends = [end for row in rows for end in (row.value, *(row.ci95 or ()))]
    scale, bottom = linear_axis([*ends, *([0.0] if zero else [])]), _bottom(rows)
    parts = across(scale, _TOP, bottom, axis)
    if zero:
        parts.append(line(scale.percent(0), _TOP, scale.percent(0), bottom, "zero"))
    for number, row in enumerate(rows):
        y, x = _middle(number), scale.percent(row.value)
        low, high = (scale.percent(end) for end in row.ci95 or (row.value, row.value))
        own = [line(low, y, high, y, f"whisker {row.kind}")] if row.ci95 else []
        own.append(mark(x, y, row.shape or ROLES.get(row.kind, "circle"), row.kind))
        parts.append(of_model(row.name, [*_words(number, row), *own]))
    return _drawing(parts, rows, title)


def spreads(rows: Sequence[Spread], axis: str, title: str) -> Drawing:
    """Bands between percentiles (1 to 99, 5 to 95, 25 to 75) around the median; where only 50, 95 and 99 are known, a
    line between them. Raises ValueError without a row or where a time is not above 0."""
    scale, bottom = log_axis([value for row in rows for value in row.percentiles.values()]), _bottom(rows)
    parts = across(scale, _TOP, bottom, axis)
    for number, row in enumerate(rows):
        y, at = _middle(number), {level: scale.percent(value) for level, value in row.percentiles.items()}
        own = [
            bar(at[low], at[high], y - height / 2, height, f"{row.kind} {band}")
            for low, high, height, band in ((1, 99, 8, "wide"), (5, 95, 12, "middle"), (25, 75, 12, "core"))
            if low in at and high in at
        ]
        if not own:
            own = [line(at[50], y, at[99], y, f"whisker {row.kind}")]
            own += [mark(at[level], y, "tick", f"cross {row.kind}") for level in (95, 99)]
            own.append(mark(at[50], y, ROLES.get(row.kind, "circle"), row.kind))
        else:
            own.append(mark(at[50], y, "tick", "median"))
        parts.append(of_model(row.name, [*_words(number, row), *own]))
    return _drawing(parts, rows, title)


def stacks(rows: Sequence[Stack], axis: str, title: str, scale: float = 1.0) -> Drawing:
    """Bars from 0, their amounts one after the other, in units of `scale`. Raises ValueError without a row."""
    lengths = linear_axis([sum(amount for amount, _ in row.amounts) / scale for row in rows], zero=True)
    parts = across(lengths, _TOP, _bottom(rows), axis)
    for number, row in enumerate(rows):
        start, own = 0.0, []
        for amount, kind in row.amounts:
            stop = start + amount / scale
            own.append(bar(lengths.percent(start), lengths.percent(stop), _middle(number) - 6, 12, f"part {kind}"))
            start = stop
        if lengths.percent(start) < _SEEN and row.amounts:
            own = [bar(0, _SEEN, _middle(number) - 6, 12, row.amounts[0][1])]
        parts += [*_words(number, row), *own]
    return _drawing(parts, rows, title)


def _drawing(parts: Sequence[str], rows: Sequence[Row], title: str) -> Drawing:
    spoken = "; ".join(f"{row.words}: {row.figure}" for row in rows)
    return Drawing(parts, _bottom(rows) + 42, title, spoken)


def _bottom(rows: Sequence[Row]) -> int:
    return _TOP + _ROW * len(rows) + 4


def _middle(number: int) -> float:
    return _TOP + _ROW * number + 29


def _words(number: int, row: Row) -> list[str]:
    """The words whole where there is room for both, shortened where a page is too narrow."""
    y, room = _TOP + _ROW * number + 14, max(8, _FITS - len(row.figure))
    figure = text(100, y, row.figure, "end", "number")
    if len(row.words) <= room:
        return [text(0, y, row.words, "start", "name"), figure]
    shortened = text(0, y, row.words[: room - 1] + "…", "start", "name short")
    return [text(0, y, row.words, "start", "name long"), shortened, figure]
