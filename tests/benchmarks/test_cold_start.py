"""A real fresh process."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.cold_start import ColdStart, fresh_process
from benchmarks.memory import peak_rss_mb
from deploy.errors import SlimrecError
from deploy.tables import write_items


def test_memory_is_the_childs_own(history_graph: Path, tmp_path: Path) -> None:
    ids = [f"item-{row}" for row in range(1, 31)]
    write_items(tmp_path / "items.item", ids, ids, {})
    ballast = np.ones(50_000_000)  # 400 MB here must not count there
    spec = ColdStart(str(history_graph), ("item-1",), items=str(tmp_path / "items.item"))
    rss_mb, load_ms = fresh_process(spec, repeats=1)
    assert 20 < rss_mb < 300 < peak_rss_mb()
    assert 30 < load_ms < 60_000
    assert ballast[0] == 1


def test_a_bundle(bundle: Path) -> None:
    rss_mb, load_ms = fresh_process(ColdStart(str(bundle), ("item-1", "item-2")), repeats=1)
    assert rss_mb > 20
    assert load_ms > 30


def test_a_failure_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(SlimrecError, match="no such bundle"):
        fresh_process(ColdStart(str(tmp_path / "absent"), ("item-1",)), repeats=1)
