"""Students: one folded table, text alone for cold items, the control by the same code without a teacher."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from compress.data.dataset import Dataset
from compress.distil.distil import DistilConfig, cut_layers, distil, teacher_text, text_space
from compress.distil.lists import ListwiseKL
from compress.distil.sequence import (
    FoldedTable,
    SequenceStudent,
    StudentInTraining,
    distillation,
    new_student,
    resumed_student,
    student_loss,
    train_student,
    warm_items,
)
from compress.distil.step import Teaching
from compress.distil.text import TextDistillation, TextTraining, train_text
from compress.distil.text_losses import VectorMSE
from compress.distil.texts import TextReader, item_texts, parted
from compress.models.folder import load_array, load_sequence, load_text, model_facts, read_json
from compress.models.sequence import BlockShape, SequenceShape
from compress.models.text import TextEncoder
from compress.stage import RunOptions
from compress.training import Training, seed_everything
from deploy.errors import UsageError

STUDENT = SequenceStudent(dim=8, heads=2, neurons=16, max_history=10)
OPTIONS = RunOptions(threads=1)
Run = Callable[..., Path]


def folded_table(text: Tensor | None, dim: int = 3) -> FoldedTable:
    warm = torch.tensor([False, True, True, False, True])
    return FoldedTable(4, dim, warm, text, torch.Generator().manual_seed(0))


def text_vectors(dim: int) -> Tensor:
    return functional.pad(torch.randn(4, dim, generator=torch.Generator().manual_seed(1)), (0, 0, 1, 0))


@torch.no_grad()
def test_the_table_is_text_through_the_map_plus_free_vectors_of_warm_items() -> None:
    table, text = folded_table(text_vectors(5)), text_vectors(5)
    assert table.map is not None
    from_text = text @ table.map.weight.T
    torch.testing.assert_close(table()[[1, 2, 4]], (from_text + table.free)[[1, 2, 4]])
    torch.testing.assert_close(table()[3], from_text[3])  # no training event: text alone places it
    assert not table()[0].any()


@torch.no_grad()
def test_without_text_a_cold_item_has_no_vector() -> None:
    table = folded_table(None)
    assert torch.equal(table()[[1, 2, 4]], table.free[[1, 2, 4]])
    assert not table()[[0, 3]].any()


@torch.no_grad()
def test_the_map_starts_on_the_texts_leading_directions() -> None:
    """Orthonormal rows that keep the most of the vectors' squares; further dimensions start at zero."""
    text = text_vectors(5)
    table = folded_table(text, dim=2)
    assert table.map is not None
    axes = table.map.weight
    torch.testing.assert_close(axes @ axes.T, torch.eye(2), atol=1e-5, rtol=0)
    singular = torch.linalg.svdvals(text[1:])
    torch.testing.assert_close((text @ axes.T).square().sum(), singular[:2].square().sum(), atol=1e-4, rtol=1e-4)
    wide = folded_table(text, dim=7)
    assert wide.map is not None
    assert not wide.map.weight[5:].any()
    torch.testing.assert_close((text @ wide.map.weight.T) @ wide.map.weight, text, atol=1e-5, rtol=0)


def test_cold_items_free_vectors_get_no_gradient() -> None:
    table = folded_table(text_vectors(5))
    table().square().sum().backward()
    assert table.free.grad is not None
    assert table.free.grad.any(1).tolist() == [False, True, True, False, True]


def teaching_of(tmp_path: Path, dataset: Dataset, dim: int = 5) -> Teaching:
    vectors = np.random.default_rng(2).normal(size=(dataset.n_items + 1, dim)).astype(np.float32)
    vectors[0] = 0.0
    np.save(tmp_path / "item_vectors.npy", vectors)
    return Teaching(tmp_path)


@pytest.mark.parametrize("with_text", [True, False])
@torch.no_grad()
def test_a_resumed_student_reproduces_table_and_encoder(film_dataset: Dataset, tmp_path: Path, with_text: bool) -> None:
    teaching = teaching_of(tmp_path, film_dataset)
    student = new_student(STUDENT.model_copy(update={"text": with_text}), film_dataset, teaching, 0)
    for parameter in student.parameters():
        parameter.normal_()
    folded = student.folded()
    again = resumed_student(folded, student.text_map, film_dataset, teaching)
    torch.testing.assert_close(again.folded().item_table, folded.item_table, atol=1e-5, rtol=0)
    for name, tensor in again.encoder.state_dict().items():
        assert torch.equal(tensor, folded.encoder.state_dict()[name])
    assert (again.text_map is None) == (not with_text)
    if with_text:
        assert student.text_map is not None and again.text_map is not None
        assert np.array_equal(again.text_map, student.text_map)
        assert teaching.item_vectors is not None
        cold = film_dataset.cold_items
        np.testing.assert_allclose(
            folded.item_table[cold.astype(np.int64)], teaching.item_vectors[cold] @ student.text_map, atol=1e-5
        )


