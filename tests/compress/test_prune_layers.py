"""Cutting layers, heads and neurons: shapes really shrink, and the rest computes what it computed under the mask."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.models.text import TextEncoder
from compress.prune.layers import mask_widths, prune_layers, prune_widths
from compress.prune.views import Width, views
from compress.teacher.backbone import RandomBert

TEXTS = ["the matrix reloaded", "a river runs through it", "heat"]
KEEP = [Width((0, 3), (5, 1, 7)), Width((2,), (0, 2, 3, 4, 15))]
SHAPES = (BlockShape(heads=2, neurons=3), BlockShape(heads=1, neurons=5))


def sequence_model() -> SequenceModel:
    torch.manual_seed(1)
    blocks = (BlockShape(heads=4, neurons=16),) * 2
    model = SequenceModel(SequenceShape(n_items=20, dim=12, head_dim=3, blocks=blocks, max_history=6)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.item_table[0] = 0.0
    return model


def text_encoder() -> TextEncoder:
    encoder = RandomBert(layers=2, hidden=12, heads=4, neurons=16)(TEXTS, 16, 1)
    with torch.no_grad():
        for parameter in encoder.lm.encoder.parameters():
            parameter.normal_(std=0.5)
    return encoder


def user_vectors(model: SequenceModel) -> Tensor:
    histories = torch.tensor([[0, 0, 3, 7, 1, 20], [5, 4, 9, 2, 2, 8], [0, 0, 0, 0, 0, 6]])
    return model.user_vectors(histories)


def item_vectors(encoder: TextEncoder) -> Tensor:
    return encoder(*encoder.tokenize(TEXTS))


@pytest.fixture(params=["sequence", "text"])
def kind(request: pytest.FixtureRequest) -> tuple[Any, Callable[[Any], Tensor]]:
    return (sequence_model(), user_vectors) if request.param == "sequence" else (text_encoder(), item_vectors)


def shapes_of(model: Any) -> tuple[BlockShape, ...]:
    return model.shape.layers if isinstance(model, TextEncoder) else model.shape.blocks


@torch.no_grad()
def test_pruned_equals_masked_and_differs_from_whole(kind: Any) -> None:
    model, outputs = kind
    whole, masked = outputs(model), outputs(mask_widths(model, KEEP))
    prune_widths(model, KEEP)
    torch.testing.assert_close(outputs(model), masked, atol=1e-6, rtol=0)
    assert (masked - whole).abs().max() > 1e-2


@torch.no_grad()
def test_shapes_shrink_and_round_trip(kind: Any, tmp_path: Path) -> None:
    model, outputs = kind
    before = sum(p.numel() for p in model.parameters())
    prune_widths(model, KEEP)
    assert shapes_of(model) == SHAPES
    assert [(v.heads, v.neurons) for v in views(model)] == [(2, 3), (1, 5)]
    if isinstance(model, TextEncoder):
        attention = model.layers[0].attention.self
        assert (attention.num_attention_heads, attention.all_head_size) == (2, 6)
    else:
        assert model.encoder.shape == model.shape
    hidden, head = 12, 3
    per_head = 3 * head * (hidden + 1) + head * hidden + (6 if isinstance(model, SequenceModel) else 0)
    per_neuron = 2 * hidden + 1
    saved = per_head * (8 - 3) + per_neuron * (32 - 8)
    assert before - sum(p.numel() for p in model.parameters()) == saved
    model.save(tmp_path / "part")
    loaded = type(model).load(tmp_path / "part")
    assert shapes_of(loaded) == SHAPES
    assert torch.equal(outputs(loaded), outputs(model))


@torch.no_grad()
def test_layers_are_removed_after_widths_and_round_trip(kind: Any, tmp_path: Path) -> None:
    model, outputs = kind
    whole = outputs(model)
    prune_widths(model, KEEP)
    prune_layers(model, [1])
    assert shapes_of(model) == SHAPES[1:]
    assert len(views(model)) == 1
    if isinstance(model, TextEncoder):
        assert model.lm.config.num_hidden_layers == 1
    assert (outputs(model) - whole).abs().max() > 1e-2
    model.save(tmp_path / "part")
    assert torch.equal(outputs(type(model).load(tmp_path / "part")), outputs(model))


@torch.no_grad()
def test_keeping_everything_changes_nothing(kind: Any) -> None:
    model, outputs = kind
    whole = outputs(model)
    prune_widths(model, [Width(tuple(range(4)), tuple(range(16)))] * 2)
    prune_layers(model, [0, 1])
    assert torch.equal(outputs(model), whole)


@torch.no_grad()
def test_reordering_heads_and_neurons_changes_nothing_but_rounding(kind: Any) -> None:
    model, outputs = kind
    whole = outputs(model)
    prune_widths(model, [Width((3, 1, 0, 2), tuple(reversed(range(16))))] * 2)
    torch.testing.assert_close(outputs(model), whole, atol=1e-5, rtol=0)


def test_pruned_model_trains_and_frozen_layers_stay_frozen(kind: Any) -> None:
    model, outputs = kind
    views(model)[0].up.weight.requires_grad_(False)
    prune_widths(model, KEEP)
    outputs(model).square().sum().backward()
    first, second = views(model)
    assert not first.up.weight.requires_grad
    assert second.up.weight.grad is not None
    assert second.up.weight.grad.shape == (5, 12)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([KEEP[0]], "one width per layer, 2 .got 1"),
        ([KEEP[0], Width((), (0,))], "heads must be distinct indices below 4, at least one .got \\[\\]"),
        ([KEEP[0], Width((0,), ())], "neurons must be distinct"),
        ([KEEP[0], Width((4,), (0,))], "heads must be distinct indices below 4"),
        ([KEEP[0], Width((-1,), (0,))], "heads must be distinct indices below 4"),
        ([KEEP[0], Width((0,), (2, 2))], "neurons must be distinct"),
    ],
)
def test_impossible_widths_are_refused_and_leave_the_model_whole(kind: Any, keep: list[Width], message: str) -> None:
    model, _ = kind
    with pytest.raises(ValueError, match=message):
        prune_widths(model, keep)
    assert shapes_of(model) == (BlockShape(heads=4, neurons=16),) * 2
    assert [(v.heads, v.neurons) for v in views(model)] == [(4, 16)] * 2


@pytest.mark.parametrize("keep", [[], [2], [0, 0]])
def test_impossible_layers_are_refused(kind: Any, keep: list[int]) -> None:
    model, _ = kind
    with pytest.raises(ValueError, match="layers must be distinct indices below 2"):
        prune_layers(model, keep)


@torch.no_grad()
def test_an_encoder_alone_is_pruned_too() -> None:
    encoder = sequence_model().encoder
    masked = mask_widths(encoder, KEEP)
    vectors = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    prune_widths(encoder, KEEP)
    assert encoder.shape.blocks == SHAPES
    torch.testing.assert_close(encoder(vectors), masked(vectors), atol=1e-6, rtol=0)
