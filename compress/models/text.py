"""Item texts -> item vectors: a Hugging Face encoder or decoder, pooling over tokens and a linear head."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from compress.models.embedding import FactorizedEmbedding
from compress.models.encoder import ItemEncoder
from compress.models.family import FAMILIES, Family
from compress.models.recompute import Recomputed
from compress.models.rotated import rotated_layout
from compress.models.sequence import BlockShape

Pooling = Literal["mean", "last"]


class TextShape(BaseModel):
    """What pruning left of the LM: heads and neurons of each kept layer, the longest text in tokens, and how the
    tokens' states become one vector: their mean, or the last token's (which in a decoder has seen all others).

    `rotated`: the hidden states of a BERT-like encoder were cut (`rotated.py`); `embedding_rank`: the width of the word
    embeddings' rows where they are in two factors. All other widths are those of the LM's own config.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    layers: tuple[BlockShape, ...]
    max_tokens: int
    pooling: Pooling = "mean"
    rotated: bool = False
    embedding_rank: PositiveInt | None = None


class TextEncoder(ItemEncoder):
    """LM -> pooling -> linear head. `head` is the identity while there is no recommender to project for."""

    def __init__(self, lm: Any, tokenizer: Tokenizer, shape: TextShape, dim: int | None) -> None:
        super().__init__()
        self.lm, self.tokenizer, self.shape = lm, tokenizer, shape
        self.gradient_checkpointing = False  # less memory in training, for one more forward pass of the trained layers
        self.head: nn.Module = nn.Identity() if dim is None else nn.Linear(self.hidden_size, dim, bias=False)

    @property
    def family(self) -> Family:
        return FAMILIES[self.lm.config.model_type]

    @property
    def hidden_size(self) -> int:
        return int(self.lm.config.hidden_size)

    @property
    def dim(self) -> int:
        return self.head.out_features if isinstance(self.head, nn.Linear) else self.hidden_size

    @property
    def max_tokens(self) -> int:
        return self.shape.max_tokens

    @property
    def layers(self) -> nn.ModuleList:
        return self.family.layers(self.lm)

    @property
    def words(self) -> nn.Embedding | FactorizedEmbedding:
        """The word embeddings, in one table or in two factors."""
        words: nn.Embedding | FactorizedEmbedding = self.lm.get_input_embeddings()
        return words

    @property
    def word_table(self) -> nn.Embedding:
        """The table with a row for each word, whatever widens the rows."""
        words = self.words
        return words.words if isinstance(words, FactorizedEmbedding) else words

    def replace_word_table(self, table: nn.Embedding) -> None:
        words = self.words
        if isinstance(words, FactorizedEmbedding):
            words.words = table
        else:
            self.lm.set_input_embeddings(table)

    def distilled(self) -> list[nn.Parameter]:
        """Layers and head. The word embeddings stay: a cold item's words that no text has must keep meaning what the
        teacher means. Where they are in two factors, the map that widens them learns: it moves all words alike."""
        widen = self.words.widen.parameters() if isinstance(self.words, FactorizedEmbedding) else ()
        return [*self.layers.parameters(), *self.head.parameters(), *widen]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask (batch, tokens) int64 -> item vectors (batch, dim)."""
        hidden = self.family.embed(self.lm, input_ids)
        vectors: Tensor = self.head(self.pooled(hidden, attention_mask, 0))
        return vectors

    def lower(self, input_ids: Tensor, attention_mask: Tensor, first: int) -> Tensor:
        """Hidden states (batch, tokens, hidden) that enter layer `first`; what frozen layers compute once."""
        hidden = self.family.embed(self.lm, input_ids)
        return self.family.run(self.lm, self.layers[:first], hidden, attention_mask)

    def upper(self, hidden: Tensor, attention_mask: Tensor, first: int) -> Tensor:
        """Hidden states entering layer `first` -> the LM's last hidden states, (batch, tokens, hidden)."""
        layers: Iterable[nn.Module] = self.layers[first:]
        if self.gradient_checkpointing and torch.is_grad_enabled():
            layers = [Recomputed(layer) for layer in layers]
        hidden = self.family.run(self.lm, layers, hidden, attention_mask)
        last: Tensor = self.family.after_layers(self.lm)(hidden)
        return last

    def pooled(self, hidden: Tensor, attention_mask: Tensor, first: int) -> Tensor:
        """Hidden states entering layer `first` -> one state per text, (batch, hidden)."""
        weights = attention_mask.to(hidden.dtype)[:, :, None]
        if self.shape.pooling == "last":  # padding is on the right: the last token has none after it
            weights = weights * (1.0 - functional.pad(weights[:, 1:], (0, 0, 0, 1)))
        return (self.upper(hidden, attention_mask, first) * weights).sum(1) / weights.sum(1).clamp(min=1.0)

    def train_layers(self, trained: int) -> int:
        """Freeze all but the head and the last `trained` layers; returns the first layer that is trained."""
        first = max(0, len(self.layers) - trained)
        self.lm.requires_grad_(False)
        self.layers[first:].requires_grad_(True)
        self.family.after_layers(self.lm).requires_grad_(first < len(self.layers))
        if first == 0:
            self.family.embeddings(self.lm).requires_grad_(True)
        return first

    def keep_layers(self, indices: Iterable[int]) -> None:
        """Drop all other layers, in place; the order is the one given. Raises ValueError where each layer of the LM
        works in the directions the one before it was cut to."""
        kept = tuple(indices)
        if self.shape.rotated and kept != tuple(range(len(kept))):
            raise ValueError("an encoder's layers are dropped before its hidden width is cut, not after")
        self.family.replace_layers(self.lm, kept)
        layers = tuple(self.shape.layers[index] for index in kept)
        self.shape = self.shape.model_copy(update={"layers": layers})

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        config = self.lm.config.to_dict()
        config.pop("_name_or_path", None)  # where it was read from: the same model elsewhere has the same bytes
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        (folder / "shapes.json").write_text(self.shape.model_dump_json(indent=1, exclude_defaults=True) + "\n")
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), "utf-8")
        save_file(_tensors(self.lm), folder / "model.safetensors")
        if isinstance(self.head, nn.Linear):
            save_file(_tensors(self.head), folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "TextEncoder":
        """Read a `text/` part. The LM is built in its pruned shape, then filled."""
        shape = TextShape.model_validate_json((folder / "shapes.json").read_text())
        config = AutoConfig.for_model(**json.loads((folder / "config.json").read_text()))
        config.num_hidden_layers = len(shape.layers)
        family = FAMILIES[config.model_type]
        lm = AutoModel.from_config(config, attn_implementation="eager", **family.options)  # type: ignore[no-untyped-call]
        for layer, block in zip(family.layers(lm), shape.layers, strict=True):
            family.resize(layer, config, block)
        if shape.rotated:
            rotated_layout(lm)
        if shape.embedding_rank is not None:
            words = lm.get_input_embeddings()
            lm.set_input_embeddings(
                FactorizedEmbedding(words.num_embeddings, shape.embedding_rank, config.hidden_size, words.padding_idx)
            )
        lm.load_state_dict(load_file(folder / "model.safetensors"))
        encoder = cls(lm, Tokenizer.from_file(str(folder / "tokenizer.json")), shape, None)
        if (folder / "head.safetensors").exists():
            head = load_file(folder / "head.safetensors")
            encoder.head = nn.Linear(encoder.hidden_size, head["weight"].shape[0], bias="bias" in head)
            encoder.head.load_state_dict(head)
        return encoder.eval()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().cpu() for name, tensor in module.state_dict().items()}
