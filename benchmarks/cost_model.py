"""What an answer costs, from what has to be done for it: a line through physically meaningful terms, fitted to measured
cells by non-negative least squares (C. Lawson, R. Hanson, Solving Least Squares Problems, 1974). Torch-free.

`cost.json` is the fit that ships, of the machine that it names; `$SLIMREC_COST` names another, as `python -m
benchmarks.scaling --cost FILE` writes it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np

from benchmarks.result import Record
from deploy.errors import UsageError
from deploy.manifest import parse_record

SHIPPED = Path(__file__).with_name("cost.json")
VARIABLE = "SLIMREC_COST"
CACHE_BYTES, CACHE_SCORES = 16e6, 65_536
"""Beyond them a table comes from memory, and scores (256 KB) from a far cache: terms of their own, which cost nothing
where the machine differs."""

Precision = Literal["fp32", "int8"]


class Shape(Record):
    """A sequence student and what it is asked: items of its catalogue, width, blocks (neurons: twice the width), items
    of a history, histories of a call, threads. `int8`: the item table, a scale per row."""

    items: int
    dim: int
    blocks: int = 1
    history: int = 20
    batch: int = 1
    threads: int = 1
    precision: Precision = "fp32"

    def terms(self) -> dict[str, float]:
        """The work of one call by kind. INT8 answers its histories one by one, so that it calls and reads as often."""
        calls = self.batch if self.precision == "int8" else 1
        table = self.items * self.dim * (4 if self.precision == "fp32" else 1)
        earlier, events = self.blocks - 1, self.batch * self.history
        flops = earlier * events * (16 * self.dim**2 + 4 * self.history * self.dim) + self.batch * 16 * self.dim**2
        scores = self.batch * self.items
        scored = {"fp32": 0.0, "int8": 0.0} | {self.precision: 2e-9 * scores * self.dim / self.threads}
        passes = {"fp32": 0.0, "int8": 0.0} | {self.precision: 1e-6 * scores}
        return {
            "calls": calls,
            "calls x blocks": calls * self.blocks,
            "calls woken on more threads": calls * (self.threads - 1),
            "events in and out": 1e-3 * events,
            "Mscores beyond the near cache": 1e-6 * calls * max(0, scores // calls - CACHE_SCORES),
            "encoder GFLOP": 1e-9 * flops / self.threads,
            "attention Melements": 1e-6 * earlier * events * self.history,
            "table GB": 1e-9 * calls * table / self.threads,
            "table GB beyond the caches": 1e-9 * calls * max(0.0, table - CACHE_BYTES),
            **{f"scoring {name} GFLOP": value for name, value in scored.items()},
            **{f"{name} Mscores through mask and top k": value for name, value in passes.items()},
        }


class CostModel(Record):
    """Milliseconds per unit of each term, and how far the fit was off on cells that it had not seen: the median and the
    largest relative error of p50."""

    version: Literal[1] = 1
    machine: str
    commit: str
    coefficients: dict[str, float]
    p95_over_p50: float
    fitted_cells: int
    held_out_cells: int
    held_out_median_error: float
    held_out_worst_error: float
    most_items: int
    most_history: int

    def p50_ms(self, shape: Shape) -> float:
        """The estimate."""
        return sum(self.coefficients.get(name, 0.0) * amount for name, amount in shape.terms().items())

    def p95_ms(self, shape: Shape) -> float:
        """The estimate times the median p95 / p50 of the fitted cells: a busy machine moves p95 itself too much."""
        return self.p50_ms(shape) * self.p95_over_p50

    @property
    def told(self) -> str:
        """What a reader is told beside every estimate."""
        return f"an estimate fitted on {self.machine}, median error {self.held_out_median_error:.0%}"

    @classmethod
    def load(cls) -> Self:
        """`$SLIMREC_COST`, or what ships. Raises UsageError where the file cannot be read."""
        path = Path(os.environ.get(VARIABLE) or SHIPPED)
        try:
            return parse_record(cls, path.read_bytes(), str(path))
        except OSError as error:
            raise UsageError(f"{VARIABLE}: {path} cannot be read ({error.strerror or error})") from None


def fit(shapes: Sequence[Shape], p50_ms: Sequence[float]) -> dict[str, float]:
    """Non-negative milliseconds per unit of each term, of least squared relative error.

    Raises ValueError without a cell. Needs scipy (the extra `compress` brings it).
    """
    from scipy.optimize import nnls

    if not shapes:
        raise ValueError("a fit needs cells")
    names = list(shapes[0].terms())
    work = np.array([[shape.terms()[name] for name in names] for shape in shapes], np.float64)
    relative = work / np.array(p50_ms, np.float64)[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-12)  # columns of like size: far smaller ones are lost otherwise
    found, _ = nnls(relative / scale, np.ones(len(shapes)))
    return {name: float(value) for name, value in zip(names, found / scale, strict=True)}
