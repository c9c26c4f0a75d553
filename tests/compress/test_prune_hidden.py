"""A narrower hidden width: exact where the states lie in what is kept, smaller everywhere, served like any."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.models.family import FAMILIES
from compress.models.text import TextEncoder
from compress.prune.embedding import factorize_embedding
from compress.prune.hidden import _principal, hidden_width, prune_hidden
from compress.prune.layers import prune_widths
from compress.prune.views import Width
from compress.quantize.equalize import equalized
from compress.quantize.half import Half
from compress.quantize.parity import text_parity
from compress.quantize.parts import TextPart
from compress.quantize.quantizers import Int8Dynamic, TextQuantizer
from compress.quantize.static import Int8Smooth
from compress.quantize.text_graph import export_text
from compress.quantize.weight_only import Int8WeightOnly
from compress.teacher.backbone import load_backbone

Folder = Callable[..., Path]
TEXTS = ["the silent river", "golden", "a burning mirror, frozen summer", "霸王别姬 (1993)"]
BOTH = pytest.mark.parametrize("name", ["bert", "llama"])


def some_encoder(lm_folder: Folder, name: str, head: bool = True) -> TextEncoder:
    """Hidden width 16, four heads; gains and offsets far from 1 and 0."""
    encoder = load_backbone(lm_folder(name), 32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    if head:
        torch.manual_seed(1)
        encoder.head = nn.Linear(16, 5, bias=False)
    return encoder.eval()


@torch.no_grad()
def doubled(encoder: TextEncoder) -> TextEncoder:
    """Everything that writes states writes each half of them alike: they lie in a subspace of half the width."""
    for name, parameter in encoder.lm.named_parameters():
        writes = ("o_proj", "down_proj", "output.dense", "norm", "LayerNorm")
        if "embed" in name and parameter.ndim == 2:
            parameter[:, 8:] = parameter[:, :8]
        elif any(part in name for part in writes) and parameter.shape[0] == 16:
            parameter[8:] = parameter[:8]
    return encoder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_rotation_alone_changes_nothing(lm_folder: Folder, name: str) -> None:
    encoder = some_encoder(lm_folder, name)
    before = encoder.encode(TEXTS)
    assert prune_hidden(encoder, 16, encoder.tokenize(TEXTS)) == 0.0
    np.testing.assert_allclose(encoder.encode(TEXTS), before, atol=5e-6)


def test_one_direction_less_is_exact_after_layer_norm_and_not_without(lm_folder: Folder) -> None:
    for name, exact in (("bert", True), ("llama", False)):
        encoder = some_encoder(lm_folder, name)
        before = encoder.encode(TEXTS)
        lost = prune_hidden(encoder, 15, encoder.tokenize(TEXTS))
        assert np.allclose(encoder.encode(TEXTS), before, atol=5e-6) is exact
        assert (lost < 1e-12) is exact


@BOTH
def test_states_in_a_subspace_are_kept_exactly(lm_folder: Folder, name: str) -> None:
    """Of texts that calibration did not see too."""
    encoder = doubled(some_encoder(lm_folder, name))
    unseen = ["some other words", "QRZ 42"]
    before = encoder.encode([*TEXTS, *unseen])
    assert prune_hidden(encoder, 8, encoder.tokenize(TEXTS)) < 1e-12
    assert encoder.hidden_size == 8
    np.testing.assert_allclose(encoder.encode([*TEXTS, *unseen]), before, atol=1e-5)


@BOTH
def test_every_shape_follows_and_round_trips(lm_folder: Folder, name: str, tmp_path: Path) -> None:
    encoder = some_encoder(lm_folder, name)
    prune_widths(encoder, [Width((1,), tuple(range(6)))] * 3)
    width = hidden_width(encoder, 0.5)
    lost = prune_hidden(encoder, width, encoder.tokenize(TEXTS))
    assert (width, encoder.hidden_size, encoder.lm.config.hidden_size) == (8, 8, 8)
    assert 0 < lost < 1
    inner = 4 if name == "bert" else 16
    attention = 3 * (8 * 4 + 4) + 4 * 8 + 8 if name == "bert" else 8 * (16 + 8 + 8) + 16 * 8
    neurons = 2 * 8 * 6 + 6 + 8 if name == "bert" else 3 * 8 * 6
    residuals = 2 * (8 * 8 + 8) if name == "bert" else 0
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in encoder.layers]
    assert sizes == [attention + neurons + residuals + 2 * 8] * 3
    assert encoder.family.projections(encoder.layers[0])[0].out_features == inner
    assert (encoder.head.in_features, encoder.dim) == (8, 5)
    ids, mask = encoder.tokenize(TEXTS[:1])  # alone: causal models and padding see the same
    own = encoder.lm(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(own, encoder.upper(encoder.lower(ids, mask, 0), mask, 0), atol=1e-5, rtol=1e-4)
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert loaded.shape == encoder.shape
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    loaded.save(tmp_path / "again")
    for file in sorted(path.name for path in (tmp_path / "text").iterdir()):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "text" / file).read_bytes()


@BOTH
def test_the_same_twice(lm_folder: Folder, name: str) -> None:
    one, two = (some_encoder(lm_folder, name) for _ in range(2))
    for encoder in (one, two):
        prune_hidden(encoder, 12, encoder.tokenize(TEXTS))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@BOTH
def test_more_width_keeps_more(lm_folder: Folder, name: str) -> None:
    found = []
    for width in (4, 8, 12):
        encoder = some_encoder(lm_folder, name)
        before = encoder.encode(TEXTS)
        found.append((prune_hidden(encoder, width, encoder.tokenize(TEXTS)), encoder.encode(TEXTS) - before))
    lost, errors = [share for share, _ in found], [float(np.square(error).mean()) for _, error in found]
    assert lost == sorted(lost, reverse=True)
    assert errors[2] < errors[0]


@BOTH
def test_without_a_head_the_vectors_keep_their_width(lm_folder: Folder, name: str) -> None:
    encoder = doubled(some_encoder(lm_folder, name, head=False))
    before = encoder.encode(TEXTS)
    prune_hidden(encoder, 8, encoder.tokenize(TEXTS))
    assert encoder.dim == 16
    np.testing.assert_allclose(encoder.encode(TEXTS), before, atol=1e-5)


@BOTH
@pytest.mark.parametrize("quantizer", [Int8Dynamic(), Int8WeightOnly(), Int8Smooth(), Half()], ids=lambda q: q.name)
def test_graphs_of_cut_encoders_with_factors(
    lm_folder: Folder, name: str, quantizer: TextQuantizer, tmp_path: Path
) -> None:
    encoder = some_encoder(lm_folder, name)
    prune_hidden(encoder, 12, encoder.tokenize(TEXTS))
    factorize_embedding(encoder, 8, encoder.tokenize(TEXTS))
    export_text(encoder, tmp_path / "text.fp32.onnx")
    (tmp_path / "tokenizer.json").write_text(encoder.tokenizer.to_str(), "utf-8")
    many = [f"{a} {b}" for a in TEXTS for b in TEXTS]
    quantizer.text(TextPart(encoder, tmp_path / "text.fp32.onnx", many), tmp_path / "small.onnx")
    for graph, exact in (("text.fp32.onnx", True), ("small.onnx", False)):
        found = text_parity(encoder, tmp_path / graph, tmp_path / "tokenizer.json", many, exact=exact)
        assert found["relative_difference"] < 1e-5 if exact else found["centred_cosine"] > 0.95


@BOTH
def test_equalization_keeps_the_answers_of_a_cut_encoder(lm_folder: Folder, name: str) -> None:
    encoder = some_encoder(lm_folder, name)
    prune_hidden(encoder, 12, encoder.tokenize(TEXTS))
    np.testing.assert_allclose(equalized(encoder, TEXTS, 0.5).encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


def test_principal_directions_by_hand() -> None:
    kept, lost = _principal(torch.diag(torch.tensor([1.0, 4.0, 5.0], dtype=torch.float64)), 2)
    plane = torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(kept @ kept.T, plane)
    torch.testing.assert_close(kept.T @ kept, torch.eye(2, dtype=torch.float64))
    assert lost == pytest.approx(0.1)


def test_widths_are_multiples_of_the_heads(lm_folder: Folder) -> None:
    encoder = some_encoder(lm_folder, "bert")
    assert [hidden_width(encoder, share) for share in (0.01, 0.3, 0.5, 0.7, 0.9, 1.0)] == [4, 4, 8, 12, 16, 16]


def test_what_cannot_be_cut_is_refused(lm_folder: Folder) -> None:
    encoder = some_encoder(lm_folder, "bert")
    tokens = encoder.tokenize(TEXTS)
    for width in (0, 17):
        with pytest.raises(ValueError, match=rf"at least 1 and at most 16 \(got {width}\)"):
            prune_hidden(encoder, width, tokens)
    prune_hidden(encoder, 8, tokens)
    with pytest.raises(ValueError, match="was cut before"):
        prune_hidden(encoder, 4, tokens)
    with pytest.raises(ValueError, match="before its hidden width is cut"):
        encoder.keep_layers([1, 2])
    encoder.keep_layers([0, 1])
    assert len(encoder.layers) == 2
