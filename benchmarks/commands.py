"""The verbs `slimrec bench` and `slimrec evaluate`."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.result import EvaluateResult

BUNDLE = click.Path(path_type=Path)


def numbers(low: int, high: int) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...]]:
    """A callback for options such as `1,8,64`: whole numbers within bounds, in the order given, each once."""

    def parse(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...]:
        if text is None:
            return ()
        parts = [part.strip() for part in text.split(",")]
        found = [int(part) for part in parts if part.isdecimal() and low <= int(part) <= high]
        if len(found) < len(parts) or len(set(found)) < len(found):
            raise click.BadParameter(
                f"must be different numbers from {low} to {high}, with commas between (got {text!r})"
            )
        return tuple(found)

    return parse


@click.command("bench")
@click.argument("bundles", nargs=-1, required=True, type=BUNDLE, metavar="BUNDLE...")
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="auto", show_default=True)
@click.option(
    "--threads",
    metavar="N,...",
    callback=numbers(1, 1024),
    default="1",
    show_default=True,
    help="Threads of one request.",
)
@click.option(
    "--batch", metavar="N,...", callback=numbers(1, 4096), default="1", show_default=True, help="Histories per request."
)
@click.option(
    "--history",
    metavar="N,...",
    callback=numbers(1, 100_000),
    help="Items in each history.  [default: 20, or the bundle's most]",
)
@click.option(
    "--items",
    metavar="N,...",
    callback=numbers(2, 100_000_000),
    help="Catalogue sizes: the bundle's tables with rows drawn again, or fewer.  [default: the bundle's own]",
)
@click.option("-k", "k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Items per answer.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=10.0,
    show_default=True,
    help="The most that one row is timed for; 1,000 runs end it earlier.",
)
@click.option("--rounds", type=click.IntRange(3, 1000), default=10, show_default=True, help="Rounds of all rows.")
@click.option(
    "--cold-starts",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    help="Fresh processes for memory and load time.",
)
@click.option(
    "--roofline/--no-roofline", default=True, show_default=True, help="Hold rows against the machine's limits."
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with an earlier `bench --json` of this machine; exit 3 where something is slower.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 10),
    default=0.05,
    show_default=True,
    help="The relative difference up to which times count as the same.",
)
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg", help="Draw the rows.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per bundle.")
def bench(
    bundles: tuple[Path, ...],
    against: Path | None,
    chart: Path | None,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Measure latency, memory and load time of each BUNDLE on this machine.

    From raw item ids to raw item ids; options that take several numbers, as 1,8,64, make a grid, and every row of it is
    timed in interleaved rounds of one process, its session opened anew in each. Nobody is called faster inside the
    noise or the tolerance. Memory and load time are those of fresh processes that open the bundle and answer once.
    """
    from benchmarks.bench.against import Earlier
    from benchmarks.bench.chart import write_chart
    from benchmarks.bench.conditions import Conditions
    from benchmarks.bench.run import bench_bundles
    from benchmarks.bench.table import show
    from benchmarks.machine import describe_machine

    grid = Conditions(**conditions)
    machine = describe_machine()
    paths = [str(path) for path in bundles]
    earlier = None if against is None else Earlier.read(against, machine, paths, grid)
    with _progress() as progress:
        results = bench_bundles(bundles, grid, progress=progress, machine=machine)
    if earlier is not None:
        results = earlier.beside(results)
    if as_json:
        for result in results:
            click.echo(result.to_json())
    else:
        show(results)
    if chart is not None:
        write_chart(results, chart)
    if earlier is not None:
        earlier.refuse_regressions(results)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A line on a terminal's stderr. Drawn between blocks by this thread: a drawing thread would be timed too."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    try:
        yield lambda what, done, total: click.echo(f"\r\033[K{what} {done}/{total}", nl=False, err=True)
    finally:
        click.echo("\r\033[K", nl=False, err=True)


@click.command("evaluate")
@click.argument("bundle", type=BUNDLE)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--columns",
    default="",
    metavar="ROLE=NAME,...",
    help="Column names where they differ, such as user=customer,item=sku,time=bought_at.",
)
@click.option("--precision", "precisions", multiple=True, help="Only this precision (may be given again).")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(bundle: Path, data: Path, columns: str, precisions: tuple[str, ...], threads: int, as_json: bool) -> None:
    """Measure the accuracy of BUNDLE on the interactions in DATA.

    DATA is a folder of RecBole atomic files, or a CSV or Parquet file. Each user's last event is the target and
    the events before it are the history; the full catalogue is ranked and items already seen are excluded.
    """
    from benchmarks.evaluate import evaluate_bundle

    result = evaluate_bundle(bundle, data, parse_columns(columns), precisions or None, threads)
    if as_json:
        click.echo(result.to_json())
    else:
        _print_evaluate(result)


def parse_columns(text: str) -> dict[str, str]:
    """`user=customer,item=sku` -> mapping. Raises UsageError."""
    pairs: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not (role and equals and name) or role in pairs:
            raise UsageError(f"--columns: must be ROLE=NAME pairs, each role once (got {part!r})")
        pairs[role] = name
    return pairs


def _print_evaluate(result: "EvaluateResult") -> None:
    data, left = result.dataset, result.left_out
    click.echo(f"{result.bundle.path} on {data.name}: {data.users} users, {data.interactions} known events")
    rows = [("precision", "NDCG@10", "95 % interval", "recall@10", "MRR", "coverage@10")]
    for entry in result.accuracy:
        found = entry.test
        low, high = found.ndcg_10_ci95 or (float("nan"), float("nan"))
        means = (found.recall_10, found.mrr, found.coverage_10)
        shown = (f"{found.ndcg_10:.4f}", f"{low:.4f}..{high:.4f}", *(f"{value:.4f}" for value in means))
        rows.append((entry.precision, *shown))  # type: ignore[arg-type]  # three means
    _print_table(rows)
    click.echo(
        f"left out: {left.events_of_unknown_items} events of unknown items, "
        f"{left.users_with_too_few_events} users with fewer than 2 known events; "
        f"{left.targets_seen_before} targets had been seen before and count as not found"
    )


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    lines = list(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
