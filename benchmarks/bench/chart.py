"""`--chart FILE.svg`: the rows as one self-contained drawing, which any browser and GitHub show."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.bench.record import BenchResult, BenchRow
from benchmarks.line_chart import COLOURS, Point, line_chart, round_step, svg, svg_text
from deploy.errors import UsageError

SWEPT: dict[str, Callable[[BenchRow], int]] = {
    "items": lambda row: row.items,
    "batch": lambda row: row.batch,
    "history": lambda row: row.history,
    "threads": lambda row: row.threads,
}
_WIDTH, _LEFT, _RIGHT, _LINE, _TOP, _BOTTOM = 720, 260, 30, 26, 30, 46

Rows = Sequence[tuple[str, BenchRow]]
"""The bundle's name and a row of it."""


def write_chart(results: Sequence[BenchResult], out: Path) -> None:
    """Write `chart` to `out`. Raises UsageError where nothing was measured or the file cannot be written."""
    drawing = chart(results)
    try:
        out.write_text(drawing, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror or error})") from None


def chart(results: Sequence[BenchResult]) -> str:
    """The median over the number that was swept most, a line for each rest of the grid, bars from the fastest to the
    slowest round, both axes logarithmic; where nothing was swept, each row from its median to its 99th percentile."""
    rows = [(result.bundle.path if len(results) > 1 else "", row) for result in results for row in result.latency]
    if not rows:
        raise UsageError("--chart: no row was measured")
    values = {name: sorted({of(row) for _, row in rows}) for name, of in SWEPT.items()}
    swept = max(values, key=lambda name: len(values[name]))
    if len(values[swept]) == 1:
        return _ranges(rows)
    several_devices = len({row.device for _, row in rows}) > 1
    lines: dict[str, list[Point]] = {}
    for bundle, row in sorted(rows, key=lambda pair: SWEPT[swept](pair[1])):
        ends = row.round_p50_ms or [row.p50_ms]
        point = Point(SWEPT[swept](row), row.p50_ms, min(*ends, row.p50_ms), max(*ends, row.p50_ms))
        rest = [f"{name} {SWEPT[name](row)}" for name, found in values.items() if name != swept and len(found) > 1]
        device = row.device if several_devices else ""
        lines.setdefault(" ".join(filter(None, [bundle, row.precision, device, *rest])), []).append(point)
    return line_chart(lines, swept, "p50 ms", {value: f"{value:,}" for value in values[swept]}, logarithmic=True)


def _ranges(rows: Rows) -> str:
    step = round_step(max(row.p99_ms for _, row in rows) / 6)
    marks = range(int(max(row.p99_ms for _, row in rows) / step) + 2)
    scale = (_WIDTH - _LEFT - _RIGHT) / (marks[-1] * step)
    bottom = _TOP + _LINE * len(rows)
    parts = [f'<rect width="{_WIDTH}" height="{bottom + _BOTTOM}" fill="white"/>']
    for mark in marks:
        x = _LEFT + mark * step * scale
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(svg_text(x, bottom + 18, f"{mark * step:.3g}", "middle"))
    parts.append(svg_text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 38, "ms: median, 95th and 99th percentile", "middle"))
    for number, (bundle, row) in enumerate(rows):
        y = _TOP + _LINE * (number + 0.5)
        x50, x95, x99 = (_LEFT + value * scale for value in (row.p50_ms, row.p95_ms, row.p99_ms))
        colour = COLOURS[number % len(COLOURS)]
        name = " ".join(filter(None, [bundle[-24:], row.precision, f"{row.device}, {row.threads} thread(s)"]))
        parts.append(svg_text(_LEFT - 10, y + 4, name, "end"))
        parts.append(f'<path d="M{x50:.1f} {y}H{x99:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<path d="M{x95:.1f} {y - 5}v10M{x99:.1f} {y - 5}v10" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x50:.1f}" cy="{y}" r="4" fill="{colour}"/>')
    return svg(parts, _WIDTH, bottom + _BOTTOM, "latency of each row")
