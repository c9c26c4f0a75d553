"""The causal encoder: one answer however it is asked, no look into the future, distances the right way round."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from compress.models.sequence import BlockShape, SequenceEncoder, SequenceModel, SequenceShape

DIM, LONGEST = 8, 7


def sequence_model(blocks: int = 2, seed: int = 0) -> SequenceModel:
    """All weights far from their start, so that no part is without effect."""
    torch.manual_seed(seed)
    shape = (BlockShape(heads=2, neurons=5), BlockShape(heads=3, neurons=6), BlockShape(heads=1, neurons=4))
    model = SequenceModel(
        SequenceShape(n_items=12, dim=DIM, head_dim=3, blocks=shape[:blocks], max_history=LONGEST, dropout=0.5)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6)
        model.item_table[0] = 0.0
    return model.eval()


MODELS = {blocks: sequence_model(blocks) for blocks in (1, 2, 3)}


def vectors(length: int, seed: int) -> Tensor:
    return torch.randn(2, length, DIM, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(MODELS)), st.integers(1, LONGEST), st.integers(0, 9))
@torch.no_grad()
def test_last_equals_forward_at_the_last_event_under_any_padding(
    data: st.DataObject, blocks: int, length: int, seed: int
) -> None:
    padding = data.draw(st.integers(0, LONGEST - length))
    encoder, history = MODELS[blocks].encoder, vectors(length, seed)
    # garbage in the padded places: it is the mask that must hide them
    padded = torch.cat([torch.full((2, padding, DIM), 3.0), history], 1)
    known = torch.arange(padding + length).expand(2, -1) >= padding
    torch.testing.assert_close(encoder.last(padded, known), encoder(history)[:, -1], atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(MODELS)), st.integers(2, LONGEST))
@torch.no_grad()
def test_a_changed_event_changes_its_own_and_later_outputs_only(data: st.DataObject, blocks: int, length: int) -> None:
    place = data.draw(st.integers(0, length - 1))
    encoder, history = MODELS[blocks].encoder, vectors(length, 1)
    before = encoder(history)
    history[:, place] = 0.5 - history[:, place].flip(-1)
    after = encoder(history)
    torch.testing.assert_close(after[:, :place], before[:, :place], atol=1e-6, rtol=0)
    assert ((after - before)[:, place:].abs().amax(-1) > 1e-5).all()


@torch.no_grad()
def test_padding_on_the_right_does_not_reach_earlier_outputs() -> None:
    encoder, history = MODELS[2].encoder, vectors(LONGEST, 2)
    torch.testing.assert_close(encoder(history)[:, :3], encoder(history[:, :3]), atol=1e-6, rtol=0)


def one_block(bias: list[float]) -> SequenceEncoder:
    """Attention by distance alone, values and output handed through, no feed-forward: countable on fingers."""
    shape = SequenceShape(n_items=3, dim=2, head_dim=2, blocks=(BlockShape(heads=1, neurons=1),), max_history=len(bias))
    encoder = SequenceEncoder(shape).eval()
    (block,) = encoder.each_block()
    with torch.no_grad():
        for linear in (block.query, block.key, block.value, block.output, block.up, block.down):
            linear.weight.zero_()
            linear.bias.zero_()
        block.value.weight.copy_(torch.eye(2))
        block.output.weight.copy_(torch.eye(2))
        block.distance_bias.copy_(torch.tensor([bias]))
    return encoder


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        # looks at itself: norm([1, .5]) = [1, -1], sum [2, -.5], norm [1, -1]
        ([50.0, 0.0, 0.0], [1.0, -1.0]),
        # one back: norm([1, 3]) = [-1, 1], sum [0, 1.5], norm [-1, 1]
        ([0.0, 50.0, 0.0], [-1.0, 1.0]),
        # two back: norm([2, 9]) = [-1, 1], as one back
        ([0.0, 0.0, 50.0], [-1.0, 1.0]),
        # all alike: a third of [1, -1] + [-1, 1] + [-1, 1] makes [2/3, 5/6]
        ([0.0, 0.0, 0.0], [-1.0, 1.0]),
    ],
)
@torch.no_grad()
def test_distance_bias_by_hand(bias: list[float], expected: list[float]) -> None:
    history = torch.tensor([[[2.0, 9.0], [1.0, 3.0], [1.0, 0.5]]])
    encoder = one_block(bias)
    torch.testing.assert_close(encoder(history)[0, -1], torch.tensor(expected), atol=1e-3, rtol=0)
    last = encoder.last(history, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(last[0], torch.tensor(expected), atol=1e-3, rtol=0)


@torch.no_grad()
def test_attention_is_scaled_by_the_root_of_a_heads_width() -> None:
    """Query and key [1, -1] each: 2 / sqrt(2) for itself, -sqrt(2) one back; softmax weights a and 1 - a."""
    encoder = one_block([0.0, 0.0])
    (block,) = encoder.each_block()
    block.query.weight.copy_(torch.eye(2))
    block.key.weight.copy_(torch.eye(2))
    encoder.norm = torch.nn.Identity()  # type: ignore[assignment]
    history = torch.tensor([[[0.0, 4.0], [4.0, 0.0]]])
    own = torch.tensor([2**0.5, -(2**0.5)]).softmax(0)[0]
    expected = torch.tensor([4.0, 0.0]) + (2 * own - 1) * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(encoder(history)[0, -1], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_user_vectors_read_the_table_and_skip_padding() -> None:
    model = MODELS[2]
    padded = model.user_vectors(torch.tensor([[0, 0, 0, 5, 2], [7, 1, 9, 5, 2]]))
    for vector, rows in zip(padded, ([5, 2], [7, 1, 9, 5, 2]), strict=True):
        expected = model.encoder(model.item_table[rows][None])[0, -1]
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)
    model.item_table[0] = 4.0
    torch.testing.assert_close(model.user_vectors(torch.tensor([[0, 0, 0, 5, 2]]))[0], padded[0], atol=1e-5, rtol=1e-5)
    model.item_table[0] = 0.0


@torch.no_grad()
def test_dropout_is_for_training_alone() -> None:
    model = sequence_model()
    history = torch.tensor([[3, 4, 5]])
    assert torch.equal(model.user_vectors(history), model.user_vectors(history))
    vectors_in = model.item_table[history]
    model.train()
    assert not torch.equal(model.encoder(vectors_in), model.encoder(vectors_in))


@torch.no_grad()
def test_save_and_load_give_the_same_model(tmp_path: Path) -> None:
    model = sequence_model(3)
    model.save(tmp_path / "sequence")
    loaded = SequenceModel.load(tmp_path / "sequence")
    assert loaded.shape == model.shape
    assert not loaded.training
    assert {n: t.tolist() for n, t in loaded.state_dict().items()} == {
        n: t.tolist() for n, t in model.state_dict().items()
    }
    history = torch.tensor([[0, 3, 4, 5]])
    assert torch.equal(loaded.user_vectors(history), model.user_vectors(history))


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        sequence_model().save(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("wrong", [{"blocks": ()}, {"dim": 0}, {"dropout": -0.1}, {"width": 3}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]) -> None:
    right = {"n_items": 3, "dim": 2, "head_dim": 2, "blocks": (BlockShape(heads=1, neurons=1),), "max_history": 2}
    SequenceShape.model_validate(right)
    with pytest.raises(ValidationError):
        SequenceShape.model_validate(right | wrong)
