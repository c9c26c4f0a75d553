"""Large catalogues: how long one user's scan of the item table takes, beside what reading the table's bytes takes.

`python -m benchmarks.scan [ITEMS]...` writes `benchmarks/results/scan.{json,md}`. The graphs are the quantize stage's,
of a student with random weights: times do not depend on them, and for INT8's recall random vectors are a hard case.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import commit, describe_machine
from benchmarks.result import Machine, Record
from benchmarks.tables import RESULTS
from deploy.ranker import Ranker, Rows

SIZES = (12_000, 100_000, 1_000_000)
DIM, HISTORY, K = 64, 20, 100
ROUNDS = 8


class ScanRow(Record):
    """One catalogue and precision. Times of `Ranker.rank`, history to the best 100, in milliseconds.

    floor_ms: the fastest of 40 times that one thread read the item table's bytes. recall: of fp32's best 100.
    """

    items: int
    precision: str
    p50_ms: float
    p10_ms: float
    p99_ms: float
    floor_ms: float
    recall_at_100: float
    graph_mb: float


class Scan(Record):
    """The whole table."""

    rows: list[ScanRow]
    machine: Machine
    commit: str


def scan(items: int, folder: Path) -> list[ScanRow]:
    """Every kind of table, interleaved in rounds; needs the compress extra, which makes the graphs."""
    graphs = write_graphs(items, folder)
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, items + 1, (1, HISTORY)) for _ in range(20)]
    rankers = {precision: Ranker(path) for precision, path in graphs.items()}
    best = {precision: [_best(ranker, h) for h in histories] for precision, ranker in rankers.items()}
    times: dict[str, list[float]] = {precision: [] for precision in rankers}
    for _ in range(ROUNDS):
        for precision, ranker in rankers.items():
            times[precision] += [_timed(ranker, h) for h in histories]
    rows = []
    for precision, path in graphs.items():
        middle, low, high = np.percentile(times[precision], [50, 10, 99])
        same = [len(a & b) / K for a, b in zip(best["fp32"], best[precision], strict=True)]
        rows.append(
            ScanRow(
                items=items,
                precision=precision,
                p50_ms=round(float(middle), 3),
                p10_ms=round(float(low), 3),
                p99_ms=round(float(high), 3),
                floor_ms=round(floor_ms(items * DIM * (4 if precision == "fp32" else 1)), 3),
                recall_at_100=round(float(np.mean(same)), 4),
                graph_mb=round(path.stat().st_size / 1e6, 1),
            )
        )
    return rows


def write_graphs(items: int, folder: Path) -> dict[str, Path]:
    """History graphs of one block over `items` random vectors of 64 numbers."""
    import onnx
    import torch

    from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
    from compress.quantize.graph import history_graph
    from compress.quantize.tables import Table

    torch.manual_seed(0)
    block = BlockShape(heads=2, neurons=128)
    model = SequenceModel(SequenceShape(n_items=items, dim=DIM, head_dim=32, blocks=(block,), max_history=HISTORY))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        model.item_table[0] = 0.0
    tables: Sequence[Table] = ("fp32", "int8", "int8_rescored")
    paths = {table: folder / f"{items}.{table}.onnx" for table in tables}
    for table, path in paths.items():
        onnx.save(history_graph(model.eval(), table), path)
    return {str(table): path for table, path in paths.items()}


def floor_ms(size: int) -> float:
    """Milliseconds in which one thread reads `size` bytes, at best."""
    data = np.ones(size // 8, np.int64)
    return min(_milliseconds(data.max) for _ in range(40))


def _best(ranker: Ranker, history: Rows) -> set[int]:
    return set(ranker.rank(history, history, K)[1][0].tolist())


def _timed(ranker: Ranker, history: Rows) -> float:
    return _milliseconds(lambda: ranker.rank(history, history, K))


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def markdown(found: Scan) -> str:
    """A row per catalogue and precision."""
    lines = [
        "| items | precision | p50 ms | p10 | p99 | reading the table | p50 / reading | recall@100 | graph MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found.rows:
        lines.append(
            f"| {row.items} | {row.precision} | {row.p50_ms:.3f} | {row.p10_ms:.3f} | {row.p99_ms:.3f} "
            f"| {row.floor_ms:.3f} | {row.p50_ms / row.floor_ms:.1f} | {row.recall_at_100:.3f} | {row.graph_mb:.1f} |"
        )
    load = ", ".join(f"{value:.1f}" for value in found.machine.load_average or [])
    lines += [
        "",
        f"Vectors of {DIM} random numbers, one block over {HISTORY} events, best {K}, one thread, batch 1; "
        f"{found.machine.cpu}, {found.machine.cores} cores, load {load}; commit {found.commit}.",
    ]
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("items", nargs=-1, type=click.IntRange(1000))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS)
def main(items: tuple[int, ...], out: Path) -> None:
    """Scan catalogues of these sizes (12,000, 100,000 and 1,000,000) and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for size in items or SIZES for row in scan(size, Path(folder))]
    found = Scan(rows=rows, machine=describe_machine(), commit=commit())
    (out / "scan.json").write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
    (out / "scan.md").write_text(markdown(found), "utf-8")
    click.echo(markdown(found))


if __name__ == "__main__":
    main()
