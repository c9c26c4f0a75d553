"""The cells of the grid: what is opened, asked and closed again in every round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, product
from pathlib import Path

import numpy as np

from benchmarks.bench.conditions import Conditions
from benchmarks.bench.devices import Device, chosen
from benchmarks.bench.record import Side
from benchmarks.measure import Call
from benchmarks.result import NotMeasured
from deploy.bundle import Bundle
from deploy.catalogue import Catalogue
from deploy.errors import GateError
from deploy.manifest import ITEMS
from deploy.runtime import Recommender

_QUERIES = 64  # different histories asked in turn, so that no answer stays in the caches
_MOST_IDS = 100_000  # held for them


@dataclass(frozen=True, eq=False)
class Subject:
    """A verified bundle, with the catalogue it came with or another size of it. `given`: the path as the user has it;
    `path`: what a fresh process opens."""

    given: Path
    path: Path
    bundle: Bundle

    @cached_property
    def catalogue(self) -> Catalogue:
        """Read once; every cell's recommender shares it."""
        return Catalogue.read(self.bundle.path(ITEMS), self.bundle.manifest.list_separators)

    @property
    def n_items(self) -> int:
        return self.bundle.manifest.model.n_items

    @property
    def precisions(self) -> list[str]:
        return sorted(self.bundle.manifest.model.precisions)

    def graph(self, precision: str) -> Path:
        return self.bundle.path(self.bundle.manifest.model.precisions[precision])

    def graph_bytes(self, precision: str) -> int:
        """The graph, with the tables that lie in files of their own."""
        graph = self.graph(precision)
        return sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*"))

    def open(self, precision: str, device: Device, threads: int = 1) -> Recommender:
        return Recommender(
            self.bundle, precision=precision, threads=threads, providers=device.providers, catalogue=self.catalogue
        )


@dataclass(frozen=True)
class Cell:
    """One combination of the grid."""

    subject: Subject
    precision: str
    device: Device
    threads: int
    batch: int
    history: int
    k: int
    seed: int

    @property
    def name(self) -> str:
        where = f"{self.subject.given} {self.precision} {self.device.name} {self.threads}"
        return f"{where} {self.batch} {self.history} {self.subject.n_items}"

    @property
    def bare(self) -> str:
        """The name under which its graph is timed alone."""
        return f"{self.name} graph"

    @property
    def side(self) -> Side:
        """What it is compared as, on the work that it shares with others."""
        return Side(
            bundle=str(self.subject.given), precision=self.precision, device=self.device.name, threads=self.threads
        )

    @property
    def work(self) -> tuple[int, int, int]:
        """(batch, history, items): cells of one work answer the same question."""
        return self.batch, self.history, self.subject.n_items

    def open(self) -> Call:
        """A fresh session, asked different histories in turn: from raw item ids to raw item ids."""
        recommender = self.subject.open(self.precision, self.device, self.threads)
        turns = cycle(sample_queries(self.subject.catalogue, self.history, self.batch, self.seed))
        return lambda: recommender.recommend_many(next(turns), self.k)


def sample_queries(catalogue: Catalogue, length: int, batch: int, seed: int) -> list[list[list[str]]]:
    """Batches of random histories (seeded) of the catalogue's own items, each item once in a history."""
    rng = np.random.default_rng(seed)
    count = min(_QUERIES, max(2, _MOST_IDS // (batch * length)))
    rows = [[rng.choice(len(catalogue), length, replace=False) + 1 for _ in range(batch)] for _ in range(count)]
    return [[[catalogue.ids[row] for row in history.tolist()] for history in some] for some in rows]


def devices_of(subject: Subject, conditions: Conditions) -> Iterator[tuple[Device, str] | NotMeasured]:
    """Each device and precision that reproduces the bundle's golden answers, or why it cannot be measured.

    Raises UsageError or GateError where the CPU does not: then nothing about the bundle is worth timing.
    """
    for device in chosen(conditions.device):
        why = device.why_absent(subject.graph(subject.precisions[0]))
        if why is not None:
            yield NotMeasured(what=f"{device.name} latency", why=why)
            continue
        for precision in subject.precisions:
            try:
                subject.open(precision, device).self_test()
            except GateError as error:
                if device.name == "cpu":
                    raise
                yield NotMeasured(what=f"{device.name} latency of {precision}", why=error.lines[0])
            else:
                yield device, precision


def cells_of(subject: Subject, placed: Sequence[tuple[Device, str]], conditions: Conditions) -> list[Cell]:
    """The grid of one subject. Raises UsageError as `Conditions.lengths`."""
    lengths = conditions.lengths(subject.bundle.manifest.model, subject.n_items)
    return [
        Cell(subject, precision, device, threads, batch, history, conditions.k, conditions.seed)
        for (device, precision), threads, batch, history in product(
            placed, conditions.threads, conditions.batch, lengths
        )
    ]
