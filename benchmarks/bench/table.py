"""A result as people read it: one table, and lines that say what may be said."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.bench.compare import against, side_of
from benchmarks.bench.record import Against, BenchResult, BenchRow, Change, ProcessRow, Side
from benchmarks.result import Machine

PIPE_WIDTH = 160
_WORK = {"history": lambda row: row.history, "batch": lambda row: row.batch, "items": lambda row: row.items}
_Text = Callable[[BenchRow], object]


def show(results: Sequence[BenchResult], console: Console | None = None) -> None:
    """Print everything that `bench` found. A pipe gets plain text of a fixed width, a narrow terminal two tables."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(*machine_lines(results[0].machine), sep="\n", markup=False)
    for result in results:
        bundle = result.bundle
        console.print(f"{bundle.path}  {bundle.size_bytes / 1e6:.2f} MB  {bundle.digest[:19]}", markup=False)
    if any(result.latency for result in results):
        tables = [table(results, SPEED | COST)]
        if _width(tables[0], console) > console.width:
            tables = [table(results, SPEED), table(results, COST)]
        for one in tables:
            # where a row is wider than the terminal, that one may break it: a cropped number is a wrong one
            console.print(one, width=_width(one, console), crop=False, no_wrap=True, overflow="ignore")
    for line in lines(results):
        console.print(line, markup=False)


def _width(one: Table, console: Console) -> int:
    """What no cell is cropped at."""
    return console.measure(one, options=console.options.update(max_width=10_000)).maximum


_Figure = Callable[[Sequence[BenchResult], BenchResult, BenchRow], str]

SPEED: dict[str, _Figure] = {
    "p50 ms": lambda _all, _own, row: f"{row.p50_ms:.3f}",
    "noise": lambda _all, _own, row: "" if row.noise is None else f"±{row.noise:.1%}",
    "p95 ms": lambda _all, _own, row: f"{row.p95_ms:.3f}",
    "p99 ms": lambda _all, _own, row: f"{row.p99_ms:.3f}",
    "a second": lambda _all, _own, row: f"{row.per_second:.0f}",
    "beside best": lambda results, own, row: _beside(results, own, row),
}
COST: dict[str, _Figure] = {
    "x graph": lambda _all, _own, row: "" if row.times_graph is None else f"{row.times_graph:.2f}",
    "x floor": lambda _all, _own, row: "" if row.floor is None else f"{row.floor.times_floor:.1f}",
    "graph MB": lambda _all, _own, row: "" if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f}",
    "RSS MB": lambda _all, own, row: _of_process(own, row, lambda process: process.rss_mb),
    "load ms": lambda _all, own, row: _of_process(own, row, lambda process: process.load_ms),
}
"""Columns by their heads. `x graph`: how many times the bare graph's time; `x floor`: the machine's."""


