"""Encoders and decoders of every family: the LM's own numbers wherever they are cut, pooled, saved and exported."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from compress.data.dataset import Dataset
from compress.distil.distil import DistilConfig, cut_layers, distil
from compress.models.family import FAMILIES, future
from compress.models.folder import load_text, read_json
from compress.models.sequence import BlockShape
from compress.models.text import TextEncoder
from compress.models.tokens import ended
from compress.prune.prune import PruneConfig, prune
from compress.quantize import text_graph
from compress.quantize.parity import text_parity
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.quantize.text_graph import export_text
from compress.teacher.backbone import Pretrained, load_backbone
from compress.teacher.pretrain import PretrainConfig, backbone_digests, pretrain
from compress.teacher.transfer import TargetConfig, train_target
from deploy.errors import UsageError
from deploy.text import TextEncoder as GraphTextEncoder

Run = Callable[..., Path]
Folder = Callable[..., Path]
ENCODERS = sorted(name for name, family in FAMILIES.items() if not family.causal)
DECODERS = sorted(name for name, family in FAMILIES.items() if family.causal)
TEXTS = ["the silent river", "golden", "a burning mirror, frozen summer", "霸王别姬 (1993)"]


@pytest.fixture(scope="module")
def folders(lm_folder: Folder) -> dict[str, Path]:
    return {name: lm_folder(name) for name in FAMILIES}


@pytest.fixture
def llama(folders: dict[str, Path]) -> TextEncoder:
    return load_backbone(folders["llama"], 32)


def own_states(folder: Path, encoder: TextEncoder, text: str) -> torch.Tensor:
    """The last hidden states that Hugging Face's own forward gives for one text, (tokens, hidden)."""
    lm = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    states: torch.Tensor = lm(input_ids=encoder.tokenize([text])[0]).last_hidden_state[0]
    return states


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_lms_own_last_states_wherever_it_is_cut(folders: dict[str, Path], name: str) -> None:
    encoder = load_backbone(folders[name], 32)
    ids, mask = encoder.tokenize(TEXTS)
    expected = [own_states(folders[name], encoder, text) for text in TEXTS]
    for first in range(4):
        states = encoder.upper(encoder.lower(ids, mask, first), mask, first)
        for row, kept, own in zip(states, mask, expected, strict=True):
            torch.testing.assert_close(row[: int(kept.sum())], own, atol=2e-5, rtol=1e-4)
    vectors = torch.stack([own.mean(0) for own in expected])
    torch.testing.assert_close(encoder(ids, mask), vectors, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "bert"])
@torch.no_grad()
def test_last_pooling_takes_the_last_tokens_state_whatever_padding_follows(folders: dict[str, Path], name: str) -> None:
    encoder = load_backbone(folders[name], 32, "last")
    vectors = encoder(*encoder.tokenize(TEXTS))
    for text, vector in zip(TEXTS, vectors, strict=True):
        torch.testing.assert_close(vector, own_states(folders[name], encoder, text)[-1], atol=2e-5, rtol=1e-4)


def test_mask_of_the_future_by_hand() -> None:
    assert future(torch.arange(3)[None]).tolist() == [[[[0, -1e4, -1e4], [0, 0, -1e4], [0, 0, 0]]]]


@torch.no_grad()
def test_a_decoders_tokens_see_none_that_follow(llama: TextEncoder) -> None:
    ids, mask = llama.tokenize(["abcdef", "abcxyz"])
    one, two = llama.upper(llama.lower(ids, mask, 1), mask, 1)
    assert torch.equal(one[:3], two[:3])
    assert not torch.allclose(one[3:], two[3:])


def test_a_text_without_tokens_of_its_own_ends_with_the_end_token(llama: TextEncoder) -> None:
    ids, mask = llama.tokenize(["", "ab"])
    assert ids[0, 0] == 0 and ids[1, 2] == 0
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert llama.tokenize(["x" * 99])[0][0, -3:].tolist() == [*llama.tokenize(["xx"])[0][0].tolist()]
    vectors = llama.encode(["", "ab"])
    assert np.isfinite(vectors).all() and vectors[0].any()


def test_a_tokenizer_that_frames_texts_is_left_as_it_is(byte_tokenizer: Callable[[], Tokenizer]) -> None:
    config = SimpleNamespace(eos_token_id=[0, 7])  # several, as Llama 3 names them: the first ends a text
    framed = ended(byte_tokenizer(), config)
    assert framed.encode("a").tokens == ["a", "<|end|>"]
    assert ended(framed, config).encode("a").tokens == ["a", "<|end|>"]


