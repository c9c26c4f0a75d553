"""From a like/dislike student to what a device answers: both graphs measured, one precision chosen, all packed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import auc
from benchmarks.result import Model
from compress.baselines.run import BaselinesConfig, train_baselines
from compress.bench import BenchConfig, bench
from compress.data.dataset import Dataset
from compress.distil.distil import DistilConfig, distil
from compress.likes.ratings import ratings_before
from compress.likes.rows import LikeData, read_logits
from compress.likes.training_rows import training_rows
from compress.models.folder import read_json, write_json
from compress.pack import PackConfig, pack
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.teacher.pretrain import PretrainConfig, pretrain
from deploy.runtime import Recommender

CHAIN = "control:control:0"


@pytest.fixture(scope="module")
def served(build: Callable[..., Path], taste_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of the stages that gather: a rated control in two precisions, and what `bench` and `pack` made."""
    nothing = build(pretrain, PretrainConfig.model_validate("none"), data=taste_data)
    student: dict[str, Any] = {
        "student": {"name": "sequence", "dim": 16, "heads": 2, "neurons": 16, "max_history": 8, "rated": True},
        "loss": "none",
        "training": {"epochs": 3, "batch_size": 64, "warmup_epochs": 1, "validate_every": 3, "learning_rate": 0.01},
    }
    model = build(distil, DistilConfig.model_validate(student), data=taste_data, mix=nothing)
    wanted = QuantizeConfig.model_validate({"history": ["int8_per_row"], "text": []})
    counts = BaselinesConfig.model_validate({"models": ["item_mean"]})
    inputs = {
        "data": taste_data,
        "baselines": build(train_baselines, counts, data=taste_data),
        f"pretrain/{CHAIN}": nothing,
        f"prune/{CHAIN}": model,
        f"quantize/{CHAIN}": build(quantize, wanted, data=taste_data, prune=model),
        "select": tmp_path_factory.mktemp("select"),
    }
    brief = BenchConfig(history=8, rounds=1, min_runs=3, min_seconds=0.01)
    inputs["bench"] = build(bench, brief, **inputs)
    write_json(inputs["select"] / "choice.json", {"selected": "control-int8_per_row"})
    inputs["pack"] = build(pack, PackConfig(name="taste"), **inputs)
    return inputs


@pytest.fixture(scope="module")
def rows(served: dict[str, Path]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in read_json(served["bench"] / "measurements.json")["models"]}


def test_every_precision_has_accuracy_and_both_latencies(rows: dict[str, dict[str, Any]]) -> None:
    fp32, int8 = rows["control-fp32"], rows["control-int8_per_row"]
    for row in (fp32, int8):
        Model.model_validate({key: value for key, value in row.items() if key != "quantizer"} | {"chosen": False})
        timed = {(found["path"], found["k"]) for found in row["latency"] if found["runtime"] == "onnxruntime"}
        assert timed == {("cached", 10), ("like", 1)}
        assert all("ratio_to_fp32" in found for found in row["latency"])
    assert int8["accuracy"]["test"]["auc"] == pytest.approx(fp32["accuracy"]["test"]["auc"], abs=0.02)
    assert int8["accuracy"]["test"] != fp32["accuracy"]["test"]  # measured, not copied


def test_size_counts_both_graphs(served: dict[str, Path], rows: dict[str, dict[str, Any]], taste_data: Path) -> None:
    folder = served[f"quantize/{CHAIN}"]
    graphs = sum((folder / f"{kind}.int8_per_row.onnx").stat().st_size for kind in ("history", "like"))
    ids = sum(len(item) + 1 for item in Dataset.open(taste_data).item_ids)
    assert rows["control-int8_per_row"]["size_bytes"] == graphs + ids


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_device_answers_the_published_rows(
    served: dict[str, Path], rows: dict[str, dict[str, Any]], taste_data: Path, precision: str
) -> None:
    """Asked by ids, one row at a time, it has the AUC that `bench` wrote down."""
    device = Recommender.load(served["pack"] / "bundle.slim", precision=precision)
    data, ids = LikeData.open(taste_data), ["", *Dataset.open(taste_data).item_ids]
    test, known = data["test"], ratings_before(data, training_rows(data), 0)["test"]
    found = []
    for i in range(len(test)):
        part = slice(test.offsets[i], test.offsets[i + 1])
        history, liked = [ids[row] for row in test.history[part]], test.history_likes[part].tolist()
        found.append(device.like(ids[test.items[i]], history, liked, tuple(known[i].tolist())))
    name = "control-fp32" if precision == "fp32" else "control-int8_per_row"
    assert auc(np.array(found), test.labels) == pytest.approx(rows[name]["accuracy"]["test"]["auc"], abs=1e-4)
    if precision == "fp32":
        assert np.allclose(found, read_logits(served[f"prune/{CHAIN}"] / "logits.npz")["test"], atol=1e-4)


def test_golden_likes_are_spread_over_the_test_rows(served: dict[str, Path]) -> None:
    golden = read_json(served["pack"] / "bundle" / "golden.json")
    assert len(golden["likes"]) == 32 and set(golden["likes"][0]["logits"]) == {"fp32", "int8"}
    assert len({case["item"] for case in golden["likes"]}) > 5
