"""A million items are ranked in bounded memory: by a graph, as `slimrec evaluate` and `bench` ask it, and by torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ITEMS, CASES, DIM = 1_000_000, 128, 4
"""All scores of all cases, which are answered together at small catalogues, are 512 MB."""

PROGRAM = """
import json, sys
import numpy as np
from benchmarks import accuracy
from benchmarks.accuracy import ranks_of, summarise
from benchmarks.cold_start import peak_rss_mb

way, graph, items, cases, dim = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
rng = np.random.default_rng(0)
histories = rng.integers(1, items + 1, (cases, 3))
targets = rng.integers(1, items + 1, cases).astype(np.int32)
accuracy.MOST_SCORES = 2**24  # 64 MB, a quarter of what it is: fewer cases show the same
if way == "graph":
    from pathlib import Path
    from benchmarks.evaluate import answer
    from deploy.ranker import Ranker
    ranker = Ranker(Path(graph))
    ask = lambda some: answer(ranker, list(some), 3, items)
else:
    from compress.data.dataset import Cases
    from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
    from compress.training import top_of_cases
    block = BlockShape(heads=1, neurons=4)
    model = SequenceModel(SequenceShape(n_items=items, dim=dim, head_dim=4, blocks=(block,), max_history=3))
    def ask(some):
        size = len(some)
        starts = 3 * np.arange(size)
        empty = np.zeros(size, bool)
        flat = some.ravel().astype(np.int32)
        return top_of_cases(model, Cases(starts, targets[:size], empty, empty, starts, starts + 3, flat), 1000)
ask(histories[:1])
before, top = peak_rss_mb(), ask(histories)
metrics = summarise(ranks_of(top, targets), top, items)
print(json.dumps({"grown_mb": peak_rss_mb() - before, "shape": top.shape, "cases": metrics["cases"],
                  "seen": int((top[:, :, None] == histories[:, None]).any(axis=2).sum())}))
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.benchmarks.conftest import save_history_graph

    path = tmp_path_factory.mktemp("million") / "history.onnx"
    table = np.random.default_rng(1).normal(size=(ITEMS + 1, DIM)).astype(np.float32)
    save_history_graph(path, table, from_vectors=False)
    return path


@pytest.mark.parametrize("way", ["graph", "torch"])
def test_memory_is_bounded(way: str, graph: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, way, str(graph), str(ITEMS), str(CASES), str(DIM)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    assert found["shape"] == [CASES, 1000]
    assert found["cases"] == CASES
    assert found["seen"] == 0
    assert found["grown_mb"] < 200
