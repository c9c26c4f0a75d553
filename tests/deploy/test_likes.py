"""Bundles that say how likely a like is: by hand, over a graph whose answers can be counted."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.commands.verify import verify
from deploy.errors import GateError, UsageError
from deploy.golden import GoldenLike
from deploy.likes import LikeScorer
from deploy.manifest import parse_manifest
from deploy.runtime import Recommender
from tests.deploy.conftest import MakeRated, recorded


def test_a_like_is_the_graphs(rated: MakeRated) -> None:
    model = Recommender.load(rated([recorded()]))
    assert model.like("i3", ["i1", "i2"], [True, False], (4, 4)) == pytest.approx(1.3)
    assert model.like("i3", ["i1", "i2"]) == pytest.approx(2.3)  # all liked, nothing known of the user
    assert model.like("i3", ["i1", "nobody", "i2"], [True, True, True]) == pytest.approx(2.3)  # unknown ids are skipped
    assert model.like("i20", [], ratings=(0, 1)) == pytest.approx(102)
    longest = ["i1"] * 9  # of which the model reads the newest five
    assert model.like("i3", longest, [True] * 5 + [False] * 4) == pytest.approx(1.3)


def test_what_cannot_be_asked_is_said(rated: MakeRated, tiny: Any) -> None:
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
def test_golden_likes_are_asked(rated: MakeRated, likes: list[GoldenLike] | None, said: str) -> None:
    with pytest.raises(GateError, match=said):
        Recommender.load(rated(likes))


def test_verify_asks_them_too(rated: MakeRated) -> None:
    result = CliRunner().invoke(verify, [str(rated([recorded(1.4)]))])
    assert isinstance(result.exception, GateError)


def test_every_precision_has_its_like_graph(rated: MakeRated) -> None:
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
