"""Bundles that say how likely a like is: by hand, over a graph whose answers can be counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from deploy.bundle import write_bundle
from deploy.commands.verify import verify
from deploy.errors import GateError, UsageError
from deploy.golden import Golden, GoldenLike
from deploy.likes import LikeScorer
from deploy.manifest import canonical_json, parse_manifest
from deploy.runtime import Recommender

Made = Callable[..., Path]


def like_graph() -> bytes:
    """logit = row asked / 10 + likes of the history - 100 * (known likes - known dislikes)."""
    constants = {
        "tenth": np.float32(0.1),
        "hundred": np.float32(-100),
        "axis1": np.array([1], np.int64),
        "first": np.array(0, np.int64),
        "second": np.array(1, np.int64),
    }
    cast, add = ("Cast", {"to": TensorProto.FLOAT}), "Add"
    nodes = [
        helper.make_node(cast[0], ["items"], ["row"], **cast[1]),
        helper.make_node("Mul", ["row", "tenth"], ["tenths"]),
        helper.make_node(cast[0], ["liked"], ["marks"], **cast[1]),
        helper.make_node("ReduceSum", ["marks", "axis1"], ["likes"], keepdims=0),
        helper.make_node(cast[0], ["ratings"], ["counts"], **cast[1]),
        helper.make_node("Gather", ["counts", "first"], ["known_likes"], axis=1),
        helper.make_node("Gather", ["counts", "second"], ["known_dislikes"], axis=1),
        helper.make_node("Sub", ["known_likes", "known_dislikes"], ["known"]),
        helper.make_node("Mul", ["known", "hundred"], ["hundreds"]),
        helper.make_node(add, ["tenths", "likes"], ["both"]),
        helper.make_node(add, ["both", "hundreds"], ["logits"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "likes",
        [
            info("history", TensorProto.INT64, ["b", "l"]),
            info("liked", TensorProto.BOOL, ["b", "l"]),
            info("items", TensorProto.INT64, ["b"]),
            info("ratings", TensorProto.INT64, ["b", 2]),
        ],
        [info("logits", TensorProto.FLOAT, ["b"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def recorded(logit: float = 1.3) -> GoldenLike:
    """i3 after a liked i1 and a disliked i2, with 4 likes and 4 dislikes known: .3 + 1."""
    return GoldenLike(
        history=["i1", "i2"], liked=[True, False], item="i3", ratings=(4, 4), logits={"fp32": logit, "int8": logit}
    )


@pytest.fixture
def rated(parts: dict[str, bytes], golden: dict[str, object], tiny: Any, tmp_path: Path) -> Made:
    """rated(likes of golden.json, the manifest's likes) -> a bundle's folder."""

    def make(likes: list[GoldenLike] | None, graphs: dict[str, str] | None = None) -> Path:
        answers = Golden.model_validate({**golden, "likes": likes})
        files = {
            **parts,
            "like.fp32.onnx": like_graph(),
            "like.int8.onnx": like_graph(),
            "golden.json": canonical_json(answers.model_dump(mode="json")),
        }
        wanted = {"fp32": "like.fp32.onnx", "int8": "like.int8.onnx"} if graphs is None else graphs
        model = json.loads((tiny.folder / "manifest.json").read_bytes())["model"]
        write_bundle(files, tmp_path / "out", name="rated", model={**model, "likes": wanted})
        return tmp_path / "out" / "bundle"

    return make


def test_a_like_is_the_graphs(rated: Made) -> None:
    model = Recommender.load(rated([recorded()]))
    assert model.like("i3", ["i1", "i2"], [True, False], (4, 4)) == pytest.approx(1.3)
    assert model.like("i3", ["i1", "i2"]) == pytest.approx(2.3)  # all liked, nothing known of the user
    assert model.like("i3", ["i1", "nobody", "i2"], [True, True, True]) == pytest.approx(2.3)  # unknown ids are skipped
    assert model.like("i20", [], ratings=(0, 1)) == pytest.approx(102)
    longest = ["i1"] * 9  # of which the model reads the newest five
    assert model.like("i3", longest, [True] * 5 + [False] * 4) == pytest.approx(1.3)


def test_what_cannot_be_asked_is_said(rated: Made, tiny: Any) -> None:
    model = Recommender.load(rated([recorded()]))
    with pytest.raises(UsageError, match=r"items: must be in items.item \(got 'nobody'\)"):
        model.like("nobody", [])
    with pytest.raises(UsageError, match=r"liked: one mark per item of the history, 2, is wanted \(got 1\)"):
        model.like("i1", ["i1", "i2"], [True])
    with pytest.raises(UsageError, match="the bundle ranks"):
        Recommender.load(tiny.archive).like("i1", [])


@pytest.mark.parametrize(
    ("likes", "said"),
    [
        ([recorded(1.4)], r"likes.0: int8: must be 1.4 within 0.0001 \(got 1.3\)"),
        ([recorded().model_copy(update={"logits": {"fp32": 1.3}})], "likes.0: int8: no recorded answer"),
        (None, "likes: no recorded answer"),
    ],
)
def test_golden_likes_are_asked(rated: Made, likes: list[GoldenLike] | None, said: str) -> None:
    with pytest.raises(GateError, match=said):
        Recommender.load(rated(likes))


def test_verify_asks_them_too(rated: Made) -> None:
    result = CliRunner().invoke(verify, [str(rated([recorded(1.4)]))])
    assert isinstance(result.exception, GateError)


def test_every_precision_has_its_like_graph(rated: Made) -> None:
    with pytest.raises(UsageError, match=r"likes must have fp32, int8 \(got fp32\)"):
        rated([recorded()], {"fp32": "like.fp32.onnx"})


def test_a_bundle_that_ranks_does_not_speak_of_likes(tiny: Any, golden: dict[str, object]) -> None:
    data = (tiny.folder / "manifest.json").read_bytes()
    assert b"likes" not in data and parse_manifest(data).model.likes is None
    assert "likes" not in golden


def test_a_graph_with_other_inputs_is_refused(parts: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "history.onnx").write_bytes(parts["history.fp32.onnx"])
    with pytest.raises(UsageError, match="must map history, items, liked, ratings to logits"):
        LikeScorer(tmp_path / "history.onnx")
