"""Decoders of every model type lose heads, neurons and layers as encoders do."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.models.family import FAMILIES, LLAMA
from compress.models.sequence import BlockShape
from compress.models.text import TextEncoder
from compress.prune.criteria import Activation, FirstOrder, Fisher, Magnitude
from compress.prune.layers import mask_widths, prune_layers, prune_widths
from compress.prune.views import Width, views
from compress.quantize.parity import text_parity
from compress.quantize.text_graph import export_text
from compress.teacher.backbone import load_backbone

Folder = Callable[..., Path]
DECODERS = sorted(name for name, family in FAMILIES.items() if family.causal)
TEXTS = ["the silent river", "golden", "a burning mirror, frozen summer"]
KEEP = [Width((1,), (5, 1, 7)), Width((0, 1), (0, 2, 3, 4, 23)), Width((1, 0), tuple(range(24)))]
SHAPES = (BlockShape(heads=2, neurons=3), BlockShape(heads=4, neurons=5), BlockShape(heads=4, neurons=24))


def decoder(lm_folder: Folder, name: str) -> TextEncoder:
    """Three layers of 24 neurons and four query heads over two of keys and values; nothing is 0 or 1."""
    encoder = load_backbone(lm_folder(name), 32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder


@pytest.fixture(params=DECODERS)
def encoder(request: pytest.FixtureRequest, lm_folder: Folder) -> TextEncoder:
    return decoder(lm_folder, request.param)


def test_pruned_equals_masked_shrinks_and_round_trips(encoder: TextEncoder, tmp_path: Path) -> None:
    whole, masked = encoder.encode(TEXTS), mask_widths(encoder, KEEP).encode(TEXTS)
    before = sum(p.numel() for p in encoder.layers.parameters())
    prune_widths(encoder, KEEP)
    np.testing.assert_allclose(encoder.encode(TEXTS), masked, atol=2e-6)
    assert np.abs(masked - whole).max() > 1e-2
    assert encoder.shape.layers == SHAPES
    own = views(encoder)[0]
    biased = own.query.bias is not None  # Qwen2
    per_neuron, per_group = 3 * 16, (2 + 1 + 1) * 8 * (16 + biased) + 2 * 8 * 16
    assert before - sum(p.numel() for p in encoder.layers.parameters()) == per_group + (21 + 19) * per_neuron
    prune_layers(encoder, [0, 2])
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert loaded.shape.layers == (SHAPES[0], SHAPES[2])
    assert [v.shape for v in views(loaded)] == [SHAPES[0], SHAPES[2]]
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def test_pruned_decoders_are_exported(encoder: TextEncoder, tmp_path: Path) -> None:
    prune_widths(encoder, KEEP)
    export_text(encoder, tmp_path / "text.onnx")
    (tmp_path / "tokenizer.json").write_text(encoder.tokenizer.to_str(), "utf-8")
    found = text_parity(encoder, tmp_path / "text.onnx", tmp_path / "tokenizer.json", [*TEXTS, ""], exact=True)
    assert found["relative_difference"] < 1e-5


@pytest.mark.parametrize("criterion", [Magnitude(), FirstOrder(), Fisher(), Activation()], ids=lambda c: c.name)
def test_every_criterion_scores_a_group_and_a_neuron(lm_folder: Folder, criterion: Any) -> None:
    encoder = mask_widths(decoder(lm_folder, "llama"), [Width((1,), tuple(range(23)))] * 3)

    def losses() -> Iterable[Tensor]:
        return (encoder(*encoder.tokenize([text]))[:, 0].sum() for text in TEXTS)

    scores = criterion(encoder, losses)
    for heads, neurons in zip(scores.heads, scores.neurons, strict=True):
        assert heads.shape == (2,) and neurons.shape == (24,)
        assert heads[0] == 0.0 and heads[1] > 0
        assert neurons[23] == 0.0 and (neurons[:23] > 0).all()


def test_a_group_is_a_head_of_keys_with_the_query_heads_that_read_it(lm_folder: Folder) -> None:
    encoder = decoder(lm_folder, "llama")
    (view, *_), own = views(encoder), encoder.layers[0].self_attn
    wanted = {
        "query": own.q_proj.weight[16:].clone(),  # heads 2 and 3, of width 8
        "key": own.k_proj.weight[8:].clone(),
        "output": own.o_proj.weight[:, 16:].clone(),
        "gate": encoder.layers[0].mlp.gate_proj.weight[[4]].clone(),
    }
    assert (view.heads, view.shape.heads) == (2, 4)
    prune_widths(encoder, [Width((1,), (4,))] * 3)
    assert torch.equal(own.q_proj.weight, wanted["query"])
    assert torch.equal(own.k_proj.weight, wanted["key"])
    assert torch.equal(own.o_proj.weight, wanted["output"])
    assert torch.equal(encoder.layers[0].mlp.gate_proj.weight, wanted["gate"])


def test_half_a_group_is_no_shape(lm_folder: Folder) -> None:
    encoder = decoder(lm_folder, "llama")
    with pytest.raises(ValueError, match=r"groups of 2 \(got 3\)"):
        LLAMA.resize(encoder.layers[0], encoder.lm.config, BlockShape(heads=3, neurons=4))