def test_without_id_vectors_every_item_is_placed_by_its_text(film_dataset: Dataset, tmp_path: Path) -> None:
    """Trained, folded, cut and taken up again: a table is the text vectors through one map, warm items' rows too."""
    teaching = teaching_of(tmp_path, film_dataset)
    assert teaching.item_vectors is not None
    student = new_student(STUDENT.model_copy(update={"id_vectors": False}), film_dataset, teaching, 0)
    again = resumed_student(student.folded(), student.text_map, film_dataset, teaching, id_vectors=False)
    for model in (student, again):
        model.table().square().sum().backward()
        assert model.table.free.grad is None and model.table.map is not None and model.table.map.weight.grad is not None
        assert model.text_map is not None
        mapped = teaching.item_vectors @ model.text_map
        np.testing.assert_allclose(model.folded().item_table.detach(), mapped, atol=1e-5)
    with pytest.raises(ValidationError, match="leaves item vectors to text"):
        SequenceStudent(text=False, id_vectors=False)
    (tmp_path / "item_vectors.npy").unlink()
    with pytest.raises(UsageError, match="needs a teacher with item vectors"):
        new_student(SequenceStudent(id_vectors=False), film_dataset, Teaching(tmp_path), 0)


def two_item_student() -> StudentInTraining:
    """Warm items 1 and 2, cold item 3; the encoder answers [1, -1] after item 1 and [-1, 1] after item 2."""
    table = FoldedTable(3, 2, torch.tensor([False, True, True, False]), None, torch.Generator())
    shape = SequenceShape(n_items=3, dim=2, head_dim=2, blocks=(BlockShape(heads=1, neurons=1),), max_history=2)
    student = StudentInTraining(shape, table).eval()
    with torch.no_grad():
        for parameter in student.encoder.parameters():
            parameter.zero_()
        student.encoder.norm.weight.fill_(1.0)
        table.free.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [7.0, 7.0]]))
    return student


BATCH = (torch.tensor([[1, 2], [2, 0]]), torch.tensor([[2, 0], [1, 0]]), torch.tensor([[4, -1], [1, -1]]))
"""Two targets: 2 after 1 at position 4, 1 after 2 at position 1."""


def step_loss(student: StudentInTraining, teaching: Teaching, *losses: ListwiseKL) -> Tensor:
    return student_loss(student, BATCH, distillation(student, teaching, losses), Training())


@torch.no_grad()
def test_without_a_loss_the_student_minimises_cross_entropy_by_hand(tmp_path: Path) -> None:
    """After 1 the user is [1, -1]: scores 1 for item 1, -1 for item 2, 0 for padding and cold, which must not count."""
    expected = math.log(1 + math.exp(2))
    for losses in ([], [ListwiseKL()]):  # a teacher that left nothing is no teacher
        value = step_loss(two_item_student(), Teaching(tmp_path), *losses)
        assert value.item() == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def test_a_nested_loss_is_the_mean_over_prefixes_that_enter_cut_by_hand(tmp_path: Path) -> None:
    """Of one column of two, vectors are sqrt(2) as long: after 1 the history is [sqrt(2), 0] and the user sqrt(2), the
    scores sqrt(2) and 0; after 2 it is [0, 0] (not [0, 1]: the second column is gone), and so is every score."""
    student = two_item_student()
    student.shape = student.shape.model_copy(update={"nested": (1, 2)})
    one = (math.log(1 + math.exp(2**0.5)) + math.log(2)) / 2
    both = math.log(1 + math.exp(2))
    assert step_loss(student, Teaching(tmp_path)).item() == pytest.approx((one + both) / 2, abs=1e-3)


