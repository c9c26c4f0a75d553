"""A teacher that comes as files: what it teaches is what the files say, mistakes in them are named."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from compress.accuracy import given_rows
from compress.baselines.run import BaselinesConfig, train_baselines
from compress.data.dataset import Dataset
from compress.distil.distil import DistilConfig, distil
from compress.distil.lists import ListwiseKL
from compress.distil.sequence import SequenceStudent, distillation, new_student, student_loss
from compress.distil.step import Teaching
from compress.gate import check_gate
from compress.models.folder import load_array, load_sequence, model_facts, read_json
from compress.stage import RunOptions
from compress.teacher.cache import contexts, training_positions
from compress.teacher.given.answers import LOWEST
from compress.teacher.mix import MixConfig, mix
from compress.teacher.transfer import TargetConfig, given_digests, train_target
from compress.training import Training, validation_ranks, windows
from deploy.errors import UsageError

Run = Callable[..., Path]
Row = dict[str, Any]


def target(build: Run, data: Path, **method: Any) -> Path:
    config = TargetConfig.model_validate({"method": method, "cached_scores": 5})
    return build(train_target, config, data=data)


def vectors_of(dataset: Dataset, dim: int = 6, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(dataset.n_items, dim)).astype(np.float32)


def npy(folder: Path, name: str, values: NDArray[Any], ids: Sequence[str]) -> dict[str, str]:
    np.save(folder / f"{name}.npy", values)
    (folder / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))
    keys = ("vectors", "ids") if name == "items" else ("user_vectors", "user_ids")
    return dict(zip(keys, (str(folder / f"{name}.npy"), str(folder / f"{name}.txt")), strict=True))


def jsonl(path: Path, rows: Sequence[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lengths(dataset: Dataset) -> NDArray[np.int64]:
    return np.diff(dataset.offsets)


# where answers belong


def test_training_positions_are_numbered_as_contexts_are(film_dataset: Dataset) -> None:
    numbers = training_positions(film_dataset)
    asked = np.concatenate(list(contexts(film_dataset.train_sequences(), 3)))
    assert numbers.max() + 1 == len(asked)
    for event in np.flatnonzero(numbers >= 0):
        user = int(np.searchsorted(film_dataset.offsets, event, side="right")) - 1
        before = film_dataset.items[film_dataset.offsets[user] : event][-3:]
        history = asked[numbers[event]]
        np.testing.assert_array_equal(history[history > 0], before)


# vectors


@pytest.mark.parametrize("form", ["npy", "parquet", "safetensors"])
def test_item_vectors_are_aligned_to_the_catalogue(
    form: str, build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path
) -> None:
    values = vectors_of(film_dataset)
    ids = [*film_dataset.item_ids, "not-in-the-catalogue"]
    rows = np.concatenate([values, np.ones((1, 6), np.float32)])[::-1].copy()
    names, without = ids[::-1], film_dataset.item_ids[2]
    keep = [i for i, name in enumerate(names) if name != without]
    names, rows = [names[i] for i in keep], rows[keep]
    if form == "npy":
        given = npy(tmp_path, "items", rows.astype(np.float16), names)
    elif form == "parquet":
        pq.write_table(pa.table({"item_id": names, "vector": list(rows)}), tmp_path / "items.parquet")
        given = {"vectors": str(tmp_path / "items.parquet")}
    else:
        save_file(dict(zip(names, rows, strict=True)), tmp_path / "items.safetensors")
        given = {"vectors": str(tmp_path / "items.safetensors")}
    folder = target(build, film_data, name="given_vectors", encoder="none", **given)
    found = load_array(folder, "item_vectors")
    assert found is not None and found.dtype == np.float32
    values[2] = 0.0
    scale = np.sqrt((values.astype(np.float64) ** 2).sum() / (len(values) - 1))
    np.testing.assert_allclose(found[1:], values / scale, atol=2e-3)
    assert not found[0].any() and not found[3].any()
    assert model_facts(folder) == {"parts": []}


def test_an_encoder_over_given_vectors_is_a_teacher_as_any(
    build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path
) -> None:
    given = npy(tmp_path, "items", vectors_of(film_dataset), film_dataset.item_ids)
    encoder = {"dim": 8, "heads": 2, "neurons": 16, "max_history": 10, "training": {"epochs": 4, "batch_size": 16}}
    folder = target(build, film_data, name="given_vectors", encoder={"name": "sequence", **encoder}, **given)
    model = load_sequence(folder)
    assert model is not None and model.shape.dim == 8
    ranks = load_array(folder, "valid_ranks")
    assert ranks is not None
    np.testing.assert_array_equal(ranks, validation_ranks(model, film_dataset))
    scores = load_array(folder, "score_items")
    assert scores is not None and scores.min() > 0 and scores.shape[1] == 5
    curve = read_json(folder / "metrics.json")
    assert curve["valid_ndcg@10"] > 0.1  # chance is .1 or so at 40 films; untrained it is far below a trained one
    without = target(
        build, film_data, name="given_vectors", encoder={"name": "sequence", "id_vectors": False, **encoder}, **given
    )
    table = load_sequence(without)
    assert table is not None
    stacked = np.concatenate([np.asarray(load_array(without, "item_vectors")), table.item_table.detach().numpy()], 1)
    assert np.linalg.matrix_rank(stacked, tol=1e-4) == 6  # the table is a linear map of the six given numbers alone


def test_user_vectors_score_by_dot_product(build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path) -> None:
    items = vectors_of(film_dataset)
    users = np.random.default_rng(1).normal(size=(len(film_dataset.users), 6)).astype(np.float32)
    missing = 4  # this film has no vector: it is never an answer
    keep = np.arange(len(items)) != missing
    names = [name for name, kept in zip(film_dataset.item_ids, keep, strict=True) if kept]
    given = npy(tmp_path, "items", items[keep], names) | npy(tmp_path, "users", users[1:], film_dataset.users[1:])
    folder = target(build, film_data, name="given_vectors", **given)
    rows, scores = load_array(folder, "score_items"), load_array(folder, "scores")
    assert rows is not None and scores is not None
    numbers = training_positions(film_dataset)
    first = numbers[: film_dataset.offsets[1]]
    assert not rows[first[first >= 0]].any()  # user 0 has no vector: the observed item alone teaches there
    warm = film_dataset.popularity > 0
    by_hand = users[1] @ np.pad(items, ((1, 0), (0, 0))).T
    by_hand[[0, missing + 1, *np.flatnonzero(~warm)]] = -np.inf
    best = np.argsort(-by_hand)[:5]
    second = numbers[film_dataset.offsets[1] : film_dataset.offsets[2]]
    for number in second[second >= 0]:
        np.testing.assert_array_equal(rows[number], best)
        np.testing.assert_allclose(scores[number], by_hand[best] - by_hand[best[0]], atol=1e-2)
    cases = film_dataset.cases("valid")
    judged, ranks = load_array(folder, "valid_judged"), load_array(folder, "valid_ranks")
    assert judged is not None and ranks is not None
    np.testing.assert_array_equal(judged, cases.users != 0)
    case = int(np.flatnonzero(cases.users == 1)[0])
    full = users[1] @ np.pad(items, ((1, 0), (0, 0))).T
    full[[0, missing + 1, *cases.seen[case]]] = -np.inf
    target_row = cases.targets[case]
    expected = 0 if np.isneginf(full[target_row]) else 1 + int((full > full[target_row]).sum())
    assert ranks[case] == expected


# lists


def some_lists(dataset: Dataset, seed: int = 0) -> list[Row]:
    """For every user lists of eight films after three events and for validation and test."""
    rng = np.random.default_rng(seed)
    rows = []
    for user, n in zip(dataset.users, lengths(dataset), strict=True):
        for position in sorted({3, int(n) - 2, int(n) - 1}):
            items = [dataset.item_ids[i] for i in rng.permutation(dataset.n_items)[:8]]
            scores = [float(s) for s in np.sort(rng.normal(size=8))[::-1]]
            rows.append({"user_id": user, "position": position, "items": items, "scores": scores})
    return rows


def test_lists_teach_and_answer_at_their_positions(
    build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path
) -> None:
    rows = some_lists(film_dataset)
    folder = target(build, film_data, name="given_lists", lists=jsonl(tmp_path / "a.jsonl", rows))
    numbers = training_positions(film_dataset)
    items, scores = load_array(folder, "score_items"), load_array(folder, "scores")
    assert items is not None and scores is not None
    taught = set()
    by_place = {(row["user_id"], row["position"]): row for row in rows}
    row_of = {name: i for i, name in enumerate(film_dataset.item_ids, 1)}
    for user in range(len(film_dataset.users)):
        number = int(numbers[film_dataset.offsets[user] + 3])
        if number < 0:
            continue
        taught.add(number)
        row = by_place[film_dataset.users[user], 3]
        given = [(row_of[i], s) for i, s in zip(row["items"], row["scores"], strict=True)]
        given = [(row, score) for row, score in given if film_dataset.popularity[row] > 0][:5]
        np.testing.assert_array_equal(items[number, : len(given)], [row for row, _ in given])
        np.testing.assert_allclose(scores[number, : len(given)], [s - given[0][1] for _, s in given], atol=2e-3)
        assert not items[number, len(given) :].any() and (scores[number, len(given) :] == np.float16(LOWEST)).all()
    others = np.setdiff1d(np.arange(len(items)), sorted(taught))
    assert len(others) and not items[others].any()
    with np.load(folder / "answers.npz") as tops:
        assert set(tops.files) == {"valid_top", "test_top"}
        top = tops["test_top"]
    cases = film_dataset.cases("test")
    listed = by_place[film_dataset.users[cases.users[0]], len(cases.seen[0])]["items"]
    unseen = [row_of[item] for item in listed if row_of[item] not in cases.seen[0]]
    np.testing.assert_array_equal(top[0, : len(unseen)], unseen)
    assert not top[0, len(unseen) :].any()


def test_csv_and_parquet_say_the_same_as_json_lines(
    build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path
) -> None:
    rows = some_lists(film_dataset)
    lines = ["user_id,position,items,scores"]
    for row in rows:
        lines.append(
            f"{row['user_id']},{row['position']},{' '.join(row['items'])},{' '.join(map(repr, row['scores']))}"
        )
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    files = [jsonl(tmp_path / "a.jsonl", rows), str(tmp_path / "a.csv"), str(tmp_path / "a.parquet")]
    folders = [target(build, film_data, name="given_lists", lists=file) for file in files]
    for name in ("score_items", "scores", "valid_ranks"):
        first = load_array(folders[0], name)
        assert first is not None
        for folder in folders[1:]:
            np.testing.assert_array_equal(first, load_array(folder, name))


def test_a_list_without_a_position_holds_wherever_the_user_has_no_other(
    film_data: Path, film_dataset: Dataset, tmp_path: Path
) -> None:
    warm = [film_dataset.item_ids[row - 1] for row in np.flatnonzero(film_dataset.popularity > 0)]
    user = film_dataset.users[0]
    rows = [
        {"user_id": user, "items": warm[:2], "scores": [0.5, 0.25]},
        {"user_id": user, "position": 2, "items": warm[2:3], "scores": [1.0]},
        {"user_id": "nobody", "items": warm[:1], "scores": [1.0]},
        {"user_id": user, "position": 900, "items": warm[:1], "scores": [1.0]},
    ]
    log: list[str] = []
    method = {"name": "given_lists", "lists": jsonl(tmp_path / "a.jsonl", rows), "score": "probability"}
    out = tmp_path / "out"
    out.mkdir()
    config = TargetConfig.model_validate({"method": method, "cached_scores": 5})
    train_target(config, {"data": film_data}, out, RunOptions(threads=1, log=log.append))
    items, scores = load_array(out, "score_items"), load_array(out, "scores")
    assert items is not None and scores is not None
    row_of = {name: i for i, name in enumerate(film_dataset.item_ids, 1)}
    numbers = training_positions(film_dataset)[: film_dataset.offsets[1]]
    for position, number in enumerate(numbers):
        if number >= 0:
            expected = [row_of[warm[2]]] if position == 2 else [row_of[warm[0]], row_of[warm[1]]]
            np.testing.assert_array_equal(items[number, : len(expected)], expected)
    np.testing.assert_allclose(scores[numbers[1], :2], [0.0, np.log(0.5)], atol=1e-3)
    assert any("'nobody'" in line for line in log) and any("position 900" in line for line in log)
    judged = load_array(out, "valid_judged")
    assert judged is not None and judged.sum() == 1
    with pytest.raises(UsageError, match="1 ids that the data has not"):
        target_config = TargetConfig.model_validate({"method": {**method, "on_unknown": "error"}})
        train_target(target_config, {"data": film_data}, out, RunOptions())


# downstream


@pytest.fixture(scope="module")
def oracle(build: Run, film_data: Path, film_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of lists that knows the next event, on half of the training positions and all held-out ones."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for user, name in enumerate(film_dataset.users):
        start, stop = int(film_dataset.offsets[user]), int(film_dataset.offsets[user + 1])
        for position in range(1, stop - start):
            if position % 2 or position >= stop - start - 2:
                right = film_dataset.item_ids[film_dataset.items[start + position] - 1]
                others = [film_dataset.item_ids[i] for i in rng.permutation(film_dataset.n_items)[:11]]
                items = [right, *(item for item in others if item != right)]
                scores = [float(-i) for i in range(len(items))]
                rows.append({"user_id": name, "position": position, "items": items, "scores": scores})
    return target(
        build, film_data, name="given_lists", lists=jsonl(tmp_path_factory.mktemp("oracle") / "lists.jsonl", rows)
    )


def test_students_learn_from_lists_and_the_gate_judges_them(build: Run, film_data: Path, oracle: Path) -> None:
    student = {"name": "sequence", "dim": 8, "heads": 2, "neurons": 16, "max_history": 10}
    training = {"epochs": 3, "batch_size": 16, "learning_rate": 0.005}
    config = DistilConfig.model_validate({"student": student, "training": training})
    taught = build(distil, config, data=film_data, mix=oracle)
    nothing = build(train_target, TargetConfig(), data=film_data, source=empty_model(build))
    control = build(distil, config, data=film_data, mix=nothing)
    assert load_sequence(taught) is not None and load_array(taught, "text_map") is None
    gate = check_gate([oracle], [[control]])
    assert gate.passed and gate.teacher_valid == pytest.approx(1.0, abs=0.05)
    one, two = load_sequence(taught), load_sequence(control)
    assert one is not None and two is not None and not torch.equal(one.item_table, two.item_table)


def empty_model(build: Run) -> Path:
    def nothing(_config: Any, _inputs: Any, out: Path, _options: Any) -> None:
        (out / "model.json").write_text('{"parts": []}')

    return build(nothing, TargetConfig())


def test_positions_without_a_list_keep_the_observed_item(film_dataset: Dataset, oracle: Path) -> None:
    teaching = Teaching(oracle)
    assert teaching.taught is not None and 0 < int(teaching.taught.sum()) < len(teaching.taught)
    student = new_student(SequenceStudent(dim=8, dropout=0.0, max_history=10), film_dataset, teaching, 0)
    cut = windows(film_dataset.train_sequences(), 10)
    batch = cut.batch(np.arange(8))
    student.requires_grad_(False)

    def loss_of(losses: list[ListwiseKL], taught_by: Teaching = teaching) -> float:
        return float(student_loss(student, batch, distillation(student, taught_by, losses), Training()))

    hard = loss_of([])
    # by hand, position by position
    inputs, targets, positions = batch
    at = positions[positions >= 0]
    table = student.table()
    logits = (student.encoder(table[inputs])[targets > 0] @ table.T).masked_fill(student.table.warm[:, 0] == 0, -1e4)
    known = teaching.taught[at]
    assert teaching.items is not None and teaching.scores is not None
    soft = []
    for row, items, scores in zip(logits[known], teaching.items[at][known], teaching.scores[at][known], strict=True):
        there = items > 0
        p = (scores[there] / 2).softmax(0)
        soft.append(float((p * (p.log() - (row[items[there]] / 2).log_softmax(0))).sum()) * 4)
    share = ListwiseKL().weight * float(known.float().mean())
    expected = (1 - share) * hard + share * float(np.mean(soft))
    assert loss_of([ListwiseKL()]) == pytest.approx(expected, rel=1e-5)
    untaught = Teaching(oracle)
    untaught.taught = torch.zeros_like(teaching.taught)
    assert loss_of([ListwiseKL()], untaught) == hard


def test_bench_has_its_accuracy_and_says_that_there_is_nothing_to_time(
    film_dataset: Dataset, film_data: Path, oracle: Path, build: Run, tmp_path: Path
) -> None:
    left_out: list[dict[str, str]] = []
    rows, ranks = given_rows({"prune/teacher:llm:0": oracle}, film_dataset, left_out)
    assert [row["name"] for row in rows] == ["llm-fp32"] and rows[0]["latency"] == []
    assert rows[0]["accuracy"]["test"]["ndcg@10"] == pytest.approx(1.0, abs=0.05)
    assert set(ranks) == {"llm-fp32/valid", "llm-fp32/test"}
    assert [item["what"] for item in left_out] == ["latency, memory and size of teacher llm"]
    only_valid = [
        {"user_id": user, "position": int(n) - 2, "items": film_dataset.item_ids[:3], "scores": [3, 2, 1]}
        for user, n in zip(film_dataset.users, lengths(film_dataset), strict=True)
    ]
    folder = target(build, film_data, name="given_lists", lists=jsonl(tmp_path / "v.jsonl", only_valid))
    rows, ranks = given_rows({"prune/teacher:llm:0": folder}, film_dataset, left_out)
    assert "test" not in rows[0]["accuracy"] and set(ranks) == {"llm-fp32/valid"}
    assert left_out[-1]["why"] == f"its answers cover 0 of {len(film_dataset.cases('test'))} test cases"


def test_a_teacher_that_answers_no_validation_case_cannot_be_judged(
    build: Run, film_data: Path, film_dataset: Dataset, oracle: Path, tmp_path: Path
) -> None:
    row = {"user_id": film_dataset.users[0], "position": 2, "items": film_dataset.item_ids[:3], "scores": [3, 2, 1]}
    folder = target(build, film_data, name="given_lists", lists=jsonl(tmp_path / "t.jsonl", [row]))
    with pytest.raises(UsageError, match="cannot judge a teacher that answers no validation case; give"):
        check_gate([folder], [[oracle]])
    baselines = build(train_baselines, BaselinesConfig(), data=film_data)
    with pytest.raises(UsageError, match="mix: none"):
        build(mix, MixConfig(members=("ease",)), data=film_data, baselines=baselines, target=folder)


# mistakes


def npy_with(value: float) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    def change(values: NDArray[np.float32]) -> NDArray[Any]:
        values[2, 3] = value
        return values

    return change


@pytest.mark.parametrize(
    ("change", "ids", "message"),
    [
        (npy_with(np.nan), None, r"items.npy, row 3, column 4: a number is finite .*\(got nan\)"),
        (npy_with(np.inf), None, r"row 3, column 4: a number is finite"),
        (npy_with(1e30), None, r"row 3, column 4: a number is finite and at most 1e\+09"),
        (lambda v: v[:, 0], None, r"floats \(rows, dim\) are expected \(got float32 \(\d+,\)\)"),
        (lambda v: (v * 100).astype(np.int64), None, r"floats \(rows, dim\) are expected \(got int64"),
        (lambda v: v.astype(object), None, r"not an .npy file of numbers"),
        (lambda v: np.zeros((len(v), 20_000), np.float16), None, r"a vector has 1 to 16384 numbers \(got 20000\)"),
        (lambda v: v, lambda i: i[:-1], r"items.txt: one id a line for every row of items.npy"),
        (lambda v: v, lambda i: [i[0], *i[:-1]], r"row 2: the id stands in row 1 already"),
        (lambda v: v, lambda i: [f"x{name}" for name in i], r"none of its ids is in the data"),
        (lambda v: v, lambda i: ["", *i[1:]], r"row 1: an id is needed"),
    ],
)
def test_mistakes_in_vectors_name_row_and_column(
    change: Callable[[NDArray[np.float32]], NDArray[Any]],
    ids: Callable[[list[str]], list[str]] | None,
    message: str,
    build: Run,
    film_data: Path,
    film_dataset: Dataset,
    tmp_path: Path,
) -> None:
    names = film_dataset.item_ids if ids is None else ids(film_dataset.item_ids)
    values = change(vectors_of(film_dataset))
    given = npy(tmp_path, "items", values, names)
    with pytest.raises(UsageError, match=message):
        target(build, film_data, name="given_vectors", encoder="none", **given)


def test_no_file_of_vectors_is_unpickled(build: Run, film_data: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    array = np.empty((1, 1), object)
    array[0, 0] = Bomb()
    given = npy(tmp_path, "items", array, ["f1"])
    with pytest.raises(UsageError, match=r"not an .npy file of numbers"):
        target(build, film_data, name="given_vectors", **given)
    (tmp_path / "items.npy").write_bytes(b"\x80\x04cposix\nsystem\n.")
    with pytest.raises(UsageError, match=r"not an .npy file of numbers"):
        target(build, film_data, name="given_vectors", **given)
    assert not (tmp_path / "ran").exists()


def test_unequal_lengths_in_other_forms(build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path) -> None:
    names = film_dataset.item_ids[:3]
    path = tmp_path / "items.parquet"
    for vectors, message in (
        ([[1.0, 2.0], [1.0], [1.0, 2.0]], r"row 2, column vector: 2 numbers expected as in the first \(got 1\)"),
        ([[1.0, 2.0], [1.0, None], [1.0, 2.0]], r"row 2, column 2: a number is finite \(got null\)"),
        (["1 2", "1 2", "1 2"], r"column vector: a list of floats is expected \(got string\)"),
    ):
        pq.write_table(pa.table({"item_id": names, "vector": vectors}), path)
        with pytest.raises(UsageError, match=message):
            target(build, film_data, name="given_vectors", vectors=str(path))
    save_file({names[0]: np.ones(2, np.float32), names[1]: np.ones(3, np.float32)}, tmp_path / "i.safetensors")
    with pytest.raises(UsageError, match=r"row 2, column vector: 2 numbers expected as in the first \(got 3\)"):
        target(build, film_data, name="given_vectors", vectors=str(tmp_path / "i.safetensors"))
    (tmp_path / "j.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UsageError, match="not a readable safetensors file"):
        target(build, film_data, name="given_vectors", vectors=str(tmp_path / "j.safetensors"))
    with pytest.raises(UsageError, match=r"vectors are .npy, .parquet, .safetensors"):
        target(build, film_data, name="given_vectors", vectors=str(tmp_path / "items.pt"))


def test_user_vectors_of_another_length(build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path) -> None:
    given = npy(tmp_path, "items", vectors_of(film_dataset), film_dataset.item_ids)
    users = np.ones((len(film_dataset.users), 5), np.float32)
    with pytest.raises(UsageError, match=r"as many numbers as items, 6 \(got 5\)"):
        target(build, film_data, name="given_vectors", **given, **npy(tmp_path, "users", users, film_dataset.users))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"items": ["f1", "f2"], "scores": [1.0]}, r"line 1, column scores: one score per item, 2 \(got 1\)"),
        ({"items": [], "scores": []}, r"line 1, column items: 1 to 10000 items \(got 0\)"),
        ({"items": ["f1", "f1"], "scores": [2, 1]}, r"column items: an item stands once in a list \(got 'f1' twice\)"),
        ({"items": ["f1", "f2"], "scores": [1, 2]}, r"scores fall along the list.* \(got 2.0 after 1.0\)"),
        ({"items": ["f1"], "scores": [float("nan")]}, r"column scores: a score is finite \(got nan at place 1\)"),
        ({"items": ["f1"], "scores": [True]}, r"line 1: not a list of this form: scores: a list of numbers"),
        ({"items": ["f1"], "scores": [1], "position": -1}, r"position: a whole number from 0 expected"),
        ({"items": "f1", "scores": [1]}, r"items: a list of ids expected"),
        ({"items": ["f1"]}, r"line 1: not a list of this form"),
    ],
)
def test_mistakes_in_lists_name_row_and_column(
    row: Row, message: str, build: Run, film_data: Path, tmp_path: Path
) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"user_id": "u1", **row}])
    with pytest.raises(UsageError, match=message):
        target(build, film_data, name="given_lists", lists=file)


def test_mistakes_of_files_as_a_whole(build: Run, film_data: Path, film_dataset: Dataset, tmp_path: Path) -> None:
    good = {"user_id": "u1", "items": [film_dataset.item_ids[0]], "scores": [1.0]}
    for rows, message in (
        ([good, good], r"line 2, column user_id: the list of this user and position is in line 1 already"),
        ([], r"no lists in the file"),
        ([{**good, "user_id": "nobody"}], r"no list or user vector belongs to a user of the data"),
        ([{**good, "scores": [1.5]}], r"probabilities lie in 0..1 \(got 1.5..1.5\)"),
    ):
        file = jsonl(tmp_path / "a.jsonl", rows)
        with pytest.raises(UsageError, match=message):
            target(build, film_data, name="given_lists", lists=file, score="probability")
    (tmp_path / "a.csv").write_text("user_id,items,scores\nu1,f1,high\n")
    with pytest.raises(UsageError, match=r"line 2, column scores: scores are numbers"):
        target(build, film_data, name="given_lists", lists=str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text("user_id,items,scores,position\nu1,f1,1,last\n")
    with pytest.raises(UsageError, match=r"line 2, column position: a whole number from 0 \(got 'last'\)"):
        target(build, film_data, name="given_lists", lists=str(tmp_path / "a.csv"))


def test_files_are_part_of_the_key_and_asked_for_before_any_work(tmp_path: Path) -> None:
    given = npy(tmp_path, "items", np.ones((2, 2), np.float32), ["a", "b"])
    config = TargetConfig.model_validate({"method": {"name": "given_vectors", **given}})
    before = given_digests(config)
    assert len(before) == 2
    npy(tmp_path, "items", np.zeros((2, 2), np.float32), ["a", "b"])
    after = given_digests(config)
    assert before["target.method.vectors.0"] != after["target.method.vectors.0"]
    assert before["target.method.vectors.1"] == after["target.method.vectors.1"]
    (tmp_path / "items.txt").unlink()
    with pytest.raises(UsageError, match=r"target.method.vectors: no such file"):
        given_digests(config)
    with pytest.raises(ValueError, match="needs ids, a text file"):
        TargetConfig.model_validate({"method": {"name": "given_vectors", "vectors": "a.npy"}})
    assert given_digests(TargetConfig()) == {}


def test_who_teaches() -> None:
    method = {"name": "given_vectors", "vectors": "a.parquet"}
    assert TargetConfig.model_validate({"method": method}).teaches
    assert not TargetConfig.model_validate({"method": {**method, "encoder": "none"}}).teaches
    assert TargetConfig.model_validate({"method": {"name": "given_lists", "lists": "a.csv"}}).teaches
