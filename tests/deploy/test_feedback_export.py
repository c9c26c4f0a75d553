"""From the log to a data set: joined, bounded by what was shown, written in one step each."""

import json

import pytest

from deploy.errors import UsageError
from deploy.feedback import Event, FeedbackLog, Shown, ShownItem
from deploy.feedback.data_set import merge_items, read_catalogues
from deploy.feedback.export import export
from deploy.releases import Releases
from deploy.tables import Items, read_interactions, read_items
from tests.deploy.power import power_cuts


def shown(request: str, user: str | None, items: list[str], time: float, role: str = "answer") -> Shown:
    return Shown(
        request_id=request,
        user=user,
        release="tiny@0",
        items=[ShownItem(id=item) for item in items],
        time=time,
        role=role,
    )


def event(request: str, item: str, name: str, ts: float, time: float) -> Event:
    return Event(request_id=request, item_id=item, event=name, ts=ts, time=time)


RECORDS = [
    shown("r1", "ana", ["i1", "i2", "new"], 100.0),
    shown("r1", "ana", ["i9"], 100.0, role="shadow"),
    event("r1", "i2", "click", 105.5, 106.0),
    event("r1", "i2", "click", 105.5, 107.0),  # sent twice
    event("r1", "i2", "purchase", 1.0, 110.0),  # a clock that is behind
    event("r1", "i9", "click", 105.0, 106.0),  # was in the shadow's answer only
    event("r1", "new", "like", 108.0, 108.0),  # an item of another release
    shown("r2", "ben", ["i3"], 102.0),
    event("r2", "i3", "dislike", 9e9, 104.0),  # a clock that is ahead
    shown("r3", None, ["i4"], 103.0),
    event("r3", "i4", "click", 104.0, 104.0),
    event("r9", "i4", "click", 104.0, 104.0),
]


@pytest.fixture
def log(tmp_path):
    with FeedbackLog(tmp_path / "log") as opened:
        for record in RECORDS:
            opened.append(record)
    return tmp_path / "log"


def test_events_are_joined_with_what_was_shown(log, tmp_path, tiny):
    done = export(log, tmp_path / "shop", catalogues=read_catalogues(tiny.archive))
    assert (tmp_path / "shop" / "shop.inter").read_text() == (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\tevent:token\n"
        "ana\ti2\t1\t100.000\tpurchase\n"
        "ana\ti2\t1\t105.500\tclick\n"
    )
    assert (done.events, done.users, done.items) == (2, 1, 1) and not done.damage
    assert done.left_out == {
        "repeated": 1,
        "dislike events": 1,
        "of items that were not shown": 1,
        "of items without a title": 1,
        "without a user": 1,
        "of unknown requests": 1,
    }
    items = read_items(tmp_path / "shop" / "shop.item")
    assert len(items) == 20 and items.titles[0].startswith("Film odd 1") and "genre" in items.attributes


def test_events_that_are_asked_for(log, tmp_path):
    export(log, tmp_path / "shop", events=("like", "dislike"))
    assert (tmp_path / "shop" / "shop.inter").read_text().splitlines()[1:] == [
        "ben\ti3\t0\t104.000\tdislike",  # no later than it came
        "ana\tnew\t1\t108.000\tlike",
    ]
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["shop.inter"]  # no titles, no items


def test_a_base_comes_first(log, tmp_path, tiny):
    base = tmp_path / "base"
    base.mkdir()
    (base / "base.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\nana\told\t50\nzoe\told\t60\nana\ti1\t40\n"
    )
    (base / "base.item").write_text("item_id:token\ttitle:token_seq\tyear:token\nold\tAn old one\t1999\ni2\tother\t1\n")
    done = export(log, tmp_path / "all", catalogues=read_catalogues(tiny.folder), base=base)
    assert done.events == 2
    events = read_interactions(tmp_path / "all" / "all.inter")
    of_ana = [events.items[item] for item in events.item_index[events.offsets[0] : events.offsets[1]]]
    assert events.users == ["ana", "zoe"] and of_ana == ["i1", "old", "i2", "i2"]
    items = read_items(tmp_path / "all" / "all.item")
    assert len(items) == 21 and items.ids[-1] == "old" and items.attributes["year"][-1] == "1999"
    assert items.titles[1].startswith("Film even 2")  # the catalogue's, not the base's


