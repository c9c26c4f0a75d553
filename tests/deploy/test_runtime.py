"""Recommender: ids to ids, filters, unknown ids, self-test."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deploy.errors import GateError, UsageError
from deploy.manifest import canonical_json
from deploy.runtime import Recommender


@pytest.fixture(scope="module")
def model(tiny):
    return Recommender.load(tiny.archive, tiny.public_key, precision="fp32")


def ids(answer):
    return [item.id for item in answer.items]


def expected(history, k, left_out=()):
    """Row ids by an independent computation over the fixed table."""
    table = np.random.default_rng(7).normal(size=(21, 4)).astype(np.float32)
    scores = table @ table[history[-5:]].mean(axis=0)
    scores[[0, *history, *left_out]] = -np.inf
    order = np.argsort(-scores, kind="stable")
    return [f"i{row}" for row in order[:k] if scores[row] > -np.inf]


def test_the_answer_is_the_models(model):
    answer = model.recommend(["i3", "i9"], k=4)
    assert ids(answer) == expected([3, 9], 4)
    assert answer.source == "model" and answer.unknown == []
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)
    assert all(item.title.endswith(f" {item.id[1:]} é") for item in answer.items)


def test_the_default_precision_is_the_manifests(tiny):
    assert Recommender.load(tiny.folder).precision == "int8"
    with pytest.raises(UsageError, match=r"precision: the bundle has fp32, int8 .got int4"):
        Recommender.load(tiny.folder, precision="int4")


def test_unknown_ids_are_skipped_and_named(model):
    answer = model.recommend(["x", "i3", "y", "x", "i9"], k=4, exclude=["z"])
    assert ids(answer) == expected([3, 9], 4)
    assert answer.unknown == ["x", "y", "z"]


def test_without_a_known_id_recent_popularity_answers(model):
    assert ids(model.recommend([], k=3)) == ["i7", "i3", "i12"]
    answer = model.recommend(["x"], k=3, exclude=["i3"])
    assert ids(answer) == ["i7", "i12", "i1"]
    assert answer.source == "popularity" and answer.unknown == ["x"]
    assert {item.score for item in answer.items} == {None}
    assert ids(model.recommend([], k=20, filter={"genre": ["War"]})) == ["i20", "i5"]


def test_a_long_history_is_read_from_its_end_and_excluded_whole(model):
    rows = [1, 2, 3, 4, 5, 6, 7, 8]
    answer = model.recommend([f"i{row}" for row in rows], k=20)
    assert ids(answer) == expected(rows, 20)
    assert len(answer.items) == 12


def test_excluded_items_are_left_out(model):
    first = ids(model.recommend(["i3"], k=2))
    assert ids(model.recommend(["i3"], k=20, exclude=first)) == expected([3], 20, [int(item[1:]) for item in first])


def test_k_is_bounded_by_the_catalogue(model):
    assert len(model.recommend(["i3"], k=1000).items) == 19
    assert model.recommend([f"i{row}" for row in range(1, 21)], k=5).items == []
    with pytest.raises(UsageError, match=r"k: must be at least 1 .got 0"):
        model.recommend(["i3"], k=0)


def test_filters_keep_the_order_and_split_lists(model):
    everything = ids(model.recommend(["i3"], k=20))
    for values in (["War"], ["Comedy"], ["War", "Comedy"], ["Drama"]):
        genres = {
            row: {"Drama", "War"} if row % 5 == 0 else {"Drama"} if row % 2 else {"Comedy"} for row in range(1, 21)
        }
        wanted = [item for item in everything if genres[int(item[1:])] & set(values)]
        assert ids(model.recommend(["i3"], k=20, filter={"genre": values})) == wanted
    assert ids(model.recommend(["i3"], filter={"genre": ["Drama|War"]})) == []
    assert ids(model.recommend(["i3"], filter={"genre": []})) == []
    with pytest.raises(UsageError, match=r"filter: unknown attribute; the bundle has genre .got 'year'"):
        model.recommend(["i3"], filter={"year": ["1999"]})


def test_many_equals_one_by_one(model):
    histories = [["i3"], [], ["i1", "i2", "i3", "i4", "i5", "i6", "i7"], ["x", "i9"], ["x"]]
    excludes = [["i1"], ["i7"], [], ["i2", "i3"], []]
    together = model.recommend_many(histories, 6, excludes, {"genre": ["Drama"]})
    for history, exclude, answer in zip(histories, excludes, together, strict=True):
        alone = model.recommend(history, 6, exclude, {"genre": ["Drama"]})
        assert ids(alone) == ids(answer) and alone.unknown == answer.unknown
    assert model.recommend_many([]) == []
    with pytest.raises(UsageError, match="one list per history"):
        model.recommend_many(histories, 6, [[]])


def test_one_alone_is_what_it_is_among_others(model):
    """Most requests go a shorter way: unknown ids, repeats, long histories, excludes and all that may be left over."""
    cases = [(["i3", "no", "i9", "no"], ["i4", "nor"]), ([f"i{row}" for row in range(1, 12)], []), (["no"], ["i1"])]
    cases += [(["i5", "i5"], [f"i{row}" for row in range(6, 21)]), ([], [])]
    for k in (1, 7, 50):
        together = model.recommend_many([h for h, _ in cases], k, [e for _, e in cases])
        for (history, exclude), wanted in zip(cases, together, strict=True):
            found = model.recommend(history, k, exclude)
            assert (ids(found), found.unknown, found.source) == (ids(wanted), wanted.unknown, wanted.source)
            assert [one.score for one in found.items] == pytest.approx([one.score for one in wanted.items])


def test_rows_of(model):
    assert model.rows_of(["i1", "x", "i20"]) == [1, 0, 20]


def test_threads_share_one_recommender(model):
    histories = [[f"i{row}"] for row in range(1, 21)] * 10
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda history: model.recommend(history, 3), histories))
    assert [ids(answer) for answer in answers] == [expected([int(history[0][1:])], 3) for history in histories]


def test_text_vectors(model):
    vectors = model.text_vectors(["film odd drama", "odd"])
    assert vectors.shape == (2, 4)


def spoil_item(golden):
    items = golden["cases"][1]["answers"]["int8"]["items"]
    items[0], items[4] = items[4], items[0]


def spoil_score(golden):
    golden["cases"][0]["answers"]["int8"]["scores"][2] += 0.01


def spoil_length(golden):
    for field in ("items", "scores"):
        golden["cases"][0]["answers"]["int8"][field].pop()


def spoil_precision(golden):
    del golden["cases"][2]["answers"]["int8"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_item, r"cases.1: int8: place 1 must be item"),
        (spoil_score, r"cases.0: int8: place 3 must score"),
        (spoil_length, r"cases.0: int8: must be 4 different items .got 5"),
        (spoil_precision, r"cases.2: int8: no recorded answer"),
    ],
)
def test_a_failed_golden_answer_is_refused(write_tiny, golden, spoil, said):
    changed = copy.deepcopy(golden)
    spoil(changed)
    if spoil is spoil_length:
        changed["cases"][0]["k"] = 5
    bundle = write_tiny({"golden.json": canonical_json(changed)})
    with pytest.raises(GateError, match=said) as caught:
        Recommender.load(bundle.archive)
    assert len(caught.value.lines) == 1


def test_a_graph_of_another_model_fails_its_golden_answers(write_tiny, parts):
    bundle = write_tiny({"history.int8.onnx": parts["history.fp32.onnx"]})
    with pytest.raises(GateError, match=r"golden.json: cases.0: int8"):
        Recommender.load(bundle.archive)


def test_a_graph_that_fails_at_run_time_is_refused(write_tiny, parts):
    model = onnx.load_from_string(parts["history.int8.onnx"])
    for weight in model.graph.initializer:
        if weight.name in ("table", "padding"):
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:4], weight.name))
    bundle = write_tiny({"history.int8.onnx": model.SerializeToString()})
    with pytest.raises(GateError, match=r"^history\.int8\.onnx: fails on its golden answers \(") as caught:
        Recommender.load(bundle.archive)
    assert len(caught.value.lines) == 1


def test_golden_text_is_asked_on_first_use(write_tiny, golden):
    changed = copy.deepcopy(golden)
    changed["text"]["vector_head"][0] += 0.01
    model = Recommender.load(write_tiny({"golden.json": canonical_json(changed)}).archive)
    with pytest.raises(GateError, match=r"golden.json: text: its vector must agree within 0.0001 .got 0.01 off"):
        model.text_vectors(["film"])


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("popular.json", b"[1,1]\n", "popular.json: must be different rows from 1 to 20"),
        ("popular.json", b"[21]\n", "popular.json: must be different rows from 1 to 20"),
        ("popular.json", b"[0]\n", "popular.json: 0: .* greater than or equal to 1"),
        ("popular.json", b'["i1"]\n', "popular.json: 0: "),
        ("popular.json", b"{", "popular.json: Invalid JSON"),
        ("golden.json", b"{}\n", "golden.json: tolerance: Field required"),
        ("items.item", b"item_id:token\ttitle:token_seq\ni1\tA\n", "items.item: must have 20 items.*got 1"),
        ("items.item", b"\xff\xfe", "items.item"),
        ("history.int8.onnx", b"junk", "history.int8.onnx: onnxruntime cannot load it"),
    ],
)
def test_malformed_contents_are_usage_errors(write_tiny, name, data, said):
    with pytest.raises(UsageError, match=said):
        Recommender.load(write_tiny({name: data}).folder)
