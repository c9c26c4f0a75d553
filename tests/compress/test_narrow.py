"""Narrower item tables: exact where nothing is lost, the axes that lose least, prefixes that are their own tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from compress.data.dataset import Dataset
from compress.data.load import DataConfig, load_data
from compress.distil.sequence import SequenceStudent, new_student, train_student
from compress.distil.step import Teaching
from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.prune.table import cut_table, principal_axes
from compress.stage import RunOptions
from compress.training import Training, seed_everything, validation_ndcg

DIM, ITEMS = 8, 12
HISTORIES = torch.tensor([[0, 0, 3, 7], [5, 1, 12, 2], [0, 0, 0, 9]])
EVEN = np.ones(ITEMS + 1, np.int64)


def model_of_rank(rank: int, **sizes: object) -> SequenceModel:
    torch.manual_seed(rank)
    blocks = (BlockShape(heads=2, neurons=5),) * 2
    shape = {"n_items": ITEMS, "dim": DIM, "head_dim": 3, "blocks": blocks, "max_history": 4, "dropout": 0.3}
    model = SequenceModel(SequenceShape.model_validate(shape | sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        width = model.shape.item_dim
        model.item_table.copy_(torch.randn(ITEMS + 1, rank) @ torch.randn(rank, width))
        model.item_table[0] = 0.0
    return model.eval()


@pytest.mark.parametrize("rank", [1, 3, 8])
@torch.no_grad()
def test_a_table_of_some_rank_cut_to_as_many_dimensions_gives_the_same_scores(rank: int) -> None:
    model = model_of_rank(rank)
    text_map = np.random.default_rng(0).normal(size=(20, DIM)).astype(np.float32)
    popularity = np.arange(ITEMS + 1)  # items without events are among what must stay
    cut, cut_map = cut_table(model, text_map, popularity, rank, nested=False)
    assert cut.item_table.shape == (ITEMS + 1, rank) and cut.shape.dim == DIM
    assert cut.user_vectors(HISTORIES).shape == (3, rank)
    assert not cut.item_table[0].any()
    torch.testing.assert_close(cut.scores(HISTORIES), model.scores(HISTORIES), atol=1e-4, rtol=1e-4)
    # a text still lands where its item does: the map went through the same axes
    axes = principal_axes(model.item_table, popularity, rank).numpy()
    assert cut_map is not None
    np.testing.assert_allclose(cut_map, text_map @ axes, atol=1e-5)
    np.testing.assert_allclose(cut.item_table, model.item_table.numpy() @ axes, atol=1e-5)


@torch.no_grad()
def test_cutting_in_two_steps_is_cutting_at_once() -> None:
    """And what the maps around the encoder have learned in between stays in them."""
    model = model_of_rank(5)
    twice = cut_table(cut_table(model, None, EVEN, 4, nested=False)[0], None, EVEN, 2, nested=False)[0]
    once = cut_table(model, None, EVEN, 2, nested=False)[0]
    torch.testing.assert_close(twice.scores(HISTORIES), once.scores(HISTORIES), atol=1e-4, rtol=1e-4)
    trained = model_of_rank(2, table_dim=6)
    cut = cut_table(trained, None, EVEN, 2, nested=False)[0]
    torch.testing.assert_close(cut.scores(HISTORIES), trained.scores(HISTORIES), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_axes_keep_what_is_asked_for_most_by_hand() -> None:
    """Items [1, 0] with 3 events and [0, 1.5] with none: weighted squares 4 and 2.25, unweighted 1 and 2.25."""
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.5]])
    torch.testing.assert_close(principal_axes(table, np.array([0, 3, 0]), 1).abs(), torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(principal_axes(table, np.array([0, 0, 0]), 1).abs(), torch.tensor([[0.0], [1.0]]))


@torch.no_grad()
def test_leading_columns_are_the_table_with_zeros_for_the_rest_as_long_as_the_whole() -> None:
    """Vectors of 2 of 8 columns enter and leave twice as long."""
    model = model_of_rank(8)
    cut = cut_table(model, None, EVEN, 2, nested=True)[0]
    assert torch.equal(cut.item_table, model.item_table[:, :2])
    padded = functional.pad(model.item_table[HISTORIES][..., :2] * 2, (0, 6))
    users = model.encoder.last(padded, HISTORIES > 0)[:, :2] * 2
    torch.testing.assert_close(cut.user_vectors(HISTORIES), users, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_narrow_model_answers_the_same_padded_whole_and_after_a_round_trip(tmp_path: Path) -> None:
    model = model_of_rank(3, table_dim=3)
    events = torch.tensor([[5, 1, 12, 2]])
    every = model.encoder(model.item_table[events])
    assert every.shape == (1, 4, 3)
    torch.testing.assert_close(every[:, -1], model.user_vectors(events), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        model.user_vectors(functional.pad(events[:, :2], (2, 0))), every[:, 1], atol=1e-5, rtol=1e-5
    )
    model.save(tmp_path / "sequence")
    loaded = SequenceModel.load(tmp_path / "sequence")
    assert loaded.shape == model.shape
    assert torch.equal(loaded.scores(events), model.scores(events))


def test_a_plain_models_folder_says_nothing_of_narrow_tables(tmp_path: Path) -> None:
    """Old folders load, and new ones of plain students are the same bytes."""
    plain = model_of_rank(8)
    plain.save(tmp_path / "plain")
    config = (tmp_path / "plain" / "config.json").read_text()
    assert not any(word in config for word in ("table_dim", "nested"))
    assert not any("lift" in name or "project" in name for name in plain.state_dict())
    assert "table_dim" not in SequenceStudent().model_dump() and "nested" not in SequenceStudent().model_dump()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dim": 8, "table_dim": 9}, "table_dim must be at most dim, 8"),
        ({"dim": 8, "nested": (4, 8), "table_dim": 4}, "left out where nested says"),
        ({"dim": 8, "nested": (4, 2, 8)}, "nested must ascend to dim, 8"),
        ({"dim": 8, "nested": (4, 4, 8)}, "nested must ascend to dim, 8"),
        ({"dim": 8, "nested": (2, 4)}, "nested must ascend to dim, 8"),
    ],
)
def test_widths_that_do_not_fit_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SequenceStudent.model_validate(wrong)


def test_at_an_eighth_of_its_width_a_nested_table_beats_any_cut_of_a_plain_one(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    """Without recovery. At wider cuts a plain table's principal axes may be better: see docs/LOG.md."""
    world = {"from": {"name": "synthetic", "items": 80, "users": 160}, "items": {"class": ["Drama"]}}
    data = build(load_data, DataConfig.model_validate({"domains": {"target": world}, "cold_fraction": 0.1}))
    dataset, options = Dataset.open(data), RunOptions(threads=1)
    training = Training(epochs=40, learning_rate=5e-3, warmup_epochs=0, validate_every=10)
    trained = {}
    for nested in ((), (2, 16)):
        settings = SequenceStudent(dim=16, neurons=32, max_history=10, dropout=0.2, text=False, nested=nested)
        rng, teaching = seed_everything(0, options), Teaching(tmp_path)
        student = new_student(settings, dataset, teaching, 0)
        train_student(student, dataset, teaching, [], training, rng, options, "distil")
        trained[nested] = student.folded()

    def value(model: SequenceModel, by_columns: bool) -> float:
        return validation_ndcg(cut_table(model, None, dataset.popularity, 2, by_columns)[0], dataset)

    plain = [value(trained[()], by_columns) for by_columns in (False, True)]
    assert value(trained[2, 16], True) > max(plain) + 0.03