def test_catalogues(tmp_path, tiny):
    releases = Releases(tmp_path / "device", health=lambda _: None)
    releases.install(tiny.archive, None)
    for source in (tiny.folder, tiny.archive, tiny.folder / "items.item", tmp_path / "device"):
        assert [len(items) for items in read_catalogues(source)] == [20]
    first, second = (
        Items(["a"], ["A"], {"x": ["1"]}, "title"),
        Items(["b", "a"], ["B", "no"], {"y": ["2", "3"]}, "title"),
    )
    merged = merge_items([first, second])
    assert (merged.ids, merged.titles) == (["a", "b"], ["A", "B"])
    assert merged.attributes == {"x": ["1", ""], "y": ["", "2"]}


def test_mistakes(log, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, said in [
        ({"log": tmp_path / "none", "out": tmp_path / "x"}, "no such feedback log"),
        ({"log": tmp_path / "empty", "out": tmp_path / "x"}, "no event to export (got an empty log)"),
        ({"log": log, "out": tmp_path / "x", "events": ()}, "no event to export (got 5 click events"),
        ({"log": log, "out": tmp_path / "x", "base": tmp_path / "y" / ".." / "x"}, "would be overwritten"),
        ({"log": log, "out": tmp_path / "log" / "00000001.log" / "x"}, "cannot be written"),
    ]:
        with pytest.raises(UsageError) as caught:
            export(**arguments)
        assert said in str(caught.value), caught.value
    assert not (tmp_path / "x").exists()


def test_a_power_cut_leaves_a_whole_data_set(log, tiny, monkeypatch):
    catalogues = read_catalogues(tiny.folder)
    monkeypatch.setattr("os.fsync", lambda _: None)

    def prepare(root):
        export(log, root / "shop", catalogues=catalogues)

    def act(root):
        export(log, root / "shop", catalogues=catalogues, events=("click",))

    for _, done, world in power_cuts(monkeypatch, prepare, act):
        rows = (world / "shop" / "shop.inter").read_text().splitlines()[1:]
        assert len(rows) == 1 if done else len(rows) in (1, 2)
        assert len(read_items(world / "shop" / "shop.item")) == 20


def test_the_verbs(log, tmp_path, tiny, capsys):
    from deploy.cli import run_command

    def say(*arguments: object, code: int = 0) -> str:
        assert run_command(["feedback", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    found = json.loads(say("export", log, tmp_path / "shop", "--catalogue", tiny.archive, "--json"))
    assert found["events"] == 2 and found["damage"] == {"lines": 0, "records": 0, "open_segments": 0}
    text = say("export", log, tmp_path / "shop", "--catalogue", tiny.archive, "--event", "dislike", "--event", "like")
    assert "1 events of 1 users with 1 items" in text and "left out: 5 click events\n" in text
    assert say("export", log, tmp_path / "shop", "--event", "view", code=2).startswith(
        "feedback export: --event is one of"
    )
    lines = [json.loads(line) for line in say("read", log).splitlines()]
    assert len(lines) == len(RECORDS) and lines[0]["items"][0] == {"id": "i1", "score": None}
    status = json.loads(say("status", log, "--json"))
    assert (status["shown"], status["events"], status["oldest"], status["newest"]) == (4, 8, 100.0, 110.0)
    assert "4 answers, 8 events, 1970-01-01 00:01 UTC" in say("status", log)
    assert say("forget", log, "ana").endswith("7 records deleted\n")
    assert say("prune", log, "--days", 1).endswith("5 records deleted\n")
    assert "empty" in say("status", log)
    for verb in (["forget", tmp_path / "none", "ana"], ["prune", tmp_path / "none", "--days", 1]):
        assert say(*verb, code=2) == f"{tmp_path / 'none'}: no such feedback log\n"
