"""The stage `data` by hand: filters, splits, cold items, segments, and what it leaves on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.dataset import Dataset, domain_names
from compress.data.domains import Events, chosen_items
from compress.data.load import DataConfig, load_data, source_digests
from compress.data.segments import short_histories, tail_items
from compress.data.splits import LeaveOneOut, TimeSplit, make_cold
from compress.stage import RunOptions
from deploy.errors import UsageError
from deploy.tables import Items

ITEMS = "item_id:token\tname:token_seq\tclass:token_seq\n1\tA\tDrama War\n2\tB\tDrama\n3\tC\tWar\n4\tD\tComedy\n"
HEAD = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
EVENTS = (
    HEAD
    + "u\t1\t5\t1\nu\t2\t4\t2\nu\t3\t1\t3\nu\t4\t5\t4\nv\t4\t5\t1\nv\t2\t5\t2\nv\t1\t5\t3\nw\t1\t5\t9\nw\t2\t5\t9\n"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.inter").write_text(EVENTS)
    (folder / "shop.item").write_text(ITEMS)
    return folder


def run(tmp_path: Path, **config: Any) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    load_data(DataConfig.model_validate(config), {}, out, RunOptions())
    return out


def mistakes(tmp_path: Path, **config: Any) -> tuple[str, ...]:
    with pytest.raises(UsageError) as caught:
        run(tmp_path, **config)
    return caught.value.lines


def events_of(*histories: list[tuple[int, float]]) -> Events:
    flat = [event for history in histories for event in history]
    offsets = np.cumsum([0, *map(len, histories)])
    rows = np.array([row for row, _ in flat], dtype=np.int32)
    return Events([f"u{i}" for i in range(len(histories))], offsets, rows, np.array([time for _, time in flat]))


def test_leave_one_out_on_disk(shop: Path, tmp_path: Path) -> None:
    out = run(tmp_path, domains={"target": {"from": str(shop)}})
    data = Dataset.open(out)
    assert data.users == ["u", "v"]  # w has two events
    assert data.item_ids == ["1", "2", "3", "4"]
    assert data.texts == data.titles == ["A", "B", "C", "D"]
    assert data.attributes == {"class": ["Drama War", "Drama", "War", "Comedy"]}
    assert data.offsets.tolist() == [0, 4, 7]
    assert [s.tolist() for s in data.train_sequences()] == [[1, 2], [4]]
    valid, test = data.cases("valid"), data.cases("test")
    assert (valid.targets.tolist(), test.targets.tolist()) == ([3, 2], [4, 1])
    assert test.histories(2).tolist() == [[2, 3], [4, 2]]
    assert valid.histories(3).tolist() == [[0, 1, 2], [0, 0, 4]]
    assert valid.histories(3).dtype == np.int64
    assert [rows.tolist() for rows in test.seen] == [[1, 2, 3], [4, 2]]
    assert data.popularity.tolist() == [0, 1, 1, 0, 1]
    assert len(data.cases("cold")) == 0
    assert domain_names(out) == ["target"]
    described = json.loads((out / "dataset.json").read_text())
    assert described["protocol"] == {"split": "leave-one-out", "ranking": "full", "seen_excluded": True}
    assert described["domains"]["target"]["dropped"]["short_users"] == 1
    assert described["name"] == "shop"
    assert data.list_separators == {"class": " "}  # its type is token_seq


def test_domains_filter_by_attribute_and_exclude_each_other(shop: Path, tmp_path: Path) -> None:
    out = run(
        tmp_path,
        domains={
            "source": {"from": str(shop), "items": {"class": ["War"]}},
            "target": {"from": str(shop), "items": {"class": ["Drama", "Comedy"]}, "not_in": "source"},
        },
        min_events=2,
    )
    assert Dataset.open(out, "source").item_ids == ["1", "3"]
    target = Dataset.open(out, "target")
    assert target.item_ids == ["2", "4"]
    assert target.users == ["u", "v"]
    assert target.items.tolist() == [1, 2, 2, 1]


def test_text_templates(shop: Path, tmp_path: Path) -> None:
    domain = {"from": str(shop), "text": "{name}  ({item_id}): {class}"}
    data = Dataset.open(run(tmp_path, domains={"target": domain}, max_text_chars=12))
    assert data.texts == ["A (1): Drama", "B (2): Drama", "C (3): War", "D (4): Comed"]


def test_min_rating_and_repeats(shop: Path, tmp_path: Path) -> None:
    (shop / "shop.inter").write_text(EVENTS + "v\t2\t5\t8\n")
    out = run(tmp_path, domains={"target": {"from": str(shop)}}, min_rating=4)
    assert Dataset.open(out).items.tolist() == [1, 2, 4, 4, 2, 1]
    dropped = json.loads((out / "dataset.json").read_text())["domains"]["target"]["dropped"]
    assert (dropped["low_ratings"], dropped["repeated_events"]) == (1, 1)


def test_users_with_too_few_events_are_listed(shop: Path, tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, domains={"target": {"from": str(shop)}}, on_short_users="error")
    assert line.startswith(f"{shop / 'shop.inter'}, data.domains.target: 1 users with fewer than 3 events")
    assert line.endswith("(got w (2 events))")


@pytest.mark.parametrize(
    ("domain", "line"),
    [
        ({"items": {"class": ["Sci-Fi"]}}, "data.domains.target.items.class: no item has it; values are Comedy, Drama"),
        ({"items": {"kind": ["War"]}}, "data.domains.target.items: unknown attribute; allowed: class (got 'kind')"),
        ({"text": "{title} {year}"}, "data.domains.target.text: unknown column year"),
    ],
)
def test_mistakes_in_a_domain(shop: Path, tmp_path: Path, domain: dict[str, Any], line: str) -> None:
    assert mistakes(tmp_path, domains={"target": {"from": str(shop), **domain}})[0].startswith(line)


def test_a_missing_item_file_and_unknown_items(shop: Path, tmp_path: Path) -> None:
    (shop / "shop.inter").write_text(HEAD + "u\t9\t1\t1\n")
    (line,) = mistakes(tmp_path, domains={"target": {"from": str(shop)}})
    assert line.startswith(f"{shop / 'shop.inter'}, line 2, column item_id: unknown item")
    (tmp_path / "out").rmdir()
    (shop / "shop.item").unlink()
    assert "no item file beside it" in mistakes(tmp_path, domains={"target": {"from": str(shop)}})[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"domains": {"source": {"from": "synthetic"}}}, "one domain is called target"),
        ({"domains": {"target": {"from": "synthetic", "not_in": "target"}}}, "names another domain"),
        ({"domains": {"target": {"from": "synthetic", "text": "{a!r}"}}}, "plain {column} names"),
        ({"domains": {"target": {"from": "synthetic", "columns": {"id": "x"}}}}, "maps user, item"),
        ({"domains": {"target": {"from": {"name": "nowhere"}}}}, "does not match any of the expected tags"),
        (
            {"domains": {"target": {"from": "synthetic"}}, "split": {"name": "time", "valid_from": 0.95}},
            "before test_from",
        ),
    ],
)
def test_mistakes_in_the_config(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(config)


def test_leave_one_out_with_few_events() -> None:
    events = events_of([(1, 1)], [(1, 1), (2, 2)], [(3, 1), (1, 2), (2, 3)])
    division = LeaveOneOut()(events, True)
    assert division.train.tolist() == [True, True, False, True, False, False]
    assert (division.test.users.tolist(), division.test.positions.tolist()) == ([1, 2], [2, 5])
    assert (division.valid.users.tolist(), division.valid.positions.tolist()) == ([2], [4])


def test_time_split_by_hand() -> None:
    # times 0..9; cuts at the quantiles .5 and .8: 4.5 and 7.2
    events = events_of([(1, 0), (2, 1), (3, 5), (4, 6), (5, 8), (6, 9)], [(1, 7)], [(1, 2), (2, 3), (3, 4)])
    division = TimeSplit(valid_from=0.5, test_from=0.8)(events, True)
    assert division.train.tolist() == [True, True, False, False, False, False, False, True, True, True]
    assert (division.valid.users.tolist(), division.valid.positions.tolist()) == ([0], [2])
    assert (division.test.users.tolist(), division.test.positions.tolist()) == ([0], [4])
    with pytest.raises(UsageError, match="needs a time column"):
        TimeSplit()(events, False)


def test_an_event_on_a_cut_belongs_after_it() -> None:
    # eleven events at 0..10: the cuts .5 and .8 fall on 5 and 8 themselves
    events = events_of([(row + 1, float(row)) for row in range(11)])
    division = TimeSplit(valid_from=0.5, test_from=0.8)(events, True)
    assert np.flatnonzero(division.train).tolist() == [0, 1, 2, 3, 4]
    assert division.valid.positions.tolist() == [5]
    assert division.test.positions.tolist() == [8]


def test_an_item_must_match_every_attribute() -> None:
    columns = {"class": ["War Drama", "War", "Drama"], "year": ["1990", "1991", "1990"]}
    items = Items(["1", "2", "3"], ["A", "B", "C"], columns, "title")
    assert chosen_items("x", {"class": ("War",), "year": ("1990",)}, " ", items).tolist() == [True, False, False]


def test_cold_items_leave_all_events_and_last_ones_are_asked() -> None:
    events = events_of([(1, 1), (2, 2), (3, 3)], [(3, 1), (2, 2), (1, 3)], [(4, 1)])
    for seed in range(5):
        kept, cold = make_cold(events, 4, 0.25, seed)
        assert len(cold.items) == 1
        assert not np.isin(kept.rows, cold.items).any()
        row = int(cold.items[0])
        last = {1: [1], 3: [0]}  # user 2's only event is its last: no history, no case
        assert cold.users.tolist() == last.get(row, [])
        assert cold.targets.tolist() == [row] * len(cold.users)
        again = make_cold(events, 4, 0.25, seed)[1]
        assert again.items.tolist() == cold.items.tolist()


def test_cold_cases_on_disk_hold_the_whole_remaining_history(tmp_path: Path) -> None:
    out = run(tmp_path, domains={"target": {"from": "synthetic"}}, cold_fraction=0.2)
    data = Dataset.open(out)
    cases = data.cases("cold")
    assert len(cases) > 0
    assert len(data.cold_items) == 8
    assert np.isin(cases.targets, data.cold_items).all()
    assert not np.isin(data.items, data.cold_items).any()
    assert [len(rows) for rows in cases.seen] == np.diff(data.offsets)[cases.users].tolist()


def test_tail_items_by_hand() -> None:
    # 20 interactions: the last 20 % are 4, held by rows 4 (3 of them) and 5 (1); row 6 has none
    assert np.flatnonzero(tail_items(np.array([0, 8, 5, 3, 3, 1, 0]))).tolist() == [4, 5, 6]
    assert short_histories(np.array([1, 5, 6])).tolist() == [True, True, False]


def test_digests_follow_the_content(shop: Path) -> None:
    config = DataConfig.model_validate({"domains": {"target": {"from": str(shop)}}})
    before = source_digests(config)["target"]
    assert before == source_digests(config)["target"]
    (shop / "shop.item").write_text(ITEMS.replace("War", "Wars"))
    assert source_digests(config)["target"] != before


def test_the_same_config_gives_the_same_bytes(tmp_path: Path) -> None:
    config = DataConfig.model_validate({"domains": {"target": {"from": "synthetic"}}, "cold_fraction": 0.1})
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        load_data(config, {}, tmp_path / name, RunOptions())
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        found.append([path.read_bytes() for path in files])
    assert found[0] == found[1]
