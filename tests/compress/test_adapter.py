"""LoRA adapters merged at load: what peft itself would give, and mistakes by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel

from compress.teacher.adapter import WEIGHTS, merge_adapter
from compress.teacher.backbone import Pretrained
from deploy.errors import UsageError

# peft asks transformers for an attribute that has a new name
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=16,
)


def bare(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(CONFIG, add_pooling_layer=False).eval()


def adapter(folder: Path, model: Any, **config: Any) -> Any:
    """A saved adapter with random weights; returns peft's own merged model."""
    torch.manual_seed(1)
    settings = {"r": 3, "lora_alpha": 5.0, "target_modules": ["query", "dense"], **config}
    adapted = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}])
def test_merged_is_what_peft_merges(config: dict[str, Any], tmp_path: Path) -> None:
    theirs = adapter(tmp_path, bare(), **config)
    ours, before = bare(), bare()
    assert merge_adapter(ours, tmp_path) == 2 * (1 + 3)  # query, and the three maps called dense
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    ids = torch.arange(8)[None]
    assert not torch.allclose(ours(ids).last_hidden_state, before(ids).last_hidden_state)


def test_an_adapter_of_a_model_with_a_head_fits_the_bare_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = BertForMaskedLM(CONFIG)
    ours = BertModel(CONFIG, add_pooling_layer=False)
    ours.load_state_dict(whole.bert.state_dict())
    theirs = adapter(tmp_path, whole, target_modules=["query", "value"])
    assert merge_adapter(ours, tmp_path) == 4
    torch.testing.assert_close(ours.state_dict(), theirs.bert.state_dict())


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return apply


def with_tensor(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        first = next(key for key in tensors if key.endswith("lora_A.weight")) if name == "first" else name
        save_file({**tensors, first: tensor}, folder / WEIGHTS)

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), r"adapter_model.safetensors is missing"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 64), r"not a readable safetensors file"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), r"adapter_config.json: not JSON"),
        (changed(lambda c: c.update(peft_type="IA3")), r"peft_type: .*only plain LoRA is merged \(got 'IA3'\)"),
        (changed(lambda c: c.update(use_dora=True)), r"use_dora: .*only plain LoRA"),
        (changed(lambda c: c.update(modules_to_save=["embeddings"])), r"modules_to_save: .*only plain LoRA"),
        (changed(lambda c: c.update(r=4)), r"shapes .* expected \(got \(\(3, 16\), \(16, 3\)\)\)"),
        (with_tensor("first", torch.full((3, 16), torch.nan)), r"weights are finite"),
        (with_tensor("x.lora_A.weight", torch.ones(3, 16)), r"has no such linear map \(got 'x'\)"),
        (with_tensor("x.bias", torch.ones(3)), r"pairs of lora_A and lora_B are expected \(got 'x.bias'\)"),
    ],
)
def test_mistakes(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    adapter(tmp_path, bare(), target_modules=["query"])
    spoil(tmp_path)
    with pytest.raises(UsageError, match=message):
        merge_adapter(bare(), tmp_path)


def test_a_backbone_names_its_adapter_and_the_key_knows_its_bytes(tmp_path: Path) -> None:
    adapter(tmp_path, bare(), target_modules=["query"])
    (tmp_path / "base").mkdir()
    backbone = Pretrained(model=str(tmp_path / "base"), adapter=str(tmp_path))
    before = backbone.digests()
    with_tensor("first", torch.ones(3, 16))(tmp_path)
    after = backbone.digests()
    assert before.keys() == after.keys() and {n for n in before if before[n] != after[n]} == {f"adapter/{WEIGHTS}"}
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(UsageError, match=r"pretrain.backbone.adapter: a folder with .* is missing"):
        backbone.digests()
