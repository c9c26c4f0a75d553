"""The stage `bench`: every number follows from ranks, bytes and samples that are kept beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg, recall
from benchmarks.bench.devices import DEVICES, Device
from benchmarks.candidates import CachedPath, TextPath
from benchmarks.result import Model
from compress.bench import BenchConfig, Candidate, answers, bench, bench_fingerprint, candidates_of, size_bytes
from compress.chain import Chain
from compress.data.dataset import Dataset
from compress.models.folder import load_array, load_sequence, read_json
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.teacher.transfer import TargetConfig, train_target
from compress.training import top_of_cases
from deploy.ranker import CPU, Ranker

Run = Callable[..., Path]
TIMED = {
    "control-fp32",
    "control-int8_per_row",
    "teacher-fp32",
    "student-fp32",
    "student-int8_per_row",
    "student-int8_dynamic",
}
SECOND_SEED = {"control@1-fp32", "control@1-int8_per_row"}


@pytest.fixture(scope="module")
def rows(film_bench: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in read_json(film_bench / "measurements.json")["models"]}


@pytest.fixture(scope="module")
def ranks(film_bench: Path) -> dict[str, NDArray[np.int32]]:
    with np.load(film_bench / "ranks.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_every_candidate_and_baseline_has_a_row(rows: dict[str, dict[str, Any]]) -> None:
    baselines = {name for name, row in rows.items() if row["role"] == "baseline"}
    assert baselines == {"popularity", "recent_popularity", "ease"}
    assert set(rows) - baselines == TIMED | SECOND_SEED  # a text encoder answers no history
    assert {rows[name]["precision"] for name in TIMED} == {"fp32", "int8"}
    assert rows["student-int8_dynamic"]["quantizer"] == "int8_dynamic"
    assert (rows["control@1-fp32"]["variant"], rows["control@1-fp32"]["seed"]) == ("control", 1)
    for row in rows.values():
        Model.model_validate({key: value for key, value in row.items() if key != "quantizer"} | {"chosen": False})


def test_accuracy_is_the_mean_over_the_ranks_kept(
    rows: dict[str, dict[str, Any]], ranks: dict[str, NDArray[np.int32]], film_dataset: Dataset
) -> None:
    for name, row in rows.items():
        for cases in ("valid", "test"):
            found = ranks[f"{name}/{cases}"]
            assert len(found) == len(film_dataset.cases(cases))
            assert row["accuracy"][cases]["ndcg@10"] == pytest.approx(ndcg(found, 10).mean())
            assert row["accuracy"][cases]["recall@10"] == pytest.approx(recall(found, 10).mean())
            low, high = row["accuracy"][cases]["ndcg@10_ci95"]
            assert low <= row["accuracy"][cases]["ndcg@10"] <= high
        test, segments = film_dataset.cases("test"), row["accuracy"]["segments"]
        for segment, mask in (("tail_items", test.tail), ("short_history", test.short)):
            if mask.any():
                of_segment = ndcg(ranks[f"{name}/test"][mask], 10)
                assert segments[segment]["ndcg@10"] == pytest.approx(of_segment.mean())
                assert segments[segment]["cases"] == mask.sum()
        assert segments["cold_items"]["cases"] == len(film_dataset.cases("cold")) > 0
        assert segments["cold_items"]["ndcg@10"] == pytest.approx(ndcg(ranks[f"{name}/cold"], 10).mean())


@pytest.mark.parametrize("chain", ["student:student:0", "teacher:teacher:0"])
def test_fp32_ranks_are_torchs(ranks: dict[str, NDArray[np.int32]], film_inputs: dict[str, Path], chain: str) -> None:
    expected = load_array(film_inputs[f"prune/{chain}"], "valid_ranks")
    assert np.array_equal(ranks[f"{Chain.parse(chain).name}-fp32/valid"], expected)


def test_answers_in_batches_leave_out_all_that_was_seen(film_inputs: dict[str, Path], film_dataset: Dataset) -> None:
    """Also what a history longer than the model's holds beyond it."""
    cases, model = film_dataset.cases("test"), load_sequence(film_inputs["prune/student:student:0"])
    assert model is not None
    model.shape = model.shape.model_copy(update={"max_history": 4})
    assert max(len(seen) for seen in cases.seen) > 4
    depth = film_dataset.n_items - max(len(seen) for seen in cases.seen)
    ranker = Ranker(film_inputs["quantize/student:student:0"] / "history.fp32.onnx")
    top = answers(ranker, cases, 4, depth, batch=7)
    assert top.dtype == np.int32
    assert np.array_equal(top, top_of_cases(model, cases, depth))
    assert not any(set(answer) & set(seen) for answer, seen in zip(top.tolist(), cases.seen, strict=True))


