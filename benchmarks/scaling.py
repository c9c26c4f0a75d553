"""What an answer costs as catalogue, history, batch, threads and the student grow, and the cost model that follows.

`python -m benchmarks.scaling` writes `benchmarks/results/scaling.{json,md,svg}`; `--cost FILE` the fit, which `slimrec
plan` and `advise` take from `$SLIMREC_COST`. The graphs are the quantize stage's with random weights: times do not
depend on them. Each cell is timed from raw ids to raw ids, opened anew in every round.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from pathlib import Path

import click
import numpy as np
from pydantic import Field

from benchmarks.candidates import IdMap
from benchmarks.cost_model import CostModel, Precision, Shape, fit
from benchmarks.line_chart import Point, line_chart
from benchmarks.machine import commit, describe_machine
from benchmarks.measure import Call, Case, Latency, reopened
from benchmarks.result import Machine, NotMeasured, Record
from benchmarks.tables import RESULTS
from deploy.ranker import Ranker

BASE = Shape(items=12_000, dim=64)
ITEMS = (1_000, 10_000, 100_000, 1_000_000)
LARGEST = Shape(items=10_000_000, dim=16)
SWEEPS: Mapping[str, Sequence[int]] = {
    "history": (10, 20, 50, 100, 200, 500),
    "batch": (1, 4, 16, 64),
    "threads": (1, 2),
    "dim": (16, 32, 64, 128),
    "blocks": (1, 2, 4),
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
K, ROUNDS, QUERIES = 10, 4, 16
_BYTES_PER_NUMBER = 16  # of a table while its graph is made and opened


class ScalingRow(Record):
    """A cell: from raw ids to raw ids, in milliseconds. `predicted_ms`: the model's p50; `held_out`: not fitted to."""

    shape: Shape
    sweep: str
    held_out: bool
    p50_ms: float
    p95_ms: float
    p99_ms: float
    round_p50_ms: list[float]
    predicted_ms: float


class Scaling(Record):
    """The whole table."""

    rows: list[ScalingRow]
    model: CostModel
    machine: Machine
    commit: str
    not_measured: list[NotMeasured] = Field(default=[])


@dataclass(frozen=True)
class Cell:
    """What is timed, the sweep that it belongs to, and whether the fit may see it."""

    shape: Shape
    sweep: str
    held_out: bool = False


def grid(seed: int = 0, held_out: int = 12) -> list[Cell]:
    """One sweep through each number, all else as in `BASE`, two blocks where histories grow; and mixed cells, drawn at
    random, which the fit does not see."""
    cells = [Cell(BASE.model_copy(update={"items": n, "precision": p}), "items") for n, p in product(ITEMS, PRECISIONS)]
    cells += [Cell(LARGEST.model_copy(update={"precision": p}), "items") for p in PRECISIONS]
    cells += [
        Cell(BASE.model_copy(update={"items": 1_000_000, "threads": 2, "precision": p}), "threads") for p in PRECISIONS
    ]
    for name, values in SWEEPS.items():
        more = {"blocks": 2} if name == "history" else {}
        cells += [
            Cell(BASE.model_copy(update=more | {name: value, "precision": precision}), name)
            for value, precision in product(values, PRECISIONS)
        ]
    rng = np.random.default_rng(seed)
    for number in range(held_out):
        drawn = {name: int(rng.choice(values)) for name, values in SWEEPS.items() if name not in ("threads", "batch")}
        drawn |= {"items": int(rng.choice([3_000, 30_000, 300_000])), "batch": int(rng.choice([1, 1, 8]))}
        cells.append(Cell(BASE.model_copy(update=drawn | {"precision": PRECISIONS[number % 2]}), "mixed", True))
    once = {cell.shape: cell for cell in reversed(cells)}
    return list(reversed(once.values()))


