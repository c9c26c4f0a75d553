"""The measured choice of a graph: faster ones are taken, worse ones are not asked."""

import pytest

from deploy import choice
from deploy.choice import fastest
from deploy.manifest import canonical_json
from deploy.runtime import Recommender


def evidence(chosen, **valid):
    rows = [
        {"name": f"s-{p}", "precision": p, "accuracy": {"valid": {"ndcg@10": v, "auc": None}}} for p, v in valid.items()
    ]
    return {"evidence.json": canonical_json({"chosen": f"s-{chosen}", "models": rows})}


@pytest.fixture
def timed(monkeypatch):
    """timed(int8=seconds, fp32=seconds): what a clock says of each precision."""

    def set_times(**seconds):
        asked = []

        def clock(recommender):
            asked.append(recommender.precision)
            return seconds[recommender.precision]

        monkeypatch.setattr(choice, "_seconds", clock)
        return asked

    return set_times


def test_the_faster_graph_is_taken(tiny, timed):
    model = Recommender.load(tiny.folder)
    asked = timed(int8=2.0, fp32=1.0)
    chosen = fastest(model)
    assert chosen.precision == "fp32" and chosen.cold is model.cold
    assert asked == ["int8", "fp32"] * choice.ROUNDS  # in turns
    fp32 = Recommender.load(tiny.folder, precision="fp32")
    assert chosen.recommend(["i3"]) == fp32.recommend(["i3"]) != model.recommend(["i3"])


def test_noise_does_not_choose(tiny, timed):
    timed(int8=1.0, fp32=0.97)
    assert fastest(Recommender.load(tiny.folder)).precision == "int8"


@pytest.mark.parametrize(
    ("files", "asked"),
    [({}, False), (evidence("fp32", fp32=0.1, int8=0.1), True), (evidence("fp32", fp32=0.1, int8=0.099), False)],
)
def test_int8_stands_in_where_it_validated_no_worse(write_tiny, timed, files, asked):
    model = Recommender.load(write_tiny(files).folder, precision="fp32")
    seen = timed(int8=0.5, fp32=1.0)
    assert fastest(model).precision == ("int8" if asked else "fp32")
    assert ("int8" in seen) == asked


def test_a_graph_that_fails_its_golden_answers_is_no_candidate(write_tiny, parts, timed):
    timed(int8=2.0, fp32=1.0)
    model = Recommender.load(write_tiny({"history.fp32.onnx": parts["history.int8.onnx"]}).folder)
    assert fastest(model) is model


def test_a_real_clock_is_read(tiny):
    assert fastest(Recommender.load(tiny.folder)).precision in ("int8", "fp32")