def test_train_layers_of_a_decoder_frees_the_last_layers_and_the_last_norm(llama: TextEncoder) -> None:
    assert llama.train_layers(2) == 1
    free = {name.removeprefix("lm.") for name, p in llama.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in free if name.startswith("layers.")} == {"1", "2"}
    assert {name for name in free if not name.startswith("layers.")} == {"norm.weight"}
    assert llama.train_layers(0) == 3
    assert not any(p.requires_grad for p in llama.parameters())
    assert llama.train_layers(9) == 0
    assert all(p.requires_grad for p in llama.parameters())


@pytest.mark.parametrize("name", DECODERS)
def test_save_load_and_dropped_layers(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    encoder = load_backbone(folders[name], 32, "last")
    whole = encoder.encode(TEXTS)
    encoder.save(tmp_path / "whole")
    assert str(folders[name]) not in (tmp_path / "whole" / "config.json").read_text()
    np.testing.assert_array_equal(TextEncoder.load(tmp_path / "whole").encode(TEXTS), whole)
    cut = cut_layers(encoder, 2)
    short = cut.encode(TEXTS)
    assert np.abs(short - whole).max() > 0.01
    cut.save(tmp_path / "cut")
    loaded = TextEncoder.load(tmp_path / "cut")
    assert (len(loaded.layers), len(loaded.shape.layers), loaded.lm.config.num_hidden_layers) == (2, 2, 2)
    np.testing.assert_array_equal(loaded.encode(TEXTS), short)


def test_per_layer_settings_go_with_their_layers(lm_folder: Folder) -> None:
    encoder = load_backbone(lm_folder("smollm3", no_rope_layers=[1, 0, 1]), 32)
    with torch.no_grad():
        ids, mask = encoder.tokenize(TEXTS)
        expected = encoder.family.run(encoder.lm, encoder.layers[1:], encoder.family.embed(encoder.lm, ids), mask)
        encoder.keep_layers([1, 2])
        assert encoder.lm.config.no_rope_layers == [0, 1]
        assert torch.equal(encoder.lower(ids, mask, 2), expected)


@pytest.mark.parametrize(("name", "pooling"), [("llama", "last"), ("smollm3", "mean")])
def test_exported_decoders_keep_their_vectors(
    folders: dict[str, Path], name: str, pooling: Any, tmp_path: Path
) -> None:
    encoder = load_backbone(folders[name], 16, pooling)
    encoder.head = torch.nn.Linear(16, 5, bias=False)
    export_text(encoder, tmp_path / "text.onnx")
    (tmp_path / "tokenizer.json").write_text(encoder.tokenizer.to_str(), "utf-8")
    texts = [*TEXTS, "", "longer than sixteen bytes, so that it is cut"]
    found = text_parity(encoder, tmp_path / "text.onnx", tmp_path / "tokenizer.json", texts, exact=True)
    assert found["relative_difference"] < 1e-5


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_half_precision_checkpoints_become_fp32_and_stay_so(lm_folder: Folder, name: str, tmp_path: Path) -> None:
    folder = lm_folder(name)
    AutoModel.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    encoder = load_backbone(folder, 16)
    with torch.no_grad():
        next(encoder.layers.parameters()).add_(1e-4)
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert {p.dtype for p in [*encoder.parameters(), *loaded.parameters()]} == {torch.float32}
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


# users' mistakes


def test_a_graph_beyond_the_format_is_told_before_it_is_written(
    llama: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_graph, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match=r"^quantize: .* drop layers by distil\.student\.layers"):
        export_text(llama, tmp_path / "text.onnx")
    assert not (tmp_path / "text.onnx").exists()


@pytest.mark.parametrize(("name", "most"), [("bert", 132), ("roberta", 131), ("llama", 132)])
def test_no_more_tokens_than_positions(folders: dict[str, Path], name: str, most: int) -> None:
    encoder = load_backbone(folders[name], most)
    assert np.isfinite(encoder.encode(["x" * 200])).all()
    with pytest.raises(UsageError, match=rf"^pretrain\.max_tokens: .* at most {most} tokens \(got {most + 1}\)"):
        load_backbone(folders[name], most + 1)


def test_no_more_tokens_than_an_attention_window(lm_folder: Folder) -> None:
    with pytest.raises(UsageError, match=r"at most 8 tokens \(got 9\)"):
        load_backbone(lm_folder("mistral", sliding_window=8), 9)


def test_damaged_folders_are_a_users_mistake(lm_folder: Folder) -> None:
    folder = lm_folder("llama")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"^pretrain\.backbone: cannot load .*: tokenizer\.json: "):
        load_backbone(folder, 8)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UsageError, match=r"^pretrain\.backbone: cannot load "):
        load_backbone(folder, 8)


