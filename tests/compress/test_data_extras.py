"""Social edges and item features beside a data set: accepted, and told what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from compress.data.files import Files
from compress.data.sources import read_source
from deploy.errors import UsageError

EVENTS = "user_id:token\titem_id:token\nu\ta\nu\tb\nv\tc\n"
ITEMS = "item_id:token\ttitle:token_seq\na\tA\nb\tB\nc\tC\n"
EDGES = "source_id:token\ttarget_id:token\nu\tv\nv\tfriend without events\n"
IDS = "row:token\titem_id:token\n0\tc\n1\ta\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / "item_features").mkdir(parents=True)
    (folder / "shop.inter").write_text(EVENTS)
    (folder / "shop.item").write_text(ITEMS)
    (folder / "shop.net").write_text(EDGES)
    (folder / "item_features" / "item_ids.tsv").write_text(IDS)
    np.save(folder / "item_features" / "audio.npy", np.ones((2, 3), np.float64))
    np.save(folder / "item_features" / "text.npy", np.ones((2, 5), np.float32))
    return folder


def refused(shop: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_source(Files(path=str(shop)), {}, " ")
    (line,) = caught.value.lines
    assert line.startswith(str(shop))
    return line


def test_a_folder_with_them_is_read(shop: Path) -> None:
    items, events, _ = read_source(Files(path=str(shop)), {}, " ")
    assert (len(items), len(events)) == (3, 3)


@pytest.mark.parametrize(
    ("edges", "told"),
    [
        ("source_id:token\tfriend:token\nu\tv\n", "missing column target_id"),
        ("source_id:token\ttarget_id:token\nu\t\n", "line 2, column target_id: an id is needed"),
        ("source_id:token\ttarget_id:token\nu\tv\nv\tv\n", "line 3, column target_id: an edge joins two users"),
    ],
)
def test_edges(shop: Path, edges: str, told: str) -> None:
    (shop / "shop.net").write_text(edges)
    assert told in refused(shop)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (None, "item_ids.tsv: missing"),
        (IDS + "2\tb\n", "audio.npy: one row for every row of item_ids.tsv, 3 (got 2)"),
        (IDS.replace("1\ta", "2\ta"), "line 3, column row: rows count from 0: 1 expected (got '2')"),
        (IDS.replace("1\ta", "1\tz"), "line 3, column item_id: unknown item (got 'z')"),
        (IDS.replace("1\ta", "1\tc"), "line 3, column item_id: the item has a row already (got 'c')"),
    ],
)
def test_ids_of_features(shop: Path, ids: str | None, told: str) -> None:
    path = shop / "item_features" / "item_ids.tsv"
    path.unlink() if ids is None else path.write_text(ids)
    assert told in refused(shop)


def test_features(shop: Path) -> None:
    path = shop / "item_features" / "text.npy"
    np.save(path, np.array([[1.0, 2.0], [3.0, np.nan]]))
    assert "text.npy, row 1, column 1: a number is finite" in refused(shop)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "not an .npy file of numbers" in refused(shop)
    np.save(path, np.ones(2))
    assert "floats (rows, dim) are expected" in refused(shop)
    path.write_bytes(path.read_bytes()[:60])
    assert "not an .npy file of numbers" in refused(shop)
