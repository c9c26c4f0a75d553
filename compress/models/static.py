"""Item texts -> item vectors without a language model: the mean of one vector per token."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from compress.models.encoder import ItemEncoder

TABLE = "table.safetensors"
"""The file that tells a static `text/` part from a language model's."""


class StaticShape(BaseModel):
    """All sizes of a static encoder. `dim` is the item vector's width, `rank` the table's where a head widens it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    vocabulary: PositiveInt
    dim: PositiveInt
    max_tokens: PositiveInt
    rank: PositiveInt | None = None


class StaticEncoder(ItemEncoder):
    """The mean over a text's tokens of their rows in `table`, (vocabulary, dim), or (vocabulary, rank) and a head.

    Whatever weighs the tokens is in their rows already.
    """

    def __init__(self, tokenizer: Tokenizer, shape: StaticShape) -> None:
        super().__init__()
        self.tokenizer, self.shape = tokenizer, shape
        self.table = nn.Parameter(torch.zeros(shape.vocabulary, shape.rank or shape.dim))
        self.head: nn.Module = nn.Identity() if shape.rank is None else nn.Linear(shape.rank, shape.dim)

    @property
    def dim(self) -> int:
        return self.shape.dim

    @property
    def max_tokens(self) -> int:
        return self.shape.max_tokens

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask (batch, tokens) int64 -> item vectors (batch, dim)."""
        weights = attention_mask.to(self.table.dtype)[:, :, None]
        rows = functional.embedding(input_ids, self.table)
        vectors: Tensor = self.head((rows * weights).sum(1) / weights.sum(1).clamp(min=1.0))
        return vectors

    def keep_tokens(self, order: Tensor) -> None:
        """Keep the rows of these token ids, int64, in this order, in place. The tokenizer is the caller's to change."""
        self.table = nn.Parameter(self.table.detach()[order.to(self.table.device)])
        self.shape = self.shape.model_copy(update={"vocabulary": len(order)})

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "shapes.json").write_text(self.shape.model_dump_json(indent=1) + "\n")
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), "utf-8")
        save_file({name: t.detach().contiguous().cpu() for name, t in self.state_dict().items()}, folder / TABLE)

    @classmethod
    def load(cls, folder: Path) -> "StaticEncoder":
        shape = StaticShape.model_validate_json((folder / "shapes.json").read_text())
        encoder = cls(Tokenizer.from_file(str(folder / "tokenizer.json")), shape)
        encoder.load_state_dict(load_file(folder / TABLE))
        return encoder.eval()
