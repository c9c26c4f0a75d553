"""Reading a team's tables: every mistake is named with its place, and what is written is read back."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy import columns
from deploy.columns import read_columns
from deploy.errors import UsageError
from deploy.tables import find_tables, read_interactions, read_items, write_items

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"


def save(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def mistakes(read: object, *args: object, **more: object) -> tuple[str, ...]:
    with pytest.raises(UsageError) as caught:
        read(*args, **more)  # type: ignore[operator]
    return caught.value.lines


def test_events_are_sorted_by_user_then_time_and_ties_keep_file_order(tmp_path: Path) -> None:
    rows = "b\tx\t5\t30\na\ty\t4\t20\nb\tz\t3\t10\na\tx\t2\t20\nb\ty\t1\t10\n"
    events = read_interactions(save(tmp_path / "d.inter", INTER + rows))
    assert events.users == ["b", "a"]
    assert events.items == ["x", "y", "z"]
    assert events.offsets.tolist() == [0, 3, 5]
    assert [events.items[i] for i in events.item_index] == ["z", "y", "x", "y", "x"]
    assert events.times.tolist() == [10, 10, 30, 20, 20]
    assert events.ratings is not None
    assert events.ratings.tolist() == [3, 1, 5, 4, 2]
    assert events.timed
    assert (events.offsets.dtype, events.item_index.dtype) == (np.int64, np.int32)


def test_without_a_time_column_the_file_order_is_the_order(tmp_path: Path) -> None:
    events = read_interactions(save(tmp_path / "d.csv", "user_id,item_id\nu,b\nv,b\nu,a\n"))
    assert [events.items[i] for i in events.item_index] == ["b", "a", "b"]
    assert not events.timed
    assert events.ratings is None


def test_columns_are_mapped_by_role(tmp_path: Path) -> None:
    path = save(tmp_path / "d.csv", "who,what,when\nu,b,2\nu,a,1\n")
    events = read_interactions(path, {"user": "who", "item": "what", "time": "when"})
    assert [events.items[i] for i in events.item_index] == ["a", "b"]
    assert "got color" in mistakes(read_interactions, path, {"color": "what"})[0]


def test_a_mapped_optional_column_must_exist(tmp_path: Path) -> None:
    path = save(tmp_path / "d.csv", "user_id,item_id\nu,b\n")
    assert "missing column when" in mistakes(read_interactions, path, {"time": "when"})[0]


def test_missing_column_names_those_present(tmp_path: Path) -> None:
    path = save(tmp_path / "d.csv", "user_id,film\nu,b\n")
    (line,) = mistakes(read_interactions, path)
    assert line.startswith(f"{path}: missing column item_id")
    assert line.endswith("(got columns user_id, film)")


@pytest.mark.parametrize("cell", ["soon", "nan", "inf", ""])
def test_a_time_must_be_a_finite_number(tmp_path: Path, cell: str) -> None:
    path = save(tmp_path / "d.inter", INTER + f"u\ta\t1\t5\nu\tb\t1\t{cell}\n")
    (line,) = mistakes(read_interactions, path)
    assert line == f"{path}, line 3, column timestamp: a time is a finite number of seconds (got {cell!r})"


def test_unknown_items_are_reported_five_times_and_counted(tmp_path: Path) -> None:
    path = save(tmp_path / "d.inter", INTER + "".join(f"u\tx{i}\t1\t{i}\n" for i in range(8)))
    lines = mistakes(read_interactions, path, known_items={"x0"})
    assert len(lines) == 6
    assert lines[0].startswith(f"{path}, line 3, column item_id: unknown item")
    assert lines[0].endswith("(got 'x1')")
    assert lines[-1] == f"{path}: 2 more of the same kind (unknown item)"


def test_several_kinds_of_mistakes_come_at_once(tmp_path: Path) -> None:
    path = save(tmp_path / "d.csv", 'user_id,item_id,timestamp\n,a,1\nu,"b\nc",2\nu,a,x\n')
    lines = mistakes(read_interactions, path)
    assert [re.search(r"line \d+, column \w+", line).group() for line in lines] == [  # type: ignore[union-attr]
        "line 2, column user_id",
        "line 3, column item_id",
        "line 5, column timestamp",  # the quoted cell spans two lines
    ]


def test_duplicate_item_ids_name_both_rows(tmp_path: Path) -> None:
    path = save(tmp_path / "d.item", ITEM + "1\tA\tDrama\n2\tB\tWar\n1\tC\tDrama\n")
    (line,) = mistakes(read_items, path)
    assert line == f"{path}, line 4, column item_id: duplicate item id, first in line 2 (got '1')"


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_named(tmp_path: Path, text: str) -> None:
    path = save(tmp_path / "d.item", text)
    assert mistakes(read_items, path)[0].startswith(f"{path}: the file is empty")


@pytest.mark.parametrize(("name", "header"), [("d.item", ITEM), ("d.csv", "item_id,title\n")])
def test_a_header_alone_is_no_data(tmp_path: Path, name: str, header: str) -> None:
    path = save(tmp_path / name, header)
    assert mistakes(read_items, path)[0].startswith(f"{path}: no rows")


def test_wrong_encoding_names_byte_and_line(tmp_path: Path) -> None:
    head = ITEM.encode() + b"1\tA\tDrama\n2\tMis"
    path = save(tmp_path / "d.item", head + b"\xe9rables\tDrama\n")
    (line,) = mistakes(read_items, path)
    assert line.startswith(f"{path}, line 3: not UTF-8 at byte {len(head)}")
    assert line.endswith("(got byte 0xe9)")


@pytest.mark.parametrize(("name", "text"), [("d.item", ITEM + "1\tA\n"), ("d.csv", "item_id,title,class\n1,A\n")])
def test_wrong_number_of_fields(tmp_path: Path, name: str, text: str) -> None:
    path = save(tmp_path / name, text)
    assert mistakes(read_items, path) == (f"{path}, line 2: 3 fields expected as in the header (got 2)",)


def test_repeated_columns_and_bad_headers(tmp_path: Path) -> None:
    path = save(tmp_path / "d.csv", "item_id,title,title\n1,A,B\n")
    assert mistakes(read_items, path) == (f"{path}, line 1, column title: repeated column (got it 2 times)",)
    path = save(tmp_path / "d.item", "item_id:token\ttitle\n1\tA\n")
    assert mistakes(read_items, path)[0].startswith(f"{path}, line 1, column 2: a header cell is name:type")


def test_broken_quoting_names_the_line(tmp_path: Path) -> None:
    path = save(tmp_path / "d.csv", 'item_id,title\n1,A\n2,"B\n')
    assert mistakes(read_items, path)[0].startswith(f"{path}, line 3: not CSV")


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "d.item", ITEM + "1\t" + "x" * 140_000 + "\tDrama\n")
    assert mistakes(read_items, path) == (
        f"{path}, line 2, column movie_title: a field has at most 131072 characters (got 140000)",
    )
    monkeypatch.setattr(columns, "MAX_FILE_BYTES", 100)
    assert "larger than 100 bytes" in mistakes(read_items, path)[0]


def test_atomic_files_have_no_quoting(tmp_path: Path) -> None:
    items = read_items(save(tmp_path / "d.item", ITEM.encode() + b'1\t"Heat\tCrime\r\n2\tBig "X"\tDrama\r\n'))
    assert items.titles == ['"Heat', 'Big "X"']
    assert items.attributes == {"class": ["Crime", "Drama"]}
    assert items.title_column == "movie_title"
    assert items.sequences == {"class"}


def test_without_a_title_the_ids_stand_in(tmp_path: Path) -> None:
    items = read_items(save(tmp_path / "d.csv", "item_id,genre\n7,War\n"))
    assert (items.titles, items.title_column) == (["7"], None)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    assert read_items(save(tmp_path / "d.csv", b"\xef\xbb\xbfitem_id,title\n1,A\n")).ids == ["1"]


def test_parquet_lists_nulls_and_times(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    moments = [datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None), None]
    table = pa.table({"user_id": [1, 1], "item_id": ["a", "b"], "tags": [["x", "y"], None], "timestamp": moments})
    path = tmp_path / "d.parquet"
    pq.write_table(table, path)
    assert read_columns(path, " | ").values == {
        "user_id": ["1", "1"],
        "item_id": ["a", "b"],
        "tags": ["x | y", ""],
        "timestamp": [repr(datetime(2020, 1, 1, tzinfo=UTC).timestamp()), ""],
    }
    assert mistakes(read_interactions, path)[0].startswith(f"{path}, row 2, column timestamp")
    path = save(tmp_path / "e.parquet", b"PAR1 but not really")
    assert mistakes(read_columns, path)[0].startswith(f"{path}: not a readable Parquet file")


def test_parquet_without_pyarrow_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "Parquet needs pyarrow" in mistakes(read_columns, save(tmp_path / "d.parquet", b"x"))[0]


def test_tables_are_found_in_folders_and_beside_files(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    inter, item = save(shop / "shop.inter", INTER), save(shop / "shop.item", ITEM)
    save(shop / "other.inter", INTER)
    for given_path in (shop, inter):
        found = find_tables(given_path)
        assert (found.interactions, found.items) == (inter, item)
    plain = tmp_path / "plain"
    csv, items = save(plain / "interactions.csv", "x"), save(plain / "items.csv", "x")
    assert (find_tables(plain).interactions, find_tables(plain).items) == (csv, items)
    alone = save(tmp_path / "alone" / "a.inter", INTER)
    assert find_tables(alone.parent) == find_tables(alone)
    assert find_tables(alone).items is None
    for part in ("train", "valid", "valid_small", "test"):
        save(alone.parent / f"a.{part}.inter", INTER)
    assert find_tables(alone.parent).interactions == alone


def test_folders_without_a_clear_table_are_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in mistakes(find_tables, tmp_path / "gone")[0]
    save(tmp_path / "a.txt", "x")
    assert mistakes(find_tables, tmp_path)[0].endswith("(got a.txt)")
    save(tmp_path / "a.inter", INTER)
    save(tmp_path / "b.inter", INTER)
    assert mistakes(find_tables, tmp_path)[0].endswith("(got a.inter, b.inter)")
    assert "a table is" in mistakes(read_columns, tmp_path / "a.txt")[0]


line_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(line_text.filter(bool), line_text, line_text), min_size=1, unique_by=lambda row: row[0]))
def test_items_are_read_back_as_they_were_written(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    ids, titles, texts = (list(column) for column in zip(*rows, strict=True))
    write_items(tmp_path / "items.item", ids, titles, {"text": texts})
    items = read_items(tmp_path / "items.item")
    assert (items.ids, items.titles, items.attributes) == (ids, titles, {"text": texts})


def test_breaks_become_one_space_and_surrogates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.item"
    write_items(path, ["1"], ["a\tb\nc\r\nd\re"], {})
    assert read_items(path).titles == ["a b c d e"]
    assert mistakes(write_items, path, ["1", "2"], ["ok", "\ud800"], {})[0].startswith(f"{path}, line 3")
    with pytest.raises(ValueError, match="may not be called"):
        write_items(path, ["1"], ["a"], {"title": ["b"]})
