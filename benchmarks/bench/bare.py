"""The graph alone: what a call costs beyond it is ours (ids to rows and back, copies to and from the device)."""

from itertools import cycle

import numpy as np
import onnxruntime as ort

from benchmarks.bench.cells import Cell
from benchmarks.measure import Call
from deploy.ranker import OUTPUTS, open_session, wants_one_by_one

_QUERIES = 8  # bound before anything is timed


def bare_graph(cell: Cell) -> Call:
    """A fresh session whose inputs and outputs lie on the device before it is asked, as they do for nobody: rows of
    different histories in turn, each call finished when the device is.

    A graph that must be asked one by one is, as `Ranker` does it.
    """
    session = open_session(cell.subject.graph(cell.precision), threads=cell.threads, providers=cell.device.providers)
    size = 1 if wants_one_by_one(session) else cell.batch
    rng = np.random.default_rng(cell.seed)
    k = np.array([min(cell.k, cell.subject.n_items)], np.int64)

    def bound() -> ort.IOBinding:
        rows = np.stack([rng.choice(cell.subject.n_items, cell.history, replace=False) + 1 for _ in range(size)])
        binding = session.io_binding()
        for name in ("history", "exclude"):
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(rows, cell.device.memory, 0))
        binding.bind_cpu_input("k", k)  # a number that the top-k reads on the host
        for name in OUTPUTS:
            binding.bind_output(name, cell.device.memory, 0)
        return binding

    calls = cycle([[bound() for _ in range(cell.batch // size)] for _ in range(_QUERIES)])

    def call() -> None:
        for binding in next(calls):
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

    return call