@torch.no_grad()
def test_the_teachers_share_of_the_loss_reads_its_own_positions(tmp_path: Path) -> None:
    """At position 4 the teacher has (1/4, 3/4) on items 1, 2, at position 1 (1/2, 1/2); elsewhere nonsense."""
    items, scores = np.full((6, 2), 3, np.int32), np.full((6, 2), 9.0, np.float16)
    items[4], scores[4] = (1, 2), (0.0, math.log(3))
    items[1], scores[1] = (2, 1), (0.0, 0.0)
    np.save(tmp_path / "score_items.npy", items)
    np.save(tmp_path / "scores.npy", scores)
    first, second = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))  # the student's share of the seen item and the other

    def kl(teacher: tuple[float, float], student: tuple[float, float]) -> float:
        return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))

    soft = (kl((0.25, 0.75), (first, second)) + kl((0.5, 0.5), (first, second))) / 2
    hard = math.log(1 + math.exp(2))
    for weight in (0.0, 0.3, 1.0):
        loss = ListwiseKL(weight=weight, temperature=1.0)
        value = step_loss(two_item_student(), Teaching(tmp_path), loss)
        assert value.item() == pytest.approx((1 - weight) * hard + weight * soft, abs=2e-3)


def test_a_cold_item_among_the_teachers_best_leaves_loss_and_gradient_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "score_items.npy", np.full((6, 2), (1, 3), np.int32))
    np.save(tmp_path / "scores.npy", np.full((6, 2), (2.0, 1.0), np.float16))
    student = two_item_student()
    value = step_loss(student, Teaching(tmp_path), ListwiseKL())
    value.backward()
    assert torch.isfinite(value)
    grad = student.table.free.grad
    assert grad is not None
    assert torch.isfinite(grad).all()
    assert not grad[[0, 3]].any()


def test_a_control_learns_without_a_teacher(film_dataset: Dataset, tmp_path: Path) -> None:
    teaching = Teaching(tmp_path)
    rng = seed_everything(0, OPTIONS)
    student = new_student(STUDENT, film_dataset, teaching, 0)
    training = Training(epochs=10, warmup_epochs=0, learning_rate=5e-3)
    found = train_student(student, film_dataset, teaching, [ListwiseKL()], training, rng, OPTIONS, "control")
    untrained, last = found.curve[0][2], found.curve[-1]
    assert found.best > untrained + 0.05
    assert last[1] < found.curve[1][1]
    assert student.text_map is None


def test_warm_items_are_those_with_training_events(film_dataset: Dataset) -> None:
    warm = warm_items(film_dataset)
    assert warm.shape == (film_dataset.n_items + 1,)
    assert not warm[0]
    assert not warm[torch.from_numpy(film_dataset.cold_items.astype(np.int64))].any()
    seen = {int(row) for events in film_dataset.train_sequences() for row in events}
    assert set(warm.nonzero().flatten().tolist()) == seen


def test_the_student_stage_leaves_model_map_ranks_and_space(
    film_inputs: dict[str, Path], film_teacher: dict[str, Path], film_dataset: Dataset
) -> None:
    folder = film_inputs["distil/student:student:0"]
    model, text_map = load_sequence(folder), load_array(folder, "text_map")
    vectors = load_array(film_teacher["target"], "item_vectors")
    assert model is not None and text_map is not None and vectors is not None
    assert model.item_table.shape == (film_dataset.n_items + 1, 8)
    cold = film_dataset.cold_items
    table = model.item_table.detach().numpy()
    np.testing.assert_allclose(table[cold], vectors[cold] @ text_map, atol=1e-5)
    assert not table[0].any()
    assert model_facts(folder)["text_space"] == text_space(film_teacher["target"]) is not None
    assert len(load_array(folder, "valid_ranks")) == len(film_dataset.cases("valid"))  # type: ignore[arg-type]


def test_a_control_stage_has_no_text_space(film_inputs: dict[str, Path]) -> None:
    folder = film_inputs["distil/control:control:0"]
    assert model_facts(folder) == {"parts": ["sequence"], "text_space": None}
    assert load_array(folder, "text_map") is None


def test_student_none_hands_the_teacher_on(
    film_inputs: dict[str, Path], film_teacher: dict[str, Path], files_of: Callable[[Path], list[Path]]
) -> None:
    teacher, folder = film_teacher["target"], film_inputs["distil/teacher:teacher:0"]
    files = files_of(teacher)
    assert files_of(folder) == files
    assert all((folder / f).read_bytes() == (teacher / f).read_bytes() for f in files)


