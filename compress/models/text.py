"""Item texts -> item vectors: a Hugging Face encoder of the BERT family, mean pooling and a linear head."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from compress.models.sequence import BlockShape
from deploy.errors import UsageError

FAMILIES = ("bert", "camembert", "roberta", "xlm-roberta")
"""`model_type`s whose layers are laid out as BERT's, so that they can be split, sliced and exported here."""


class TextShape(BaseModel):
    """What pruning left of the LM: heads and neurons of each kept layer, and the longest text in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    layers: tuple[BlockShape, ...]
    max_tokens: int


class TextEncoder(nn.Module):
    """LM -> mean over tokens -> linear head. `head` is the identity while there is no recommender to project for."""

    def __init__(self, lm: Any, tokenizer: Tokenizer, shape: TextShape, dim: int | None) -> None:
        super().__init__()
        self.lm, self.tokenizer, self.shape = lm, tokenizer, shape
        self.head: nn.Module = nn.Identity() if dim is None else nn.Linear(self.hidden_size, dim, bias=False)

    @property
    def hidden_size(self) -> int:
        return int(self.lm.config.hidden_size)

    @property
    def dim(self) -> int:
        return self.head.out_features if isinstance(self.head, nn.Linear) else self.hidden_size

    @property
    def layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.lm.encoder.layer
        return layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask (batch, tokens) int64 -> item vectors (batch, dim)."""
        hidden: Tensor = self.lm.embeddings(input_ids=input_ids)
        vectors: Tensor = self.head(self.pooled(hidden, attention_mask, 0))
        return vectors

    def lower(self, input_ids: Tensor, attention_mask: Tensor, first: int) -> Tensor:
        """Hidden states (batch, tokens, hidden) that enter layer `first`; what frozen layers compute once."""
        hidden: Tensor = self.lm.embeddings(input_ids=input_ids)
        for layer in self.layers[:first]:
            hidden = layer(hidden, additive(attention_mask))
        return hidden

    def upper(self, hidden: Tensor, attention_mask: Tensor, first: int) -> Tensor:
        """Hidden states entering layer `first` -> those of the last layer, (batch, tokens, hidden)."""
        for layer in self.layers[first:]:
            hidden = layer(hidden, additive(attention_mask))
        return hidden

    def pooled(self, hidden: Tensor, attention_mask: Tensor, first: int) -> Tensor:
        """Hidden states entering layer `first` -> mean over the tokens of the last layer, (batch, hidden)."""
        weights = attention_mask.to(hidden.dtype)[:, :, None]
        return (self.upper(hidden, attention_mask, first) * weights).sum(1) / weights.sum(1).clamp(min=1.0)

    def train_layers(self, trained: int) -> int:
        """Freeze all but the head and the last `trained` layers; returns the first layer that is trained."""
        first = max(0, len(self.layers) - trained)
        for name, parameter in self.lm.named_parameters():
            parameter.requires_grad_(False)
            if name.startswith("encoder.layer."):
                parameter.requires_grad_(int(name.split(".")[2]) >= first)
        if first == 0:
            for parameter in self.lm.embeddings.parameters():
                parameter.requires_grad_(True)
        return first

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts -> input_ids, attention_mask (len(texts), longest) int64, padded on the right, cut at max_tokens."""
        encoded = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([e.ids for e in encoded], dtype=torch.int64)
        mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.int64)
        return ids, mask

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts -> item vectors (len(texts), dim) float32, without dropout and in bounded memory."""
        self.eval()
        device = next(self.parameters()).device
        vectors = np.zeros((len(texts), self.dim), np.float32)
        ids, mask = self.tokenize(texts)
        for index in by_length(mask):
            used = int(mask[index].sum(1).max())
            vectors[index.numpy()] = self(ids[index, :used].to(device), mask[index, :used].to(device)).float().cpu()
        return vectors

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.lm.config.to_dict(), indent=1, sort_keys=True) + "\n")
        (folder / "shapes.json").write_text(self.shape.model_dump_json(indent=1) + "\n")
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str())
        save_file(_tensors(self.lm), folder / "model.safetensors")
        if isinstance(self.head, nn.Linear):
            save_file(_tensors(self.head), folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "TextEncoder":
        """Read a `text/` part. The LM is built in its pruned shape, then filled."""
        shape = TextShape.model_validate_json((folder / "shapes.json").read_text())
        config = AutoConfig.for_model(**json.loads((folder / "config.json").read_text()))
        config.num_hidden_layers = len(shape.layers)
        lm = AutoModel.from_config(config, attn_implementation="eager", **_without_pooler(config))  # type: ignore[no-untyped-call]
        for layer, block in zip(lm.encoder.layer, shape.layers, strict=True):
            resize_layer(layer, config.hidden_size, block)
        lm.load_state_dict(load_file(folder / "model.safetensors"))
        encoder = cls(lm, Tokenizer.from_file(str(folder / "tokenizer.json")), shape, None)
        if (folder / "head.safetensors").exists():
            head = load_file(folder / "head.safetensors")
            encoder.head = nn.Linear(encoder.hidden_size, head["weight"].shape[0], bias=False)
            encoder.head.load_state_dict(head)
        return encoder.eval()

    @classmethod
    def from_backbone(cls, folder: str | Path, max_tokens: int) -> "TextEncoder":
        """A pretrained encoder by folder or hub name. Raises UsageError where it is absent or of another family."""
        try:
            config = AutoConfig.from_pretrained(folder)
            if config.model_type not in FAMILIES:
                raise UsageError(
                    f"pretrain.backbone: only encoders of the BERT family are supported: {', '.join(FAMILIES)}"
                    f" (got {config.model_type!r} in {folder})"
                )
            lm = AutoModel.from_pretrained(folder, attn_implementation="eager", **_without_pooler(config))
            tokenizer = _fast_tokenizer(folder)
        except (OSError, ValueError) as error:
            raise UsageError(f"pretrain.backbone: cannot load {str(folder)!r}: {str(error).splitlines()[0]}") from error
        return cls(lm.float(), bounded(tokenizer, config, max_tokens), _shape_of(config, max_tokens), None).eval()


def additive(attention_mask: Tensor) -> Tensor:
    """(batch, tokens) of 0/1 -> (batch, 1, 1, tokens), 0 for a token and -1e4 for padding."""
    return (1.0 - attention_mask[:, None, None, :].float()) * -1e4


def resize_layer(layer: Any, hidden: int, block: BlockShape) -> None:
    """Give one BERT layer fresh linear maps of the pruned widths; the width of a head stays."""
    attention = layer.attention.self
    inner = block.heads * attention.attention_head_size
    for name in ("query", "key", "value"):
        setattr(attention, name, nn.Linear(hidden, inner))
    layer.attention.output.dense = nn.Linear(inner, hidden)
    layer.intermediate.dense = nn.Linear(hidden, block.neurons)
    layer.output.dense = nn.Linear(block.neurons, hidden)
    attention.num_attention_heads, attention.all_head_size = block.heads, inner


def bounded(tokenizer: Tokenizer, config: Any, max_tokens: int) -> Tokenizer:
    """Cut at max_tokens and pad each batch to its longest text with the model's own padding token."""
    pad = int(config.pad_token_id or 0)
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad))
    return tokenizer


def by_length(mask: Tensor, size: int = 128) -> Iterator[Tensor]:
    """Indices of texts in batches of like length, so that little of the work is padding. mask: (texts, tokens)."""
    return iter(torch.split(mask.sum(1).argsort(stable=True), size))


def batches(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _shape_of(config: Any, max_tokens: int) -> TextShape:
    block = BlockShape(heads=config.num_attention_heads, neurons=config.intermediate_size)
    return TextShape(layers=(block,) * config.num_hidden_layers, max_tokens=max_tokens)


def _without_pooler(config: Any) -> dict[str, bool]:
    return {"add_pooling_layer": False} if config.model_type in FAMILIES else {}


def _fast_tokenizer(folder: str | Path) -> Tokenizer:
    file = Path(folder) / "tokenizer.json"
    if file.exists():
        return Tokenizer.from_file(str(file))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise UsageError(f"pretrain.backbone: needs a fast tokenizer (tokenizer.json) (got {folder})")
    return tokenizer.backend_tokenizer


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().cpu() for name, tensor in module.state_dict().items()}
