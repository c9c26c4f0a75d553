"""What a device recorded is data of the next run: an export is read by the stage `data` as any data set is."""

import json
from pathlib import Path

import pytest

from compress.data.dataset import Dataset
from compress.data.load import DataConfig, load_data, source_digests
from compress.stage import RunOptions
from deploy.feedback import Event, FeedbackLog, Shown, ShownItem
from deploy.feedback.export import export
from deploy.tables import Items

ITEMS = Items([f"i{n}" for n in range(6)], [f"Title {n}" for n in range(6)], {"genre": list("ABABAB")}, "title")
USERS = ("ana", "ben", "cy")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three users, each shown the catalogue five times, each time liking one item more."""
    with FeedbackLog(tmp_path / "log") as opened:
        for turn in range(5):
            for place, user in enumerate(USERS):
                at, request = 1000.0 * turn + place, f"{user}-{turn}"
                shown = [ShownItem(id=item, score=0.5) for item in ITEMS.ids]
                opened.append(Shown(request_id=request, user=user, release="tiny@0", items=shown, time=at))
                item = ITEMS.ids[(turn + place) % 6]
                opened.append(Event(request_id=request, item_id=item, event="like", ts=at + 1, time=at + 2))
    return tmp_path / "log"


def test_a_recipe_reads_an_export(log: Path, tmp_path: Path) -> None:
    export(log, tmp_path / "shop", catalogues=[ITEMS])
    config = DataConfig.model_validate({"domains": {"target": {"from": str(tmp_path / "shop")}}})
    out = tmp_path / "data"
    out.mkdir()
    load_data(config, {}, out, RunOptions())
    described = json.loads((out / "dataset.json").read_text())
    assert described["name"] == "shop" and described["protocol"]["split"] == "leave-one-out"
    found = Dataset.open(out)
    assert (len(found.users), found.n_items, described["domains"]["target"]["interactions"]) == (3, 6, 15)
    test = found.cases("test")
    # leave one out: the last item that each user liked is asked for, the ones before it are the history
    assert [found.item_ids[row - 1] for row in test.targets] == ["i4", "i5", "i0"]
    assert [[found.item_ids[row - 1] for row in rows if row] for rows in test.histories(10).tolist()] == [
        ["i0", "i1", "i2", "i3"],
        ["i1", "i2", "i3", "i4"],
        ["i2", "i3", "i4", "i5"],
    ]


def test_the_next_run_goes_on_from_what_the_device_saw(log: Path, tmp_path: Path) -> None:
    export(log, tmp_path / "first", catalogues=[ITEMS])
    before = source_digests(DataConfig.model_validate({"domains": {"target": {"from": str(tmp_path / "first")}}}))
    with FeedbackLog(log) as opened:
        shown = [ShownItem(id="i5", score=None)]
        opened.append(Shown(request_id="later", user="ana", release="tiny@1", items=shown, time=9000.0))
        opened.append(Event(request_id="later", item_id="i5", event="purchase", ts=9001.0, time=9001.0))
    export(log, tmp_path / "first", catalogues=[ITEMS])
    config = DataConfig.model_validate({"domains": {"target": {"from": str(tmp_path / "first")}}})
    assert source_digests(config) != before  # the stage runs again
    out = tmp_path / "data"
    out.mkdir()
    load_data(config, {}, out, RunOptions())
    found = Dataset.open(out)
    assert found.item_ids[found.items[found.offsets[1] - 1] - 1] == "i5"  # Ana's newest
