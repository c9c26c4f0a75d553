"""Published like/dislike rows: read, checked, drawn, and written as a `data` artifact."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress.data.dataset import Dataset
from compress.data.load import DataConfig, load_data, source_digests
from compress.likes.rows import LikeData
from compress.likes.training_rows import training_rows
from compress.stage import RunOptions
from deploy.errors import UsageError

TIMED = "\t".join(
    [
        "user_id:token",
        "item_id:token",
        "rating:float",
        "timestamp:float",
        "item_id_list:token_seq",
        "rating_list:token_seq\n",
    ]
)
Load = Callable[..., Path]
Write = Callable[..., Path]


def test_rows_are_read_with_their_histories(write: Write, load: Load) -> None:
    folder = load(write())
    data = LikeData.open(folder)
    train, test = data["train"], data["test"]
    assert train.items.tolist() == [2, 3, 4, 1] and train.labels.tolist() == [True, False, True, False]
    assert train.users.tolist() == [0, 0, 1, 1] and train.times is not None and train.times.tolist() == [10, 20, 15, 16]
    assert train.lengths.tolist() == [1, 2, 0, 2] and train.history.tolist() == [1, 1, 2, 4, 5]
    assert train.history_likes.tolist() == [True, True, True, True, False]
    assert data.ordered and data.n_items == 5 and len(test) == 3
    items, likes = train.newest(2)
    assert items.tolist() == [[0, 1], [1, 2], [0, 0], [4, 5]]
    assert likes.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0]]
    described = json.loads((folder / "dataset.json").read_text("utf-8"))
    assert described["task"] == "likes" and described["protocol"]["split"] == "published"
    assert described["domains"]["target"]["rows"] == {"train": 4, "valid": 3, "test": 3}


def test_take_keeps_each_rows_own_history(write: Write, load: Load) -> None:
    rows = LikeData.open(load(write()))["train"]
    taken = rows.take(np.array([3, 1]))
    assert taken.items.tolist() == [1, 3] and taken.history.tolist() == [4, 5, 1, 2]
    assert taken.history_likes.tolist() == [True, False, True, True] and taken.offsets.tolist() == [0, 2, 4]


def test_likes_are_events_so_that_the_catalogue_can_be_ranked(write: Write, load: Load) -> None:
    data = Dataset.open(load(write()))
    events = {user: data.items[data.offsets[i] : data.offsets[i + 1]].tolist() for i, user in enumerate(data.users)}
    # u1 likes a (history) and b; u2 likes d; u3 likes d (history), c, e; u4 likes a
    assert events == {"u1": [1, 2], "u2": [4], "u3": [4, 3, 5], "u4": [1]}
    assert data.train.tolist() == [True, True, True, False, False, False, False]
    valid, test = data.cases("valid"), data.cases("test")
    assert valid.targets.tolist() == [3] and test.targets.tolist() == [5]
    assert test.histories(3).tolist() == [[0, 4, 3]]


def test_a_rating_of_at_least_liked_from_is_a_like(write: Write, load: Load) -> None:
    stars = {"train": "u\tb\t3.5\t1\ta\t4\nu\tc\t5\t2\ta\t4\n", "valid": "u\td\t3\t3\ta b\t4 3.5\nu\te\t4\t4\ta\t4\n"}
    header = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\titem_id_list:token_seq\trating_list:token_seq\n"
    )
    folder = write(header + stars["train"], header + stars["valid"], header + stars["valid"])
    data = LikeData.open(load(folder, liked_from=4))
    assert data["train"].labels.tolist() == [False, True]
    assert data["valid"].history_likes.tolist() == [True, False, True]
    with pytest.raises(UsageError, match=r"line 2, column rating: a label is 0 or 1; for ratings set split.liked_from"):
        load(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1\tz\t1\t1\ta\t1", "line 2, column item_id: unknown item"),
        ("u1\tb\t1\t1\ta z\t1 1", "line 2, column item_id_list: unknown item"),
        ("u1\tb\tyes\t1\ta\t1", "line 2, column rating: a rating is a finite number (got 'yes')"),
        ("u1\tb\t1\t1\ta\t2", "line 2, column rating_list: a label is 0 or 1"),
        (
            "u1\tb\t1\t1\ta c\t1",
            "column rating_list: as many ratings as items in item_id_list are needed, 2 (got 1)",
        ),
        ("u1\tb\t1\tnan\ta\t1", "line 2, column timestamp: a time is a finite number of seconds (got 'nan')"),
        ("\tb\t1\t1\ta\t1", "line 2, column user_id: an id may not be empty"),
    ],
)
def test_mistakes_name_their_line_and_column(write: Write, load: Load, line: str, message: str) -> None:
    header = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\titem_id_list:token_seq\trating_list:token_seq\n"
    )
    with pytest.raises(UsageError) as error:
        load(write(train=f"{header}{line}\n"))
    assert message in str(error.value)


def test_missing_files_and_columns_are_named(write: Write, load: Load, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"valid\.inter missing beside tiny\.test\.inter"):
        load(write(valid=None))
    with pytest.raises(UsageError, match=r"no \.test\.inter"):
        load(tmp_path)
    (tmp_path / "tiny" / "tiny.valid.inter").write_text("user_id:token\titem_id:token\trating:float\nu1\ta\t1\n")
    with pytest.raises(UsageError, match="missing column item_id_list"):
        load(tmp_path / "tiny")


def test_one_kind_of_label_cannot_be_judged(write: Write, load: Load) -> None:
    header = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\titem_id_list:token_seq\trating_list:token_seq\n"
    )
    with pytest.raises(UsageError, match="valid rows need likes and dislikes"):
        load(write(valid=f"{header}u1\tb\t1\t1\ta\t1\n"))


def test_shots_are_drawn_by_the_published_rule(write: Write, load: Load) -> None:
    folder = write()
    data = LikeData.open(load(folder, shots=2))
    wanted = np.random.default_rng(0).permutation(4)[:2]
    assert data["train"].items.tolist() == np.array([2, 3, 4, 1])[wanted].tolist()
    assert len(data["valid"]) == 3
    with pytest.raises(UsageError, match=r"data.split.shots: fewer than the 4 rows of train are needed \(got 5\)"):
        load(folder, shots=5)


def test_without_training_rows_shots_leave_validation(write: Write, load: Load) -> None:
    more = VALID_FIVE
    folder = write(train=None, valid=more)
    out = load(folder, shots=2)
    data = LikeData.open(out)
    assert len(data["train"]) == 2 and len(data["valid"]) == 4
    users = {(int(u), int(i)) for u, i in zip(data["train"].users, data["train"].items, strict=True)}
    assert users.isdisjoint(zip(data["valid"].users.tolist(), data["valid"].items.tolist(), strict=True))
    assert json.loads((out / "dataset.json").read_text("utf-8"))["domains"]["target"]["shots_from"] == "valid"
    with pytest.raises(UsageError, match=r"no \.train\.inter; set split\.shots"):
        load(folder)


VALID_FIVE = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\titem_id_list:token_seq\trating_list:token_seq\n"
    "u1\ta\t1\t1\tb\t1\nu2\ta\t0\t1\tb\t1\nu3\ta\t1\t1\tb\t1\nu4\ta\t0\t1\tb\t1\nu5\ta\t1\t1\tb\t1\nu6\ta\t0\t1\tb\t1\n"
)


def test_histories_without_an_order_are_shuffled(write: Write, load: Load) -> None:
    """Files that list the likes first would tell a sequence model the labels."""
    header = "user_id:token\titem_id:token\trating:float\titem_id_list:token_seq\trating_list:token_seq\n"
    rows = "".join(f"u{n}\te\t{n % 2}\ta b c d\t1 1 0 0\n" for n in range(40))
    data = LikeData.open(load(write(header + rows, header + rows, header + rows)))
    assert not data.ordered and data["train"].times is None
    first = data["train"].history_likes.reshape(40, 4)[:, 0]
    assert 5 < first.sum() < 35
    likes = dict(zip("abcd", [True, True, False, False], strict=True))
    for item, like in zip(data["train"].history.tolist(), data["train"].history_likes.tolist(), strict=True):
        assert like == likes["abcd"[item - 1]]


def test_history_items_train_too(write: Write, load: Load) -> None:
    data = LikeData.open(load(write()))
    rows = training_rows(data)
    # beyond the four rows: u1's a has nothing before it, u2's e has d; u2's d and u1's b are rows themselves
    assert rows.items.tolist() == [2, 3, 4, 1, 1, 5] and rows.labels.tolist() == [True, False, True, False, True, False]
    assert rows.lengths.tolist() == [1, 2, 0, 2, 0, 1] and rows.history.tolist()[-1] == 4


def test_without_an_order_the_rest_of_the_row_is_the_history(write: Write, load: Load) -> None:
    header = "user_id:token\titem_id:token\trating:float\titem_id_list:token_seq\trating_list:token_seq\n"
    text = header + "u1\te\t1\ta b\t1 0\nu2\te\t0\ta\t1\n"
    rows = training_rows(LikeData.open(load(write(text, text, text))))
    assert len(rows) == 5
    for i in range(2, 5):
        history = rows.history[rows.offsets[i] : rows.offsets[i + 1]].tolist()
        assert 5 in history and rows.items[i] not in history
    assert rows.history_likes[rows.offsets[4] :].tolist() == [False]  # u2 asked about a: e, which was disliked


def test_a_published_split_is_not_filtered(write: Write) -> None:
    with pytest.raises(ValueError, match="leave out cold_fraction, min_rating"):
        DataConfig.model_validate(
            {"domains": {"target": {"from": str(write())}}, "split": "published", "cold_fraction": 0.1, "min_rating": 3}
        )


def test_the_digest_is_of_all_files(write: Write) -> None:
    folder = write()
    wanted = DataConfig.model_validate({"domains": {"target": {"from": str(folder)}}, "split": "published"})
    before = source_digests(wanted)
    path = folder / "tiny.test.inter"
    path.write_text(path.read_text("utf-8").replace("u4\ta\t1", "u4\ta\t0"), "utf-8")
    assert source_digests(wanted) != before


@pytest.mark.skipif("SLIMREC_DATA" not in os.environ, reason="SLIMREC_DATA is not set: no published data here")
@pytest.mark.parametrize(
    ("name", "shots", "counts"),
    [("tallrec_movie", None, (8000, 1000, 1000)), ("tallrec_book", 16, (16, 2411, 2427))],
)
def test_real_folders(name: str, shots: int | None, counts: tuple[int, int, int], tmp_path: Path) -> None:
    domain = {"from": f"$SLIMREC_DATA/{name}", "list_separator": " | "}
    wanted = {"domains": {"target": domain}, "split": {"name": "published", "shots": shots}}
    load_data(DataConfig.model_validate(wanted), {}, tmp_path, RunOptions())
    data = LikeData.open(tmp_path)
    assert tuple(len(data[split]) for split in ("train", "valid", "test")) == counts
    assert data.ordered == (name == "tallrec_movie")
