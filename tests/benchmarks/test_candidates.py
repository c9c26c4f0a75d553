"""Ids to ids through real graphs, against numpy."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.candidates import CachedPath, IdMap, TextPath

IDS = [f"item-{row}" for row in range(1, 31)]


def expected(table: NDArray[np.float32], rows: list[int], k: int, seen: list[int] | None = None) -> list[str]:
    scores = table @ table[rows].mean(axis=0)
    scores[[0, *rows, *(seen or [])]] = -np.inf
    return [IDS[row - 1] for row in np.argsort(-scores)[:k]]


def test_id_map_pads_left_skips_unknown_and_splits_long_histories() -> None:
    items = IdMap(["a", "b", "c"])
    history, earlier = items.rows([["a", "x", "b", "c"], ["b"]], 2)
    assert history.tolist() == [[2, 3], [0, 2]]
    assert earlier.tolist() == [[1], [0]]
    shown = items.ids(np.array([[3, 1]]), np.array([[1.0, -np.inf]], dtype=np.float32))
    assert shown == [["c"]]


def test_cached_path(history_graph: Path, table: NDArray[np.float32]) -> None:
    path = CachedPath(history_graph, IDS, max_history=3)
    answers = path.recommend([["item-4", "item-9", "item-2"], ["item-5", "item-6", "nothing", "item-7"]], 5)
    assert answers == [expected(table, [4, 9, 2], 5), expected(table, [5, 6, 7], 5)]


def test_items_before_the_window_stay_excluded(history_graph: Path, table: NDArray[np.float32]) -> None:
    path = CachedPath(history_graph, IDS, max_history=2)
    (answer,) = path.recommend([["item-1", "item-2", "item-3"]], 100)
    assert answer == expected(table, [2, 3], 27, seen=[1])


def test_text_path_agrees_with_the_cached_one(text_parts: tuple[Path, Path, Path], table: NDArray[np.float32]) -> None:
    graph, text_graph, tokenizer = text_parts
    texts = {item: f"title {row}" for row, item in enumerate(IDS, start=1)}
    path = TextPath(graph, text_graph, tokenizer, texts, max_history=3)
    answers = path.recommend([["item-4", "nothing", "item-9"], ["item-7", "item-8"]], 5)
    assert answers == [expected(table, [4, 9], 5), expected(table, [7, 8], 5)]
    assert path.recommend([["item-1", "item-2", "item-3", "item-4"]], 4) == [expected(table, [2, 3, 4], 4, [1])]


def test_text_path_pads_a_batch_of_unequal_histories(
    text_parts: tuple[Path, Path, Path], table: NDArray[np.float32]
) -> None:
    texts = {item: f"title {row}" for row, item in enumerate(IDS, start=1)}
    path = TextPath(*text_parts, texts)
    answers = path.recommend([["item-4"], ["item-7", "item-8"]], 5)
    # The zero vector of the padding halves the mean, which moves no place.
    assert answers == [expected(table, [4], 5), expected(table, [7, 8], 5)]


@pytest.mark.parametrize("histories", [[[]], [["nothing"]]])
def test_nothing_known_is_still_answered(history_graph: Path, histories: list[list[str]]) -> None:
    assert len(CachedPath(history_graph, IDS).recommend(histories, 4)[0]) == 4
