"""Cold items: from text to a place in the ranking, beside the others, without retraining."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deploy.cold import ColdItems, NewItem
from deploy.errors import ConflictError, UsageError
from deploy.journal import ItemJournal
from deploy.manifest import canonical_json
from deploy.runtime import Recommender


@pytest.fixture
def model(tiny):
    return Recommender.load(tiny.archive, precision="fp32")


def ids(answer):
    return [item.id for item in answer.items]


def table():
    return np.random.default_rng(7).normal(size=(21, 4)).astype(np.float32)


def expected(model, history, texts, k, left_out=()):
    """The bundle's items and the texts' vectors ranked by an independent computation; cold items are c1, c2, ..."""
    vectors = np.concatenate([table(), model.text_vectors(texts)])
    scores = vectors @ table()[history[-5:]].mean(axis=0)
    scores[[0, *history, *left_out]] = -np.inf
    names = ["", *(f"i{row}" for row in range(1, 21)), *(f"c{place}" for place in range(1, len(texts) + 1))]
    return [names[row] for row in np.argsort(-scores, kind="stable")[:k] if scores[row] > -np.inf]


def test_cold_items_are_ranked_beside_the_others(model):
    texts = ["film odd Drama", "even even Comedy", "odd drama"]
    assert model.cold.put(NewItem("c1", "film odd", {"genre": ["Drama"]}))
    assert model.cold.put(NewItem("c2", "even even", {"genre": ["Comedy"]}))
    assert model.cold.put(NewItem("c3", "Anything", {}, text="odd drama"))
    for history in ([3, 9], [1], [4, 5, 6, 7, 8, 10]):
        asked = [f"i{row}" for row in history]
        answer = model.recommend(asked, k=23)
        assert ids(answer) == expected(model, history, texts, 23)
        assert [item.score for item in answer.items] == sorted((i.score for i in answer.items), reverse=True)
        assert ids(model.recommend(asked, k=3)) == expected(model, history, texts, 3)
    assert {i.title for i in answer.items if i.id == "c3"} == {"Anything"}


def test_a_batch_answers_as_one_by_one(model):
    model.cold.put(NewItem("c1", "film odd", {}))
    histories = [["i3"], ["c1", "i4"], [], ["i1", "i2", "i3", "i4", "i5", "i6"]]
    excludes = [["c1"], [], ["i7"], ["i9"]]
    together = model.recommend_many(histories, 8, excludes)
    alone = [model.recommend(h, 8, e) for h, e in zip(histories, excludes, strict=True)]
    assert [ids(answer) for answer in together] == [ids(answer) for answer in alone]
    for batched, single in zip(together, alone, strict=True):
        assert [i.score for i in batched.items] == pytest.approx([i.score for i in single.items])


def test_what_was_seen_or_excluded_or_filtered_is_left_out(model):
    model.cold.put(NewItem("c1", "film odd", {"genre": ["Drama", "War"]}))
    model.cold.put(NewItem("c2", "film odd", {"genre": ["Comedy"]}))
    assert "c1" not in ids(model.recommend(["i3", "c1"], k=22))
    assert ids(model.recommend(["i3", "c1"], k=19)) == ids(model.recommend(["i3"], k=19, exclude=["c1"]))
    war = set(ids(model.recommend(["i3"], k=22, filter={"genre": ["War"]})))
    assert war == {"i5", "i10", "i15", "i20", "c1"}
    answer = model.recommend(["c1"], k=3)  # the model reads none of it
    assert (answer.source, answer.unknown, ids(answer)) == ("popularity", [], ["i7", "i3", "i12"])


def test_an_item_is_replaced_and_removed(model):
    assert model.cold.put(NewItem("c1", "film", {}))
    assert not model.cold.put(NewItem("c1", "odd even", {}))
    assert model.search("odd even", 5) == [("c1", "odd even")]
    assert ids(model.recommend(["i3"], k=21)) == expected(model, [3], ["odd even"], 21)
    assert model.cold.remove("c1") and not model.cold.remove("c1")
    assert len(model.recommend(["i3"], k=21).items) == 19
    assert model.recommend(["c1"]).unknown == ["c1"]


@pytest.mark.parametrize(
    ("item", "kind", "said"),
    [
        (NewItem("i3", "film", {}), ConflictError, "id: is in the bundle's items.item"),
        (NewItem("c1", "film", {"year": ["1999"]}), UsageError, "year: unknown attribute; the bundle has genre"),
        (NewItem("c1", "film", {"genre": ["a|b"]}), UsageError, "genre: no value may hold '|'"),
        (NewItem("c1", " ", {}), UsageError, "title: the item's text must not be blank"),
        (NewItem("c1", "film", {}, text=" "), UsageError, "title: the item's text must not be blank"),
    ],
)
def test_what_cannot_be_an_item_is_refused(model, item, kind, said):
    with pytest.raises(kind) as caught:
        model.cold.put(item)
    assert caught.value.lines[0].startswith(said)
    assert len(model.cold.table) == 0


def test_there_is_a_most(model):
    cold = ColdItems(model.catalogue, 4, encode=model.text_vectors, most=2)
    for name in ("a", "b"):
        cold.put(NewItem(name, "film", {}))
    with pytest.raises(ConflictError, match="there are 2 cold items, the most"):
        cold.put(NewItem("c", "film", {}))
    assert not cold.put(NewItem("b", "odd", {})) and cold.remove("a") and cold.put(NewItem("c", "film", {}))


def test_a_bundle_without_a_text_encoder_takes_none(write_tiny, parts):
    import onnx

    graphs = {}
    for name in ("history.fp32.onnx", "history.int8.onnx"):
        graph = onnx.load_from_string(parts[name])
        del graph.graph.output[2]
        graphs[name] = graph.SerializeToString()
    model = Recommender.load(write_tiny(graphs).folder)
    assert not model.cold.possible
    with pytest.raises(UsageError, match="takes no cold items"):
        model.cold.put(NewItem("c1", "film", {}))


def test_cold_items_outlive_the_process_and_the_encoder(tiny, write_tiny, parts, tmp_path):
    journal = ItemJournal(tmp_path)
    model = Recommender.load(tiny.folder, journal=journal)
    for name, title in (("c1", "film odd"), ("c2", "even"), ("c3", "drama")):
        model.cold.put(NewItem(name, title, {"genre": ["Drama"]}))
    model.cold.remove("c2")
    wanted = model.recommend(["i3"], k=22)
    journal.close()
    again = Recommender.load(tiny.folder, journal=ItemJournal(tmp_path))
    assert again.recommend(["i3"], k=22) == wanted
    assert again._text is None  # the vectors were kept with the items
    again.cold._journal.close()

    # Another release: its catalogue has c1, its tokenizer knows other words.
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(parts["text.fp32.onnx"])
    for weight in graph.graph.initializer:
        if weight.name == "table":
            weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), "table"))
    items = parts["items.item"].replace(b"i20\t", b"c1\t")
    golden = parts["golden.json"]
    import json

    document = json.loads(golden)
    document["text"]["vector_head"] = [-value for value in document["text"]["vector_head"]]
    text = json.dumps(document).replace('"i20"', '"c1"')
    changes = {
        "text.fp32.onnx": graph.SerializeToString(),
        "items.item": items,
        "golden.json": canonical_json(json.loads(text)),
    }
    journal = ItemJournal(tmp_path)
    newer = Recommender.load(write_tiny(changes).folder, journal=journal)
    assert newer.cold.table.catalogue.ids == ["", "c3"]
    np.testing.assert_allclose(newer.cold.table.vectors[0], -model.text_vectors(["drama Drama"])[0], rtol=1e-6)
    assert set(journal.items) == {"c1", "c3"}  # for a release that has c1 not
    journal.close()


def test_threads_add_and_ask_at_once(model):
    def add(number):
        return model.cold.put(NewItem(f"c{number}", "film odd", {}))

    def ask(_):
        answer = model.recommend(["i3", "i9"], k=40)
        assert len(answer.items) >= 18 and len(set(ids(answer))) == len(answer.items)
        return len(answer.items)

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(add, range(40)))
        asked = list(pool.map(ask, range(40)))
    assert all(added) and len(model.cold.table) == 40 and max(asked) == 40


def test_what_is_put_through_one_release_is_ranked_by_all_that_are_open(tiny, write_tiny, parts):
    journal = ItemJournal(None)
    golden = parts["golden.json"].replace(b'"i20"', b'"c1"')
    newer = write_tiny({"items.item": parts["items.item"].replace(b"i20\t", b"c1\t"), "golden.json": golden})
    active, arm = (Recommender.load(bundle.folder, journal=journal) for bundle in (tiny, newer))
    assert active.cold.put(NewItem("c2", "film odd", {"genre": ["Drama"]})) and not active.cold.kept
    np.testing.assert_array_equal(arm.cold.table.vectors, active.text_vectors(["film odd Drama"]))
    assert "c2" in ids(arm.recommend(["i3"], k=22)) and "c2" in ids(active.recommend(["i3"], k=22))
    active.cold.put(NewItem("c1", "odd", {}))  # the arm has one of that id among its own
    assert arm.cold.table.catalogue.ids == ["", "c2"] and active.cold.table.catalogue.ids == ["", "c2", "c1"]
    assert not arm.cold.remove("c1") and arm.cold.remove("c2")
    assert (len(arm.cold.table), active.cold.table.catalogue.ids) == (0, ["", "c1"])
    later = Recommender.load(tiny.folder, journal=journal)
    assert later.cold.table.catalogue.ids == ["", "c1"]
    del active  # a release that nobody asks any more is not told
    assert later.cold.put(NewItem("c3", "even", {})) and arm.cold.table.catalogue.ids == ["", "c3"]


def test_an_item_without_the_text_that_a_release_wants_keeps_it_from_nothing(model):
    """The other release's template has a column that its items do not show."""
    journal = ItemJournal(None)
    usual = ColdItems(model.catalogue, 4, encode=model.text_vectors, template="{title}", journal=journal)
    usual.put(NewItem("c1", "film", {}))
    strange = ColdItems(model.catalogue, 4, encode=model.text_vectors, template="{title} {maker}", journal=journal)
    usual.put(NewItem("c2", "odd", {}, text="odd drama"))
    usual.put(NewItem("c3", "even", {}))
    assert usual.table.catalogue.ids == ["", "c1", "c2", "c3"] and strange.table.catalogue.ids == ["", "c2"]
    usual.put(NewItem("c2", "odd", {}))  # now without the text
    assert len(strange.table) == 0
    with pytest.raises(UsageError, match="text: wanted, since the bundle's items do not show their maker"):
        strange.put(NewItem("c4", "film", {}))
    assert strange.remove("c1") and usual.table.catalogue.ids == ["", "c2", "c3"]