def write_graph(shape: Shape, out: Path) -> Path:
    """The quantize stage's graph of a student of random weights; needs the compress extra."""
    import onnx
    import torch

    from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
    from compress.quantize.graph import history_graph

    torch.manual_seed(0)
    block = BlockShape(heads=2, neurons=2 * shape.dim)
    sizes = SequenceShape(
        n_items=shape.items,
        dim=shape.dim,
        head_dim=shape.dim // 2,
        blocks=(block,) * shape.blocks,
        max_history=shape.history,
    )
    model = SequenceModel(sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        model.item_table[0] = 0.0
    onnx.save(history_graph(model.eval(), shape.precision), out)
    return out


def measure(cells: Sequence[Cell], folder: Path, seconds: float, progress: Call) -> dict[Cell, Latency]:
    """All cells, interleaved in rounds."""
    ids = {cell.shape.items: IdMap([f"i{n}" for n in range(1, cell.shape.items + 1)]) for cell in cells}
    graphs: dict[Shape, Path] = {}
    cases: dict[str, Case] = {}
    for number, cell in enumerate(cells):
        one = cell.shape.model_copy(update={"batch": 1, "threads": 1})
        if one not in graphs:
            graphs[one] = write_graph(one, folder / f"{number}.onnx")
        cases[str(number)] = Case(partial(_open, cell.shape, graphs[one], ids[cell.shape.items]), cell.shape.batch)
    timed = reopened(cases, rounds=ROUNDS, min_runs=1000, min_seconds=seconds, progress=progress)
    return {cell: timed[str(number)] for number, cell in enumerate(cells)}


def _open(shape: Shape, graph: Path, items: IdMap) -> Call:
    ranker, rng = Ranker(graph, threads=shape.threads), np.random.default_rng(1)
    rows = rng.integers(1, shape.items + 1, (QUERIES, shape.batch, shape.history))
    questions = cycle([[[f"i{row}" for row in line] for line in some] for some in rows.tolist()])

    def ask() -> object:
        history, earlier = items.rows(next(questions), shape.history)
        if len(history) > 1:
            scores, best = ranker.rank(history, earlier, K)
        else:
            told, found = ranker.best(history[0].tolist(), [], K)
            scores, best = np.array([told], np.float32), np.array([found], np.int64)
        return items.ids(best, scores)

    return ask


def scaling(cells: Sequence[Cell], seconds: float = 0.8, progress: Call = lambda: None) -> Scaling:
    """Measure and fit. What memory does not bear is left out, and said."""
    fits = [cell for cell in cells if cell.shape.items * cell.shape.dim * _BYTES_PER_NUMBER < _free_bytes()]
    missing = [
        NotMeasured(what=f"{cell.shape.items} items, {cell.shape.precision}", why="not enough free memory")
        for cell in cells
        if cell not in fits
    ]
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="slimrec-scaling-") as folder:
        timed = measure(fits, Path(folder), seconds, progress)
    model = cost_model(timed, machine)
    rows = [
        ScalingRow(
            shape=cell.shape,
            sweep=cell.sweep,
            held_out=cell.held_out,
            p50_ms=round(found.p50_ms, 4),
            p95_ms=round(found.p95_ms, 4),
            p99_ms=round(found.p99_ms, 4),
            round_p50_ms=[round(float(value), 4) for value in found.round_medians()],
            predicted_ms=round(model.p50_ms(cell.shape), 4),
        )
        for cell, found in timed.items()
    ]
    return Scaling(rows=rows, model=model, machine=machine, commit=commit(), not_measured=missing)


def cost_model(timed: Mapping[Cell, Latency], machine: Machine) -> CostModel:
    """Fitted to the medians of rounds' medians: a round in which another job had the core moves them least."""
    middle = {cell: float(np.median(found.round_medians())) for cell, found in timed.items()}
    seen = [cell for cell in timed if not cell.held_out]
    model = CostModel(
        machine=f"{machine.cpu}, {machine.cores} cores",
        commit=commit(),
        coefficients=fit([cell.shape for cell in seen], [middle[cell] for cell in seen]),
        p95_over_p50=float(np.median([found.p95_ms / found.p50_ms for found in timed.values()])),
        fitted_cells=len(seen),
        held_out_cells=len(timed) - len(seen),
        held_out_median_error=0.0,
        held_out_worst_error=0.0,
        most_items=max(cell.shape.items for cell in timed),
        most_history=max(cell.shape.history for cell in timed),
    )
    errors = [abs(model.p50_ms(cell.shape) / middle[cell] - 1) for cell in timed if cell.held_out] or [0.0]
    worst = {"held_out_median_error": float(np.median(errors)), "held_out_worst_error": max(errors)}
    return model.model_copy(update=worst)


