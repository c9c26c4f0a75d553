"""The verbs `slimrec bench` and `slimrec evaluate`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.result import BenchResult, EvaluateResult

BUNDLE = click.Path(path_type=Path)


@click.command("bench")
@click.argument("bundles", nargs=-1, required=True, type=BUNDLE, metavar="BUNDLE...")
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Threads of one request.")
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Histories per request.")
@click.option("--history", type=click.IntRange(1), help="Items in each history.  [default: 20, or the bundle's most]")
@click.option("-k", "k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Items per answer.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=10.0,
    show_default=True,
    help="The most that one precision is timed for; 1,000 runs end it earlier.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per bundle.")
def bench(
    bundles: tuple[Path, ...],
    device: str,
    threads: int,
    batch: int,
    history: int | None,
    k: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure latency, memory and load time of each BUNDLE on this machine.

    From raw item ids to raw item ids; every precision of every bundle is timed in interleaved rounds of one process.
    Memory and load time are those of a fresh process that loads the bundle and answers once.
    """
    from benchmarks.bench import Conditions, bench_bundles

    conditions = Conditions(
        device=device,  # type: ignore[arg-type]  # click has checked the choice
        threads=threads,
        batch=batch,
        history=history,
        k=k,
        seconds=seconds,
    )
    for result in bench_bundles(bundles, conditions):
        if as_json:
            click.echo(result.to_json())
        else:
            _print_bench(result)


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


def _print_bench(result: "BenchResult") -> None:
    click.echo(f"{result.bundle.path}  {_megabytes(result.bundle.size_bytes)}  {result.bundle.digest[:19]}")
    machine = result.machine
    load = f", load {machine.load_average[0]:g}" if machine.load_average else ""
    click.echo(f"{machine.cpu}, {machine.cores} cores, {' '.join(machine.flags) or 'no known flags'}{load}")
    rows = [("device", "precision", "p50 ms", "p95 ms", "p99 ms", "per second", "runs")]
    for row in result.latency:
        times = (f"{row.p50_ms:.3f}", f"{row.p95_ms:.3f}", f"{row.p99_ms:.3f}", f"{row.per_second:.0f}", f"{row.runs}")
        rows.append((row.device, row.precision or "", *times))
    if result.latency:
        _print_table(rows)
        first = result.latency[0]
        click.echo(
            f"ids to ids: {first.items} items, history {first.history}, top {first.k}, "
            f"batch {first.batch}, {first.threads} thread(s)"
        )
    if result.rss_mb is not None and result.load_ms is not None:
        click.echo(f"a fresh process: {result.rss_mb:.0f} MB at its peak, first answer after {result.load_ms:.0f} ms")
    for absent in result.not_measured:
        click.echo(f"not measured: {absent.what} ({absent.why})")


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


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
