"""The journal of cold items: every prefix of the file is a state that was acknowledged, or the one before."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy import journal as module
from deploy.errors import UnavailableError, UsageError
from deploy.journal import DAMAGED, FILE, ItemJournal, StoredItem


def item(name, title="A title", dim=3):
    return StoredItem(name, title, None, {"genre": "Drama"}, "enc:text", np.arange(dim, dtype=np.float32) / 3)


def reopened(folder):
    journal = ItemJournal(folder)
    found, damaged = dict(journal.items), journal.damaged_lines
    journal.close()
    return found, damaged


def test_items_come_back_with_their_vectors(tmp_path):
    journal = ItemJournal(tmp_path)
    journal.put(item("a", "caf\u00e9 \u2028 \n"))
    journal.put(item("b"))
    journal.remove("b")
    journal.close()
    found, damaged = reopened(tmp_path)
    assert found == {"a": item("a", "caf\u00e9 \u2028 \n")} and damaged == 0
    np.testing.assert_array_equal(found["a"].vector, item("a").vector)


def test_a_power_cut_at_any_byte_loses_nothing_acknowledged(tmp_path):
    journal = ItemJournal(tmp_path / "whole")
    states, ends = [{}], [0]
    for change in (("a", "1"), ("b", "2"), ("a", "3"), ("b", None), ("c", "4")):
        name, title = change
        journal.put(item(name, title)) if title else journal.remove(name)
        states.append(dict(journal.items))
        ends.append((tmp_path / "whole" / FILE).stat().st_size)
    journal.close()
    data = (tmp_path / "whole" / FILE).read_bytes()
    for size in range(len(data) + 1):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / FILE).write_bytes(data[:size])
        found, damaged = reopened(folder)
        assert found == states[max(i for i, end in enumerate(ends) if end <= size)] and damaged == 0
        journal = ItemJournal(folder)  # and it goes on from there
        journal.put(item("z"))
        journal.close()
        assert reopened(folder)[0] == {**found, "z": item("z")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_byte_costs_at_most_its_lines(tmp_path, place, value):
    for file in tmp_path.iterdir():
        file.unlink()
    journal = ItemJournal(tmp_path)
    for name in "abcd":
        journal.put(item(name))
    journal.close()
    data = bytearray((tmp_path / FILE).read_bytes())
    place %= len(data)
    changed = data[place] != value
    data[place] = value
    (tmp_path / FILE).write_bytes(data)
    found, damaged = reopened(tmp_path)
    assert len(found) >= (2 if changed else 4)  # a newline that is gone takes two lines with it
    assert all(found[name] == item(name) for name in found)
    if damaged:
        assert (tmp_path / DAMAGED).read_bytes() == bytes(data)
        assert reopened(tmp_path) == (found, 0)


def test_the_file_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SPARE_LINES", 10)
    journal = ItemJournal(tmp_path)
    for number in range(200):
        journal.put(item("a", str(number)))
    lines = (tmp_path / FILE).read_bytes().count(b"\n")
    assert lines <= 13
    journal.close()
    assert reopened(tmp_path)[0]["a"].title == "199"


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    journal = ItemJournal(tmp_path)
    journal.put(item("a"))
    write = os.write

    def full(fd, data):
        write(fd, bytes(data[:5]))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(UnavailableError, match=r"state: cannot be written .No space left"):
            journal.put(item("b"))
    assert set(journal.items) == {"a"}
    journal.put(item("c"))
    journal.close()
    assert reopened(tmp_path) == ({"a": item("a"), "c": item("c")}, 0)


def test_one_process_holds_the_folder(tmp_path):
    journal = ItemJournal(tmp_path)
    with pytest.raises(UsageError, match="another server keeps its state there"):
        ItemJournal(tmp_path)
    journal.close()
    reopened(tmp_path)


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot keep state") as caught:
        ItemJournal(tmp_path / "file")
    assert len(caught.value.lines) == 1