def _free_bytes() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return 4 << 30


def chart(found: Scaling) -> str:
    """Catalogue and history, by precision, both axes logarithmic; `predicted` is the model's."""
    lines: dict[str, list[Point]] = {}
    rows = sorted((row for row in found.rows if row.sweep == "items"), key=lambda row: row.shape.items)
    for row in rows:
        low, high = min(row.round_p50_ms), max(row.round_p50_ms)
        lines.setdefault(row.shape.precision, []).append(Point(row.shape.items, row.p50_ms, low, high))
        value = row.predicted_ms
        predicted = lines.setdefault(f"{row.shape.precision} model", [])
        predicted.append(Point(row.shape.items, value, value, value))
    ticks = {float(row.shape.items): f"{row.shape.items:,}" for row in rows}
    return line_chart(lines, "items", "p50 ms, ids to ids", ticks, logarithmic=True)


def markdown(found: Scaling) -> str:
    """A row per cell, the model's terms, and how far it is off."""
    lines = [
        "| sweep | items | dim | blocks | history | batch | threads | precision | p50 ms | p95 | p99 | model p50 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found.rows:
        s = row.shape
        lines.append(
            f"| {row.sweep} | {s.items:,} | {s.dim} | {s.blocks} | {s.history} | {s.batch} | {s.threads} "
            f"| {s.precision} | {row.p50_ms:.3f} | {row.p95_ms:.3f} | {row.p99_ms:.3f} | {row.predicted_ms:.3f} |"
        )
    model, machine = found.model, found.machine
    lines += ["", "| term | ms per unit |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in model.coefficients.items()]
    lines += [f"- not measured: {one.what}: {one.why}" for one in found.not_measured]
    load = ", ".join(f"{value:.1f}" for value in machine.load_average or [])
    lines += [
        "",
        f"Ids to ids, best {K}, students of random weights (10,000,000 items have {LARGEST.dim} dimensions); "
        f"{ROUNDS} interleaved rounds; {machine.cpu}, {machine.cores} cores, load {load}; commit {found.commit}. The "
        f"model saw {model.fitted_cells} cells; on the {model.held_out_cells} mixed ones it is off by "
        f"{model.held_out_median_error:.0%} in the middle, {model.held_out_worst_error:.0%} at most. p95 is p50 times "
        f"{model.p95_over_p50:.2f}.",
    ]
    return "\n".join(lines) + "\n"


def counted(total: int) -> Iterator[int]:
    """Counts blocks on stderr."""
    for done in range(1, total + 1):
        click.echo(f"\r{done} of {total} blocks", nl=False, err=True)
        yield done
    click.echo("", err=True)


@click.command()
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=0.8, show_default=True, help="Of a cell.")
@click.option("--most-items", type=click.IntRange(1000), default=LARGEST.items, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False, exists=True), default=RESULTS)
@click.option("--cost", type=click.Path(path_type=Path, dir_okay=False), help="Write the fitted model here.")
def main(seconds: float, most_items: int, out: Path, cost: Path | None) -> None:
    """Measure every sweep on this machine, fit the cost model, write table and chart."""
    cells = [cell for cell in grid() if cell.shape.items <= most_items]
    blocks = counted(len(cells) * ROUNDS)
    found = scaling(cells, seconds, lambda: next(blocks, 0))
    (out / "scaling.json").write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
    (out / "scaling.md").write_text(markdown(found), "utf-8")
    (out / "scaling.svg").write_text(chart(found), "utf-8")
    if cost is not None:
        cost.write_text(found.model.model_dump_json(indent=1) + "\n", "utf-8")
    click.echo(markdown(found))


if __name__ == "__main__":
    main()
