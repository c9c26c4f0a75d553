"""What ships: a bundle that verifies and answers, the same bytes again, with the text encoder that fits or none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compress.data.dataset import Dataset
from compress.models.folder import load_array, load_sequence, read_json, write_json
from compress.pack import PackConfig, bundled_graphs, fold_map, pack
from compress.quantize.half import Half
from compress.quantize.parts import HistoryPart
from compress.quantize.quantizers import Int8Dynamic
from compress.quantize.static import Int8Static
from compress.quantize.user_vector import with_user_vector
from deploy.bundle import verify_bundle
from deploy.cold import NewItem
from deploy.errors import GateError
from deploy.ranker import Ranker
from deploy.runtime import Recommender
from deploy.signing import fingerprint, load_public, new_key
from deploy.text import TextEncoder

Run = Callable[..., Path]
TEXT = "text_encoder:text:0"


@pytest.fixture(scope="module")
def packed(
    build: Run, film_inputs: dict[str, Path], film_bench: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """packed(chosen row, without=input names that end so, **config) -> the stage's folder."""

    def run(chosen: str, without: str = "nothing", **config: Any) -> Path:
        choice = tmp_path_factory.mktemp("select")
        write_json(choice / "choice.json", {"selected": chosen})
        inputs = {name: path for name, path in film_inputs.items() if not name.endswith(without)}
        return build(pack, PackConfig.model_validate(config), **inputs, bench=film_bench, select=choice)

    return run


@pytest.fixture(scope="module")
def student(packed: Callable[..., Path]) -> Path:
    return packed("student-int8_per_row", name="films")


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "bundle" / "manifest.json").read_bytes())
    return document


def test_the_bundle_verifies_and_answers_its_golden_cases(student: Path) -> None:
    for path in (student / "bundle", student / "bundle.slim"):
        found = verify_bundle(path)
        assert (found.name, found.level) == ("films", "integrity only")
        for precision in ("int8", "fp32"):
            assert Recommender.load(path, precision=precision).precision == precision
    facts = read_json(student / "pack.json")
    assert facts["digest"] == verify_bundle(student / "bundle.slim").digest
    assert facts["size_bytes"] == (student / "bundle.slim").stat().st_size
    text = [student / "bundle" / name for name in ("text.int8.onnx", "tokenizer.json")]
    assert facts["text_encoder_bytes"] == sum(path.stat().st_size for path in text)


def test_the_chosen_graph_may_ship_alone(packed: Callable[..., Path], student: Path) -> None:
    alone = packed("student-int8_per_row", name="films", graphs="chosen")
    assert list(manifest(alone)["model"]["precisions"]) == ["int8"]
    assert verify_bundle(alone / "bundle.slim").name == "films"
    assert Recommender.load(alone / "bundle.slim").precision == "int8"
    assert not (alone / "bundle" / "history.fp32.onnx").exists()
    assert (alone / "bundle.slim").stat().st_size < (student / "bundle.slim").stat().st_size


def test_golden_answers_are_asked_of_every_precision_and_of_the_text(student: Path, film_dataset: Dataset) -> None:
    golden = json.loads((student / "bundle" / "golden.json").read_bytes())
    assert len(golden["cases"]) == 32
    assert {tuple(sorted(case["answers"])) for case in golden["cases"]} == {("fp32", "int8")}
    assert {len(answer["items"]) for case in golden["cases"] for answer in case["answers"].values()} == {10}
    assert golden["text"]["text"] == film_dataset.texts[0]


def test_the_model_section_says_what_is_inside(student: Path, film_dataset: Dataset) -> None:
    model = manifest(student)["model"]
    assert model["n_items"] == film_dataset.n_items
    assert (model["dim"], model["max_history"], model["default"]) == (8, 10, "int8")
    assert model["precisions"] == {"fp32": "history.fp32.onnx", "int8": "history.int8.onnx"}
    assert model["text"] == {
        "graph": "text.int8.onnx",
        "precision": "int8",
        "tokenizer": "tokenizer.json",
        "max_tokens": 16,
        "dim": 8,
        "template": "{movie_title}. {class}, {release_year}",  # as the data's seal has it
    }


