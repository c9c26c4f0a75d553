"""What `bench` says of text encoders, on the small world's teacher, student and text encoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.accuracy import summarise
from benchmarks.result import TextEncoderRow
from compress.data.dataset import Dataset
from compress.models.folder import load_array, load_sequence, load_text
from compress.stage import RunOptions
from compress.text_bench import ColdRanking, text_rows


@pytest.fixture(scope="module")
def rows(film_bench: Path) -> dict[str, dict[str, Any]]:
    measured = json.loads((film_bench / "measurements.json").read_text())
    return {row["name"]: row for row in measured["text_encoders"]}


def test_every_precision_of_every_text_encoder_has_a_row(rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == ["text-fp32", "text-int8_dynamic"]
    for row in rows.values():
        TextEncoderRow.model_validate(row)
        assert row["p50_ms"] > 0 and row["ratio_to_teacher"]["low"] <= row["ratio_to_teacher"]["median"]


def test_bytes_are_graph_and_tokenizer(rows: dict[str, dict[str, Any]], film_inputs: dict[str, Path]) -> None:
    folder = film_inputs["quantize/text_encoder:text:0"]
    for precision in ("fp32", "int8_dynamic"):
        files = (folder / f"text.{precision}.onnx", folder / "tokenizer.json")
        assert rows[f"text-{precision}"]["size_bytes"] == sum(file.stat().st_size for file in files)


def test_the_teachers_vectors_give_what_the_students_graph_gives(
    rows: dict[str, dict[str, Any]], film_bench: Path, film_dataset: Dataset
) -> None:
    """The graph was folded from the same vectors: its own cold cases are the reference."""
    models = json.loads((film_bench / "measurements.json").read_text())["models"]
    student = next(row for row in models if row["name"] == "student-fp32")
    for row in rows.values():
        assert row["ranked_by"] == "student-fp32"
        assert row["cold_items_of_teacher"]["cases"] == len(film_dataset.cases("cold")) > 0
        assert row["cold_items_of_teacher"]["ndcg@10"] == student["accuracy"]["segments"]["cold_items"]["ndcg@10"]


def test_cold_items_are_placed_by_the_vectors_given(film_inputs: dict[str, Path], film_dataset: Dataset) -> None:
    chain = "student:student:0"
    model, text_map = (load(film_inputs[f"prune/{chain}"]) for load in (load_sequence, _text_map))
    assert model is not None
    ranking = ColdRanking("student", model, text_map, film_dataset)
    text = load_text(film_inputs["prune/teacher:teacher:0"])
    assert text is not None
    vectors = text.encode([film_dataset.texts[row - 1] for row in film_dataset.cold_items])
    own = ranking.metrics(None)
    assert ranking.metrics(vectors)["ndcg@10"] == pytest.approx(own["ndcg@10"], abs=1e-6)

    cases, table = film_dataset.cases("cold"), model.item_table.detach().clone()
    table[torch.from_numpy(film_dataset.cold_items.astype(np.int64))] = 0.0
    ranks = []
    for history, seen, target in zip(cases.histories(model.max_history), cases.seen, cases.targets, strict=True):
        with torch.inference_mode():
            scores = (model.user_vectors(torch.from_numpy(history[None])) @ table.T)[0].numpy()
        scores[[0, *seen]] = -np.inf
        ranks.append(1 + int((scores > scores[target]).sum()) + int((scores[:target] == scores[target]).sum()))
    nothing = ranking.metrics(np.zeros_like(vectors))
    expected = summarise(np.array(ranks, np.int32), np.zeros((len(ranks), 1), np.int32), film_dataset.n_items)
    assert nothing["ndcg@10"] == pytest.approx(expected["ndcg@10"])
    assert nothing["ndcg@10"] != own["ndcg@10"]


def test_where_no_student_was_made_the_teacher_ranks(
    rows: dict[str, dict[str, Any]], film_bench: Path, film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    """As after a failed gate. The teacher's own vectors in the cold items' places are what its graph has there."""
    models = json.loads((film_bench / "measurements.json").read_text())["models"]
    left = {name: path for name, path in film_inputs.items() if "student:" not in name}
    alone = text_rows(left, film_dataset, models, 1, RunOptions(threads=1))
    assert [row["ranked_by"] for row in alone] == ["teacher-fp32"] * len(rows)
    teacher = next(row for row in models if row["name"] == "teacher-fp32")
    own = teacher["accuracy"]["segments"]["cold_items"]["ndcg@10"]
    model, vectors = (load(film_inputs["prune/teacher:teacher:0"]) for load in (load_sequence, _item_vectors))
    assert model is not None
    cold = film_dataset.cold_items
    ranking = ColdRanking("teacher", model, np.eye(vectors.shape[1], dtype=np.float32), film_dataset)
    for found in (alone[0]["cold_items_of_teacher"], ranking.metrics(vectors[cold])):
        assert found["ndcg@10"] == pytest.approx(own, abs=1e-6)


def _item_vectors(folder: Path) -> Any:
    return load_array(folder, "item_vectors")


def _text_map(folder: Path) -> Any:
    return load_array(folder, "text_map")