def table(results: Sequence[BenchResult], figures: Mapping[str, _Figure]) -> Table:
    """One row per cell. What all rows share is told once, in the caption; what no row has is left out."""
    rows = [(result, row) for result in results for row in result.latency]
    columns: dict[str, _Text] = {"device": lambda row: row.device, "threads": lambda row: row.threads, **_WORK}
    varying = {name: text for name, text in columns.items() if len({text(row) for _, row in rows}) > 1}
    shared = [f"{name} {text(rows[0][1])}" for name, text in columns.items() if name not in varying]
    found = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=f"ids to ids, top {rows[0][1].k}, {', '.join(shared)}",
        caption_justify="left",
    )
    cells = {name: [figure(results, result, row) for result, row in rows] for name, figure in figures.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    if len(results) > 1:
        found.add_column("bundle", overflow="fold")
    found.add_column("precision", no_wrap=True)
    for name in (*varying, *cells):
        found.add_column(name, justify="right", no_wrap=True)
    for number, (result, row) in enumerate(rows):
        bundle = [result.bundle.path] if len(results) > 1 else []
        own = [row.precision or "", *(str(text(row)) for text in varying.values())]
        found.add_row(*bundle, *own, *(column[number] for column in cells.values()))
    return found


def _of_process(result: BenchResult, row: BenchRow, figure: Callable[[ProcessRow], float]) -> str:
    """Of the fresh process that opened what the row timed; empty where none did."""
    wanted = (row.device, row.precision, row.threads, row.items)
    found = (one for one in result.processes if (one.device, one.precision, one.threads, one.items) == wanted)
    return next((f"{figure(process):.0f}" for process in found), "")


def _beside(results: Sequence[BenchResult], result: BenchResult, row: BenchRow) -> str:
    """How the row stands to the fastest of its work."""
    best_result, best = min(_alike(results, row), key=lambda pair: pair[1].p50_ms)
    if best is row:
        return "best" if len(_alike(results, row)) > 1 else ""
    comparisons = [*result.comparisons, *best_result.comparisons]
    verdicts = against(side_of(row, result.bundle.path), _work(row), comparisons)
    verdict = verdicts.get(side_of(best, best_result.bundle.path), "tie")
    times = f"{row.p50_ms / best.p50_ms:.2f}x"
    return f"{times} slower" if verdict == "slower" else f"{times} a tie"


def _alike(results: Sequence[BenchResult], row: BenchRow) -> list[tuple[BenchResult, BenchRow]]:
    return [(result, one) for result in results for one in result.latency if _work(one) == _work(row)]


def _work(row: BenchRow) -> tuple[int, int, int]:
    return row.batch, row.history, row.items


def lines(results: Sequence[BenchResult]) -> Iterator[str]:
    """Who is fastest, what the machine did meanwhile, what is not measured."""
    yield from winners(results)
    method = results[0].method
    if method is not None:
        elsewhere = "" if method.busy_elsewhere is None else f"; others took {method.busy_elsewhere:.0%} of the CPUs"
        steal = f", the hypervisor {method.steal:.0%}" if method.steal else ""
        yield f"{method.rounds} interleaved rounds, sessions opened anew in each{elsewhere}{steal}"
    for roof in results[0].roofs:
        sizes = {int(size): rate for size, rate in roof.gb_per_s.items()}
        int8 = "" if roof.int8_gops is None else f", {roof.int8_gops:.0f} GOP/s INT8"
        yield (
            f"machine, {roof.threads} thread(s): {max(sizes.values()):.1f} GB/s from caches, {sizes[max(sizes)]:.1f} "
            f"GB/s over {max(sizes) >> 20} MB, {roof.gflops:.0f} GFLOP/s{int8}"
        )
    cores = results[0].machine.cores
    crowded = sorted({row.threads for result in results for row in result.latency if row.threads > cores})
    if crowded:
        yield f"threads {', '.join(map(str, crowded))}: more than the {cores} core(s) that this process may use"
    for result in results:
        unsettled = sum(row.unsettled for row in result.latency)
        if unsettled:
            yield f"{result.bundle.path}: {unsettled} warm-up(s) ended before the times had settled: measure longer"
        for absent in result.not_measured:
            yield f"not measured: {absent.what} ({absent.why})"
        if result.against is not None:
            yield from against_lines(result.against)


def winners(results: Sequence[BenchResult]) -> Iterator[str]:
    """A line per work on which more than one cell was measured. Nobody wins inside the noise."""
    rows = [(result, row) for result in results for row in result.latency]
    rows.sort(key=lambda pair: _work(pair[1]))
    method = results[0].method
    or_tolerance = f" or {method.tolerance:.0%}" if method else ""
    for (batch, history, items), group in groupby(rows, key=lambda pair: _work(pair[1])):
        alike = list(group)
        if len(alike) < 2:
            continue
        result, best = min(alike, key=lambda pair: pair[1].p50_ms)
        side = side_of(best, result.bundle.path)
        verdicts = against(side, (batch, history, items), result.comparisons)
        ties = [other for other, verdict in verdicts.items() if verdict != "faster"]
        where = f"batch {batch}, history {history}, {items} items"
        several = len(results) > 1
        if ties:
            names = ", ".join(_name(other, several) for other in (side, *ties))
            yield f"{where}: no winner, within noise{or_tolerance} of each other: {names}"
        else:
            yield f"{where}: {_name(side, several)} is the fastest (Holm-corrected p < .05 against each of the others)"


def _name(side: Side, several: bool) -> str:
    where = f"{side.precision} ({side.device}, {side.threads} thread{'s' if side.threads > 1 else ''})"
    return f"{side.bundle} {where}" if several else where


def against_lines(found: Against) -> Iterator[str]:
    """What changed, worst first."""
    yield f"against {found.file}: the machine's yardstick takes {found.yardstick_ratio:.2f} times what it took then"
    yield from (f"  {note}" for note in found.notes)
    for change in sorted(found.changes, key=lambda change: -change.ratio):
        yield f"  {change_line(change)}"


def change_line(change: Change) -> str:
    """One number then and now, with its interval and verdict."""
    grid = {"threads": change.threads, "batch": change.batch, "history": change.history, "items": change.items}
    where = ", ".join(f"{name} {value}" for name, value in grid.items() if value is not None)
    low, high = change.ci95
    return (
        f"{change.what} of {change.precision} on {change.device} ({where}): {change.then:.3f} -> {change.now:.3f}, "
        f"{change.ratio:.3f} times [{low:.3f}, {high:.3f}], {change.verdict}"
    )


def machine_lines(machine: Machine) -> list[str]:
    """What the figures depend on."""
    cores = f"{machine.cores} of {machine.cores_online} cores" if machine.cores_online else f"{machine.cores} cores"
    limits = [f"cgroup {machine.cpu_quota:g} CPUs"] if machine.cpu_quota else []
    if machine.threads_per_core:
        limits.append(f"{machine.threads_per_core} thread(s) a core")
    if machine.memory_mb:
        limit = f", cgroup {machine.memory_limit_mb:.0f} MB" if machine.memory_limit_mb else ""
        limits.append(f"{machine.memory_mb:.0f} MB{limit}")
    limits.append(f"governor {machine.governor or 'not told'}")
    if machine.gpu:
        limits.append(machine.gpu)
    load = [f"load {machine.load_average[0]:g}"] if machine.load_average else []
    if machine.waiting is not None:
        load.append(f"something waited for a CPU {machine.waiting:.0%} of the last minute")
    wanted = ("python", "numpy", "onnxruntime", "onnxruntime-gpu")
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in wanted if name in machine.versions)
    return [
        f"{machine.cpu}, {cores}, {' '.join(machine.flags) or 'no known flags'}",
        ", ".join([*limits, *load]),
        versions,
    ]