def test_the_text_student_is_smaller_and_near_its_teacher(
    film_inputs: dict[str, Path], film_teacher: dict[str, Path], film_data: Path
) -> None:
    folder = film_inputs["distil/text_encoder:text:0"]
    student, teacher = load_text(folder), teacher_text(film_teacher["target"])
    assert student is not None
    assert (len(student.layers), len(teacher.layers)) == (2, 3)
    assert student.dim == teacher.dim
    texts = item_texts(film_data, TextReader())
    wanted, got = teacher.encode(texts.held_out), student.encode(texts.held_out)
    unexplained = float(((got - wanted) ** 2).mean() / teacher.encode(texts.items).var(0).mean())
    assert read_json(folder / "metrics.json")["unexplained_variance"] == pytest.approx(unexplained, rel=1e-4)
    assert unexplained < 0.5
    assert model_facts(folder)["text_space"] == text_space(film_teacher["target"])


def test_item_texts_are_those_of_all_domains_once_without_cold_items(film_data: Path) -> None:
    domains = [Dataset.open(film_data, domain) for domain in ("source", "target")]
    texts = {text for dataset in domains for text in dataset.texts}
    cold = {dataset.texts[row - 1] for dataset in domains for row in dataset.cold_items}
    assert sorted(item_texts(film_data, TextReader(texts="all")).items) == sorted(texts)
    assert sorted(item_texts(film_data, TextReader()).items) == sorted(texts - cold) != sorted(texts)


def test_the_same_texts_are_held_out_whoever_asks() -> None:
    texts = [f"text {number}" for number in range(40)]
    parts = parted(texts, 0.1)
    assert (len(parts.read), len(parts.held_out)) == (36, 4)
    assert not set(parts.read) & set(parts.held_out)
    backwards = parted(texts[::-1], 0.1)
    assert set(backwards.held_out) == set(parts.held_out)
    assert set(parted(texts, 0.2).held_out) > set(parts.held_out)
    assert len(parted(texts, 1e-9).held_out) == 1
    assert parted(["alone"], 0.1).held_out == []


def test_pruning_reads_the_texts_that_its_student_learned_from(film_inputs: dict[str, Path], film_data: Path) -> None:
    """Words that cold items alone have are rows that a new item's words have to do without."""
    pruned = load_text(film_inputs["prune/text_encoder:text:0"])
    assert pruned is not None
    learned, words = (
        set(re.findall(r"\w+", " ".join(item_texts(film_data, TextReader(texts=of)).items))) for of in ("warm", "all")
    )
    tokens = {word: len(pruned.tokenizer.encode(word, add_special_tokens=False).ids) for word in words}
    assert {word for word, count in tokens.items() if count == 1} == learned < words


def test_train_text_without_epochs_only_measures(film_teacher: dict[str, Path], film_dataset: Dataset) -> None:
    encoder = teacher_text(film_teacher["target"])
    taught = TextDistillation(
        [VectorMSE()], encoder, teacher_text(film_teacher["target"]), parted(film_dataset.texts, 0.1)
    )
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    rng = np.random.default_rng(0)
    error = train_text(encoder, taught, TextTraining(epochs=0), rng, OPTIONS, "t")
    assert error == pytest.approx(0.0, abs=1e-8)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_word_embeddings_stay_the_teachers(film_inputs: dict[str, Path], film_teacher: dict[str, Path]) -> None:
    """A word that only cold items have must keep its meaning; layers and head do train."""
    student, teacher = load_text(film_inputs["distil/text_encoder:text:0"]), teacher_text(film_teacher["target"])
    assert student is not None
    for name, tensor in student.lm.embeddings.state_dict().items():
        assert torch.equal(tensor, teacher.lm.embeddings.state_dict()[name])
    assert not torch.equal(student.layers[0].output.dense.weight, teacher.layers[0].output.dense.weight)


def test_cut_layers_keeps_the_first(film_teacher: dict[str, Path], film_dataset: Dataset) -> None:
    whole, cut = teacher_text(film_teacher["target"]), cut_layers(teacher_text(film_teacher["target"]), 2)
    ids, mask = whole.tokenize(film_dataset.texts[:3])
    with torch.no_grad():
        hidden = whole.lower(ids, mask, 2)
        torch.testing.assert_close(cut.upper(cut.lower(ids, mask, 0), mask, 0), hidden, atol=1e-5, rtol=1e-5)
    assert len(cut.shape.layers) == cut.lm.config.num_hidden_layers == 2
    assert isinstance(cut_layers(whole, 9), TextEncoder)
    assert len(whole.layers) == 3


def test_a_text_student_needs_a_teacher_with_text(build: Run, film_data: Path, film_inputs: dict[str, Path]) -> None:
    config = DistilConfig.model_validate({"student": "text"})
    with pytest.raises(UsageError, match="needs a teacher with a text part"):
        build(distil, config, data=film_data, mix=film_inputs["distil/control:control:0"])