def test_size_is_graph_and_ids_and_a_teachers_language_model(
    rows: dict[str, dict[str, Any]], film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    ids = len("\n".join(film_dataset.item_ids)) + 1
    for name, chain, graphs in (
        ("student-int8_per_row", "student:student:0", ["history.int8_per_row.onnx"]),
        ("control-fp32", "control:control:0", ["history.fp32.onnx"]),
        ("teacher-fp32", "teacher:teacher:0", ["history.fp32.onnx", "text.fp32.onnx"]),
    ):
        folder = film_inputs[f"quantize/{chain}"]
        assert rows[name]["size_bytes"] == ids + sum((folder / graph).stat().st_size for graph in graphs)
    assert rows["teacher-fp32"]["params"] > rows["student-fp32"]["params"]
    assert rows["student-int8_per_row"]["params"] == rows["student-fp32"]["params"]


def test_candidates_by_precision(film_inputs: dict[str, Path], film_dataset: Dataset) -> None:
    found = {candidate.name: candidate for candidate in candidates_of(film_inputs)}
    assert set(found) == TIMED
    student: Candidate = found["student-int8_dynamic"]
    assert student.graph == film_inputs["quantize/student:student:0"] / "history.int8_dynamic.onnx"
    assert size_bytes(student, film_dataset) > student.graph.stat().st_size


def test_latency_rows_follow_from_their_samples(rows: dict[str, dict[str, Any]], film_bench: Path) -> None:
    with np.load(film_bench / "latency.npz", allow_pickle=False) as file:
        samples = {name: file[name] for name in file.files}
    seen = set()
    for name in TIMED:
        for row in rows[name]["latency"]:
            key = f"{name} {row['path']} {row['runtime']} {row['device']}"
            seen.add(key)
            times = samples[key]
            assert row["runs"] == len(times) >= 3
            assert (times > 0).all()
            for q in (50, 95, 99):
                assert row[f"p{q}_ms"] == pytest.approx(np.percentile(times, q))
            assert row["per_second"] == pytest.approx(1000 / times.mean())
            conditions = {key: row[key] for key in ("threads", "batch", "history", "items", "k")}
            assert conditions == {"threads": 1, "batch": 1, "history": 6, "items": 40, "k": 5}
    assert seen == set(samples)


def test_the_teacher_is_timed_by_all_its_paths(rows: dict[str, dict[str, Any]]) -> None:
    on_cpu = {
        name: {(row["path"], row["runtime"]) for row in rows[name]["latency"] if row["device"] == "cpu"}
        for name in TIMED
    }
    cached = ("cached", "onnxruntime")
    assert on_cpu.pop("teacher-fp32") == {cached, ("text", "onnxruntime"), ("cached", "torch")}
    assert all(paths == {cached} for paths in on_cpu.values())


def test_ratios_are_to_the_own_fp32_and_the_teachers_paths(rows: dict[str, dict[str, Any]]) -> None:
    for name in TIMED:
        for row in rows[name]["latency"]:
            ratios = {key: row[key] for key in ("ratio_to_fp32", "ratio_to_teacher", "ratio_to_teacher_text")}
            assert all(0 < r["low"] <= r["median"] <= r["high"] for r in ratios.values())
            if name.endswith("fp32") and (row["path"], row["runtime"]) == ("cached", "onnxruntime"):
                assert ratios["ratio_to_fp32"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    (text,) = [row for row in rows["teacher-fp32"]["latency"] if row["path"] == "text"]
    assert text["ratio_to_teacher_text"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert text["ratio_to_teacher"]["median"] < 1  # the LM is asked for every title


def test_memory_and_load_time_of_what_is_timed(rows: dict[str, dict[str, Any]]) -> None:
    for name in TIMED:
        assert 20 < rows[name]["rss_mb"] < 2000
        assert rows[name]["load_ms"] > 10
    for name in SECOND_SEED:  # accuracy needs every seed, latency one
        assert rows[name]["latency"] == []
        assert "rss_mb" not in rows[name]
    assert rows["control@1-fp32"]["accuracy"] == rows["control-fp32"]["accuracy"]
    assert rows["ease"]["latency"] == []


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime measures on CUDA"
)
def test_what_cannot_be_measured_here_is_said(film_bench: Path) -> None:
    (missing,) = read_json(film_bench / "measurements.json")["not_measured"]
    why = "this onnxruntime has no CUDAExecutionProvider; install slimrec[gpu]"
    assert missing == {"what": "cuda latency", "why": why}
    assert set(bench_fingerprint(BenchConfig())) == {"cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this torch measures on CUDA")
def test_another_device_takes_the_same_path(
    build: Run, film_inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's rows, by the CPU's provider: what a machine with one goes through. Its torch has none and says so."""
    monkeypatch.setitem(DEVICES, "cuda", Device("cuda", CPU))
    inputs = {name: path for name, path in film_inputs.items() if name.partition("/")[2] in ("", "teacher:teacher:0")}
    folder = build(bench, BenchConfig(history=6, k=5, min_runs=3, rounds=3), **inputs)
    measured = read_json(folder / "measurements.json")
    [teacher] = [row for row in measured["models"] if row["role"] == "teacher"]
    assert {(row["path"], row["runtime"], row["device"]) for row in teacher["latency"]} == {
        ("cached", "onnxruntime", "cpu"),
        ("text", "onnxruntime", "cpu"),
        ("cached", "torch", "cpu"),
        ("cached", "onnxruntime", "cuda"),
    }
    assert measured["not_measured"] == [{"what": "cuda latency in torch", "why": "this torch sees no CUDA device"}]


def test_the_machine_is_named(film_bench: Path) -> None:
    machine = read_json(film_bench / "measurements.json")["machine"]
    assert machine["cores"] >= 1
    assert machine["versions"]["onnxruntime"] == onnxruntime.__version__


def test_the_text_path_answers_as_the_cached_one(
    build: Run, film_data: Path, film_teacher: dict[str, Path], film_dataset: Dataset
) -> None:
    """Of a teacher whose items are their texts and nothing else."""
    sizes = {"dim": 16, "blocks": 1, "heads": 2, "neurons": 32, "max_history": 10}
    method = {"name": "two_level", **sizes, "id_vectors": False, "training": {"epochs": 0}}
    config = TargetConfig.model_validate({"method": method})
    teacher = build(train_target, config, data=film_data, source=film_teacher["source"])
    folder = build(quantize, QuantizeConfig.model_validate("none"), data=film_data, prune=teacher)
    text = TextPath(
        folder / "history_vectors.fp32.onnx",
        folder / "text.fp32.onnx",
        folder / "tokenizer.json",
        dict(zip(film_dataset.item_ids, film_dataset.texts, strict=True)),
        max_tokens=16,
        max_history=10,
    )
    cached = CachedPath(folder / "history.fp32.onnx", film_dataset.item_ids, max_history=10)
    seen = [[film_dataset.item_ids[row - 1] for row in rows] for rows in film_dataset.cases("test").seen]
    for history in seen[:20]:
        assert text.recommend([history], k=8) == cached.recommend([history], k=8)
    assert text.recommend(seen[:5], k=3) == cached.recommend(seen[:5], k=3)
