"""`--chart FILE.svg`: the rows as one self-contained drawing, which any browser and GitHub show."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.bench.record import BenchResult, BenchRow
from benchmarks.charts.rows import Spread, spreads
from benchmarks.charts.style import SERIES
from benchmarks.line_chart import Point, line_chart
from deploy.errors import UsageError

SWEPT: dict[str, Callable[[BenchRow], int]] = {
    "items": lambda row: row.items,
    "batch": lambda row: row.batch,
    "history": lambda row: row.history,
    "threads": lambda row: row.threads,
}
_WIDTH = 720

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
    slowest round, both axes logarithmic; where nothing was swept, each row's distribution."""
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
    spread = [
        Spread(
            name="",
            words=" ".join(filter(None, [bundle[-24:], row.precision, f"{row.device}, {row.threads} thread(s)"])),
            figure=f"{row.p50_ms:.3f} ms, p99 {row.p99_ms:.3f}",
            kind=f"s{number % len(SERIES['light'])}",
            percentiles={50: row.p50_ms, 95: row.p95_ms, 99: row.p99_ms} | (row.percentiles_ms or {}),
        )
        for number, (bundle, row) in enumerate(rows)
    ]
    title = "ms: the median, and bands to the 25th and 75th, the 5th and 95th, the 1st and 99th percentile"
    return replace(spreads(spread, title, "latency of each row"), left=16).standalone(_WIDTH)