def test_weights_are_never_unpickled(lm_folder: Folder) -> None:
    folder = lm_folder("llama")
    torch.save(AutoModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"^pretrain\.backbone: cannot load .*safetensors"):
        load_backbone(folder, 8)


@pytest.mark.parametrize(
    ("name", "objective", "says"),
    [("llama", "masked_lm", "is a decoder.*use causal_lm"), ("bert", "causal_lm", "is an encoder.*use masked_lm")],
)
def test_a_wrong_pairing_is_told_before_any_work(
    folders: dict[str, Path], name: str, objective: str, says: str
) -> None:
    config = PretrainConfig.model_validate({"backbone": str(folders[name]), "objective": objective})
    with pytest.raises(UsageError, match=rf"^pretrain\.objective: the backbone {says} or none \(got '{objective}'\)$"):
        backbone_digests(config)
    backbone_digests(config.model_copy(update={"objective": PretrainConfig.model_validate("none").objective}))


def test_every_file_that_is_read_is_in_the_key(lm_folder: Folder) -> None:
    folder = lm_folder("llama")
    assert set(Pretrained(model=str(folder)).digests()) == {"config.json", "model.safetensors", "tokenizer.json"}
    AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="10KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    named = set(Pretrained(model=str(folder)).digests())
    shards = set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())
    assert len(shards) > 1
    assert named == {"config.json", "tokenizer.json", "model.safetensors.index.json"} | shards
    load_backbone(folder, 8)


# through the stages


def test_a_decoder_teaches_and_its_first_layers_serve(
    build: Run, film_data: Path, film_dataset: Dataset, folders: dict[str, Path]
) -> None:
    settings = {"backbone": {"name": "pretrained", "model": str(folders["qwen3"]), "pooling": "last"}, "max_tokens": 24}
    objective = {"name": "causal_lm", "epochs": 1}
    learned = build(pretrain, PretrainConfig.model_validate({**settings, "objective": objective}), data=film_data)
    method = {"name": "two_level", "dim": 8, "heads": 2, "neurons": 16, "max_history": 6, "tuning": "lora"}
    config = TargetConfig.model_validate({"method": {**method, "training": {"epochs": 2}}, "cached_scores": 5})
    teacher = build(train_target, config, data=film_data, source=learned)
    student = DistilConfig.model_validate({"student": {"name": "text", "layers": 2, "training": {"epochs": 1}}})
    distilled = build(distil, student, data=film_data, mix=teacher)
    for folder, layers in ((teacher, 3), (distilled, 2)):
        graphs = build(quantize, QuantizeConfig(history=(), text=()), data=film_data, prune=folder)
        encoder = load_text(folder)
        assert encoder is not None and len(encoder.layers) == layers and encoder.shape.pooling == "last"
        named = read_json(graphs / "candidate.json")["graphs"]
        assert named["text"] == {"fp32": "text.fp32.onnx"}
        served = GraphTextEncoder(graphs / "text.fp32.onnx", graphs / "tokenizer.json", 24).encode(film_dataset.texts)
        np.testing.assert_allclose(served, encoder.encode(film_dataset.texts), atol=1e-4)
    cut = {"name": "structured", "keep_layers": 1, "keep_hidden": 0.5, "embedding_rank": 4, "recovery": {"epochs": 1}}
    structured = PruneConfig.model_validate({"text": {**cut, "layers_by": "block_influence"}})
    pruned = load_text(build(prune, structured, data=film_data, mix=teacher, distil=distilled))
    assert pruned is not None and pruned.dim == 8 and pruned.hidden_size == 8
    assert pruned.shape.layers == (BlockShape(heads=2, neurons=12),)
    assert pruned.word_table.weight.shape == (pruned.tokenizer.get_vocab_size(), 4)
