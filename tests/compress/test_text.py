"""The text encoder: the LM's own numbers, cut anywhere, pooled over tokens alone, the same after a round trip."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.models.family import additive
from compress.models.text import TextEncoder
from compress.models.tokens import batches
from compress.teacher.backbone import RandomBert, load_backbone
from deploy.errors import UsageError

TEXTS = ["the silent river", "golden", "a burning mirror, frozen summer; the gentle stranger", "empire"]


def text_encoder(dim: int | None = None, max_tokens: int = 16) -> TextEncoder:
    encoder = RandomBert(layers=3, hidden=12, heads=4, neurons=16)(TEXTS, max_tokens, 1)
    with torch.no_grad():
        for parameter in encoder.lm.encoder.parameters():
            parameter.normal_(std=0.4)
    if dim is not None:
        encoder.head = nn.Linear(12, dim, bias=False)
    return encoder


@torch.no_grad()
def test_forward_is_the_masked_mean_of_the_lms_own_last_layer() -> None:
    encoder = text_encoder()
    ids, mask = encoder.tokenize(TEXTS)
    hidden = encoder.lm(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = torch.stack([row[: int(m.sum())].mean(0) for row, m in zip(hidden, mask, strict=True)])
    torch.testing.assert_close(encoder(ids, mask), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 1, 2, 3])
@torch.no_grad()
def test_lower_then_upper_is_the_whole_model_wherever_it_is_cut(first: int) -> None:
    encoder = text_encoder(dim=5)
    ids, mask = encoder.tokenize(TEXTS)
    lower = encoder.lower(ids, mask, first)
    torch.testing.assert_close(encoder.head(encoder.pooled(lower, mask, first)), encoder(ids, mask), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_text_alone_and_among_longer_ones_has_the_same_vector() -> None:
    encoder = text_encoder(dim=5)
    together = encoder(*encoder.tokenize(TEXTS))
    for text, vector in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(encoder(*encoder.tokenize([text]))[0], vector, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS), together, atol=1e-6)


def test_encode_keeps_order_over_several_batches_and_leaves_dropout_out() -> None:
    encoder = text_encoder(dim=5).train()
    many = [TEXTS[i % 4] for i in range(300)]
    vectors = encoder.encode(many)
    assert vectors.shape == (300, 5)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS)[np.arange(300) % 4], atol=1e-5)


def test_tokenize_pads_on_the_right_and_cuts_at_max_tokens() -> None:
    encoder = text_encoder(max_tokens=5)
    ids, mask = encoder.tokenize(["golden", "the silent river golden empire"])
    assert ids.shape == mask.shape == (2, 5)
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert ids.dtype == mask.dtype == torch.int64
    assert (ids[0, 3:] == encoder.tokenizer.token_to_id("[PAD]")).all()
    assert ids[:, 0].tolist() == [encoder.tokenizer.token_to_id("[CLS]")] * 2
    assert ids[1, 4] == encoder.tokenizer.token_to_id("[SEP]")


def test_additive_mask_by_hand() -> None:
    assert additive(torch.tensor([[1, 0], [1, 1]])).tolist() == [[[[0.0, -1e4]]], [[[0.0, 0.0]]]]


def test_train_layers_frees_the_last_layers_and_the_head() -> None:
    encoder = text_encoder(dim=5)
    assert encoder.train_layers(2) == 1
    free = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert {name.split(".")[3] for name in free if name.startswith("lm.encoder")} == {"1", "2"}
    assert not any(name.startswith("lm.embeddings") for name in free)
    assert "head.weight" in free
    assert encoder.train_layers(0) == 3
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == {"head.weight"}
    assert encoder.train_layers(9) == 0
    assert all(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("dim", [None, 5])
def test_save_and_load_give_the_same_encoder(dim: int | None, tmp_path: Path) -> None:
    encoder = text_encoder(dim)
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert (loaded.dim, loaded.shape, loaded.training) == (dim or 12, encoder.shape, False)
    assert np.array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert [loaded.tokenize(TEXTS)[i].tolist() for i in (0, 1)] == [encoder.tokenize(TEXTS)[i].tolist() for i in (0, 1)]
    loaded.save(tmp_path / "again")
    for file in sorted(p.name for p in (tmp_path / "text").iterdir()):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "text" / file).read_bytes()


def backbone(folder: Path) -> TextEncoder:
    """A folder as Hugging Face's `save_pretrained` leaves it."""
    encoder = text_encoder()
    encoder.lm.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(encoder.tokenizer.to_str())
    return encoder


def test_a_hugging_face_folder_is_read_as_it_is(tmp_path: Path) -> None:
    encoder = backbone(tmp_path)
    read = load_backbone(tmp_path, 16)
    np.testing.assert_allclose(read.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    assert read.shape == encoder.shape
    assert load_backbone(tmp_path, 4).tokenize(TEXTS)[0].shape == (4, 4)


def test_the_same_model_read_elsewhere_has_the_same_bytes(tmp_path: Path) -> None:
    """Keys of artifacts are digests of content: where a model lay must not be in it."""
    for place in ("here", "there"):
        backbone(tmp_path / place)
        load_backbone(tmp_path / place, 16).save(tmp_path / f"saved {place}")
    for file in (tmp_path / "saved here").iterdir():
        assert file.read_bytes() == (tmp_path / "saved there" / file.name).read_bytes()


def test_other_families_and_absent_folders_are_a_users_mistake(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"^pretrain.backbone: cannot load .*empty"):
        load_backbone(empty, 16)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UsageError, match=r"xlm-roberta, llama, .*smollm3 \(got 'gpt2'"):
        load_backbone(tmp_path, 16)


def test_batches_cover_everything_once() -> None:
    assert list(batches(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(batches(0, 3)) == []
