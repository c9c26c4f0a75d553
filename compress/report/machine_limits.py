"""The roofline section: what the device could do, and what a bundle's graphs do on it (`slimrec bench --json`)."""

from collections.abc import Sequence

from benchmarks.bench.record import BenchResult, BenchRow, Roof
from benchmarks.charts.roofline import Work, roofline
from benchmarks.result import Result
from compress.report.parts import Figure, Line, Section, Table
from compress.report.words import NONE, milliseconds, number, size

_NAME, _TITLE = "roofline", "How near to the machine's limits"
_HOW = "slimrec bench RUN/bundle.slim --json > bench.json && slimrec report RUN --bench bench.json"


def roofline_section(result: Result, found: Sequence[BenchResult]) -> Section:
    """The graphs of the bundles in `found` under the roof of one number of threads, the fewest that was measured."""
    roofs = {roof.threads: roof for one in found for roof in one.roofs}
    rows = [(one, row) for one in found for row in one.latency if row.floor is not None and row.threads in roofs]
    if not rows:
        why = "A run does not measure the machine's own memory bandwidth and matrix throughput; bench does:"
        return Section(_NAME, _TITLE, absent=why, command=_HOW)
    threads = min(row.threads for _, row in rows)
    shown = [(one, row) for one, row in rows if row.threads == threads]
    roof, works = roofs[threads], [_work(one, row, len(found) > 1) for one, row in shown]
    strangers = [one.bundle.path for one in found if result.bundle and one.bundle.digest != result.bundle.digest]
    words = [
        f"The machine on {threads} thread{'s' if threads != 1 else ''}: {_rates(roof)}. A graph below a sloping line "
        "waits for memory, below a level one for arithmetic; the floor is the longer of reading its weights once and "
        f"multiplying them out. Measured on {found[0].machine.cpu}."
    ]
    if strangers:
        words.append(f"Not the bundle of this run: {', '.join(strangers)}.")
    columns = [
        "graph",
        "bound by",
        "batch",
        "history",
        "items",
        "reads",
        "operations",
        "floor ms",
        "p50 ms",
        "p50 / floor",
    ]
    lines = [_line(one, row, len(found) > 1) for one, row in shown]
    drawing = roofline([work for work in works if work.rate > 0], _slopes(roof), _ceilings(roof))
    return Section(
        _NAME,
        _TITLE,
        words,
        figures=[Figure("roofline-drawn", drawing)],
        tables=[Table("Floors", columns, lines, texts=2)],
    )


def _slopes(roof: Roof) -> dict[str, float]:
    largest, best = roof.gb_per_s[max(roof.gb_per_s, key=int)], max(roof.gb_per_s.values())
    slopes = {f"memory {largest:.3g} GB/s": largest}
    return slopes if best <= largest * 1.05 else {f"caches {best:.3g} GB/s": best} | slopes


def _ceilings(roof: Roof) -> dict[str, float]:
    ceilings = {f"fp32 {roof.gflops:.3g} Gop/s": roof.gflops}
    return ceilings if roof.int8_gops is None else ceilings | {f"INT8 {roof.int8_gops:.3g} Gop/s": roof.int8_gops}


def _rates(roof: Roof) -> str:
    return ", ".join([*_slopes(roof), *_ceilings(roof)])


def _name(one: BenchResult, row: BenchRow, several: bool) -> str:
    swept = f" batch {row.batch}" if row.batch > 1 else ""
    return f"{one.bundle.path + ' ' if several else ''}{row.precision}{swept}"


def _work(one: BenchResult, row: BenchRow, several: bool) -> Work:
    assert row.floor is not None
    operations = row.floor.flops + row.floor.int8_ops
    words = (
        f"{_name(one, row, several)}, history {row.history}, {row.items:,} items: {number(row.floor.times_floor, 1)} "
        f"times its floor, bound by {row.floor.bound}"
    )
    kind = "student" if row.precision == "int8" else "control"
    intensity = operations / max(row.floor.bytes_read, 1)
    return Work(_name(one, row, several), words, kind, intensity, operations / row.p50_ms / 1e6)


def _line(one: BenchResult, row: BenchRow, several: bool) -> Line:
    floor = row.floor
    assert floor is not None
    operations = floor.flops + floor.int8_ops
    cells = [_name(one, row, several), floor.bound, str(row.batch), str(row.history), f"{row.items:,}"]
    cells += [size(floor.bytes_read), f"{operations:,}" if operations else NONE]
    return Line([*cells, milliseconds(floor.floor_ms), milliseconds(row.p50_ms), number(floor.times_floor, 1)])