def test_it_answers_as_the_student_it_was_made_from(
    student: Path, film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    recommender = Recommender.load(student / "bundle", precision="fp32")
    model = load_sequence(film_inputs["prune/student:student:0"])
    assert model is not None
    rows = film_dataset.cases("test").seen[4][-10:]
    history = torch.from_numpy(rows.astype(np.int64))[None]
    scores = (model.user_vectors(history) @ model.item_table.T).detach().numpy()[0]
    wanted = [row for row in np.argsort(-scores) if row and row not in rows][:5]
    answer = recommender.recommend([film_dataset.item_ids[row - 1] for row in rows], k=5)
    assert [item.id for item in answer.items] == [film_dataset.item_ids[row - 1] for row in wanted]
    assert [item.title for item in answer.items] == [film_dataset.titles[row - 1] for row in wanted]


def test_without_history_recently_popular_items_answer(
    student: Path, film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    with np.load(film_inputs["baselines"] / "recent_popularity.npz", allow_pickle=False) as file:
        top = file["test_top"][0]
    seen = {film_dataset.item_ids[row - 1] for row in film_dataset.cases("test").seen[0]}
    answer = Recommender.load(student / "bundle").recommend([], k=film_dataset.n_items)
    assert answer.source == "popularity"
    unseen = [item.id for item in answer.items if item.id not in seen]
    wanted = [film_dataset.item_ids[row - 1] for row in top if row]
    assert unseen[:5] == wanted[:5]


def test_the_same_inputs_give_the_same_bytes(student: Path, packed: Callable[..., Path]) -> None:
    again = packed("student-int8_per_row", name="films")
    assert (again / "bundle.slim").read_bytes() == (student / "bundle.slim").read_bytes()
    assert (again / "pack.json").read_bytes() == (student / "pack.json").read_bytes()


def test_a_cold_items_text_lands_on_its_row_of_the_table(
    student: Path, film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    """Nearer to its own row than to any other cold item's, and close to it."""
    model = load_sequence(film_inputs["prune/student:student:0"])
    assert model is not None
    cold = film_dataset.cold_items
    table = model.item_table.detach().numpy()[cold]
    vectors = Recommender.load(student / "bundle").text_vectors([film_dataset.texts[row - 1] for row in cold])
    assert vectors.shape == (len(cold), 8)
    distance = np.linalg.norm(vectors[:, None] - table[None], axis=-1)
    assert np.array_equal(distance.argmin(1), np.arange(len(cold)))
    assert (distance.diagonal() < 0.5 * np.linalg.norm(table, axis=1)).all()


def test_a_cold_item_is_scored_against_the_models_user_vector(
    student: Path, film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    recommender = Recommender.load(student / "bundle", precision="fp32")
    model = load_sequence(film_inputs["prune/student:student:0"])
    assert model is not None
    text = film_dataset.texts[0]
    assert recommender.cold.put(NewItem("new", "New", {}, text=text))
    rows = film_dataset.cases("test").seen[4][-10:]
    answer = recommender.recommend([film_dataset.item_ids[row - 1] for row in rows], k=film_dataset.n_items + 1)
    user = model.user_vectors(torch.from_numpy(rows.astype(np.int64))[None]).detach().numpy()[0]
    score = next(item.score for item in answer.items if item.id == "new")
    assert score == pytest.approx(float(user @ recommender.text_vectors([text])[0]), rel=1e-4)


@pytest.mark.parametrize("entry", [Half(), Int8Dynamic(), Int8Static()])
def test_quantized_graphs_say_the_users_vector_too(
    entry: Half | Int8Dynamic | Int8Static, film_inputs: dict[str, Path], film_dataset: Dataset, tmp_path: Path
) -> None:
    model = load_sequence(film_inputs["prune/student:student:0"])
    assert model is not None
    part = HistoryPart.of(model, film_dataset)
    entry.history(part, tmp_path / "plain.onnx")
    onnx.save(with_user_vector(onnx.load(tmp_path / "plain.onnx")), tmp_path / "with.onnx")
    history, nothing = part.histories[:1], np.zeros((1, 1), np.int64)
    scores, rows, users = Ranker(tmp_path / "with.onnx").rank_with_users(history, nothing, 5)
    plain_scores, plain_rows = Ranker(tmp_path / "plain.onnx").rank(history, nothing, 5)
    np.testing.assert_array_equal(rows, plain_rows)
    # A CPU has no fp16: where it casts back and forth depends on what is asked for.
    np.testing.assert_allclose(scores, plain_scores, rtol=1e-3 if isinstance(entry, Half) else 0.0)
    expected = model.user_vectors(torch.from_numpy(history)).detach().numpy()
    assert users.dtype == np.float32
    np.testing.assert_allclose(users, expected, atol=0.05 * np.abs(expected).max())


def test_folding_the_map_is_multiplying_by_it(
    film_inputs: dict[str, Path], film_dataset: Dataset, tmp_path: Path
) -> None:
    folder = film_inputs[f"quantize/{TEXT}"]
    text_map = load_array(film_inputs["prune/student:student:0"], "text_map")
    assert text_map is not None
    assert text_map.shape == (16, 8)
    for graph in ("text.fp32.onnx", "text.int8_dynamic.onnx"):
        onnx.save(fold_map(onnx.load(folder / graph), text_map), tmp_path / graph)
        whole = TextEncoder(folder / graph, folder / "tokenizer.json", 16).encode(film_dataset.texts)
        folded = TextEncoder(tmp_path / graph, folder / "tokenizer.json", 16).encode(film_dataset.texts)
        np.testing.assert_allclose(folded, whole @ text_map, atol=1e-5)
        (output,) = onnxruntime.InferenceSession(tmp_path / graph, providers=["CPUExecutionProvider"]).get_outputs()
        assert (output.name, output.shape[1]) == ("vectors", 8)


@pytest.mark.parametrize(("chosen", "without"), [("student-int8_per_row", TEXT), ("control-int8_per_row", "nothing")])
def test_without_a_fitting_text_encoder_there_is_no_text_part(
    packed: Callable[..., Path], chosen: str, without: str
) -> None:
    """None was trained; or the model that ships has items of its own, which no text reaches."""
    folder = packed(chosen, without)
    assert manifest(folder)["model"]["text"] is None
    assert not {"text.int8.onnx", "tokenizer.json"} & set(manifest(folder)["files"])
    assert read_json(folder / "pack.json")["text_encoder_bytes"] == 0
    assert json.loads((folder / "bundle" / "golden.json").read_bytes())["text"] is None
    Recommender.load(folder / "bundle.slim")


def test_a_text_encoder_of_another_teacher_does_not_fit(
    build: Run, film_inputs: dict[str, Path], film_bench: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for path in film_inputs[f"quantize/{TEXT}"].iterdir():
        (stranger / path.name).write_bytes(path.read_bytes())
    facts = read_json(stranger / "candidate.json")
    write_json(stranger / "candidate.json", facts | {"text_space": "0" * 64})
    write_json(tmp_path / "choice.json", {"selected": "student-fp32"})
    inputs = {**film_inputs, f"quantize/{TEXT}": stranger, "bench": film_bench, "select": tmp_path}
    assert manifest(build(pack, PackConfig(), **inputs))["model"]["text"] is None


def test_a_key_signs(packed: Callable[..., Path], tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    public = new_key(key)
    folder = packed("student-fp32", key=str(key))
    for path in (folder / "bundle", folder / "bundle.slim"):
        found = verify_bundle(path, public)
        assert (found.level, found.signed_by) == ("signed", fingerprint(load_public(public)))
    stranger = new_key(tmp_path / "other.pem")
    with pytest.raises(GateError, match="not the pinned key's signature"):
        verify_bundle(folder / "bundle", stranger)


def test_where_fp32_was_chosen_it_is_what_answers(packed: Callable[..., Path]) -> None:
    folder = packed("control-fp32", name="slow but sure")
    assert manifest(folder)["model"]["default"] == "fp32"
    assert manifest(folder)["name"] == "slow but sure"
    assert Recommender.load(folder / "bundle").precision == "fp32"


def test_evidence_is_that_of_the_variant_that_ships(student: Path, film_bench: Path) -> None:
    evidence = json.loads((student / "bundle" / "evidence.json").read_bytes())
    assert evidence["chosen"] == "student-int8_per_row"
    measured = read_json(film_bench / "measurements.json")
    assert evidence["models"] == [row for row in measured["models"] if row["variant"] == "student"]
    assert evidence["machine"] == measured["machine"]


def candidate(precision: str, valid: float, seed: int = 0) -> dict[str, Any]:
    accuracy = {"valid": {"ndcg@10": valid}}
    return {
        "variant": "a",
        "seed": seed,
        "precision": precision.split("_")[0],
        "quantizer": precision,
        "accuracy": accuracy,
    }


def test_fp32_comes_with_the_int8_graph_that_validates_best() -> None:
    names = {"fp32": "f", "int8_x": "x", "int8_y": "y"}
    facts = {"graphs": {"history": names}}
    fp32, x, y = candidate("fp32", 0.3), candidate("int8_x", 0.1), candidate("int8_y", 0.2)
    other = candidate("int8_x", 0.9, seed=1)
    assert bundled_graphs(fp32, [fp32, x, y, other], facts) == {"fp32": "f", "int8": "y"}
    assert bundled_graphs(x, [fp32, x, y, other], facts) == {"fp32": "f", "int8": "x"}
    assert bundled_graphs(fp32, [fp32], facts) == {"fp32": "f"}


def test_whatever_precision_was_chosen_ships() -> None:
    facts = {"graphs": {"history": {"fp32": "f", "int8_x": "x", "int4_z": "z"}}}
    fp32, x, z = candidate("fp32", 0.3), candidate("int8_x", 0.1), candidate("int4_z", 0.3)
    assert bundled_graphs(z, [fp32, x, z], facts) == {"fp32": "f", "int8": "x", "int4": "z"}
