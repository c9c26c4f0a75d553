"""Histories -> user vectors: a causal transformer over an item table, the same for teachers, students and controls."""

from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from compress.stage import Entry, without_default


class BlockShape(BaseModel):
    """Width of one block, which pruning shrinks: attention heads and feed-forward neurons."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    heads: PositiveInt
    neurons: PositiveInt


class SequenceShape(BaseModel):
    """All sizes of a sequence model. `dim` is the encoder's width, `table_dim` that of item and user vectors where it
    is another, `head_dim` one head's; without `distances` the bias by distance stays 0. `nested`: of how many leading
    columns each was trained to be a table of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    n_items: PositiveInt
    dim: PositiveInt
    head_dim: PositiveInt
    blocks: tuple[BlockShape, ...] = Field(min_length=1)
    max_history: PositiveInt
    dropout: NonNegativeFloat = 0.0
    distances: bool = True
    table_dim: PositiveInt | None = None
    nested: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _table_fits(self) -> Self:
        if self.item_dim > self.dim:
            raise ValueError(f"table_dim must be at most dim, {self.dim} (got {self.item_dim})")
        return self

    @model_serializer(mode="wrap")
    def _only_what_differs(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_default(write(self), self, "distances", "table_dim", "nested")

    @property
    def item_dim(self) -> int:
        """The width of item and user vectors."""
        return self.table_dim or self.dim


class EncoderSizes(Entry):
    """The sizes a recipe gives a sequence encoder; `max_history` is the most events it reads."""

    dim: PositiveInt
    blocks: PositiveInt = 1
    heads: PositiveInt
    neurons: PositiveInt
    max_history: Annotated[int, Field(ge=2, le=1000)] = 20
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.4
    distances: bool = True  # false for data without order: nothing is learned from how far back an event lies

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim (got {self.heads} heads, dim {self.dim})")
        return self

    def shape(self, n_items: int) -> SequenceShape:
        return SequenceShape(
            n_items=n_items,
            dim=self.dim,
            head_dim=self.dim // self.heads,
            blocks=(BlockShape(heads=self.heads, neurons=self.neurons),) * self.blocks,
            max_history=self.max_history,
            dropout=self.dropout,
            distances=self.distances,
        )


class Block(nn.Module):
    """Pre-norm attention and feed-forward, with a learned bias per head and distance back (T5, section 2.1)."""

    def __init__(self, shape: SequenceShape, block: BlockShape) -> None:
        super().__init__()
        inner = block.heads * shape.head_dim
        self.heads, self.head_dim = block.heads, shape.head_dim
        self.attention_norm = nn.LayerNorm(shape.dim)
        self.query = nn.Linear(shape.dim, inner)
        self.key = nn.Linear(shape.dim, inner)
        self.value = nn.Linear(shape.dim, inner)
        self.output = nn.Linear(inner, shape.dim)
        self.distance_bias = nn.Parameter(torch.zeros(block.heads, shape.max_history), requires_grad=shape.distances)
        self.neuron_norm = nn.LayerNorm(shape.dim)
        self.up = nn.Linear(shape.dim, block.neurons)
        self.down = nn.Linear(block.neurons, shape.dim)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, hidden: Tensor, bias: Tensor, queries: Tensor | None = None) -> Tensor:
        """hidden (batch, length, dim), bias (batch or 1, heads, queries, length) -> (batch, queries, dim).

        `queries` (batch, queries, dim) is the part of `hidden` whose outputs are wanted; all of it by default.
        """
        residual = hidden if queries is None else queries
        normed = self.attention_norm(hidden)
        query = self._split(self.query(normed if queries is None else self.attention_norm(queries)))
        weights = query @ self._split(self.key(normed)).transpose(-1, -2) * self.head_dim**-0.5 + bias
        mixed = self.dropout(weights.softmax(-1)) @ self._split(self.value(normed))
        attended = residual + self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))
        out: Tensor = attended + self.dropout(self.down(functional.gelu(self.up(self.neuron_norm(attended)))))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, self.head_dim).transpose(1, 2)


class SequenceEncoder(nn.Module):
    """Item vectors of a history -> user vectors. It learns distances, not positions: any length up to max_history.

    Where the shape has a `table_dim`, `lift` (to dim) stands before the blocks and `project` (back) behind them.
    """

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(Block(shape, block) for block in shape.blocks)
        self.norm = nn.LayerNorm(shape.dim)
        self.dropout = nn.Dropout(shape.dropout)
        narrow = shape.table_dim
        self.lift = None if narrow is None else nn.Linear(narrow, shape.dim, bias=False)
        self.project = None if narrow is None else nn.Linear(shape.dim, narrow, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors (batch, length, item_dim), padded on the right -> user vectors after each event, of the same form."""
        hidden = self.dropout(vectors if self.lift is None else self.lift(vectors))
        length = hidden.shape[1]
        steps = torch.arange(length, device=hidden.device)
        distance = (steps[:, None] - steps[None, :]).clamp(min=0)
        future = torch.where(steps[:, None] >= steps[None, :], 0.0, -1e4)
        for block in self.each_block():
            hidden = block(hidden, (block.distance_bias[:, distance] + future)[None])
        return self._users(hidden)

    def last(self, vectors: Tensor, known: Tensor) -> Tensor:
        """vectors (batch, length, item_dim), padded on the left, known (batch, length) bool -> users (batch, item_dim).

        Equals `forward` at the last event; the last block computes that position alone.
        """
        length = vectors.shape[1]
        steps = torch.arange(length, device=vectors.device)
        distance = (steps[:, None] - steps[None, :]).clamp(min=0)
        future = torch.where(steps[:, None] >= steps[None, :], 0.0, -1e4)
        padding = torch.where(known, 0.0, -1e4)[:, None, None, :]
        hidden = vectors if self.lift is None else self.lift(vectors)
        *earlier, final = self.each_block()
        for block in earlier:
            hidden = block(hidden, (block.distance_bias[:, distance] + future)[None] + padding)
        bias = final.distance_bias[:, length - 1 - steps][None, :, None, :] + padding
        return self._users(final(hidden, bias, hidden[:, -1:]))[:, 0]

    def _users(self, hidden: Tensor) -> Tensor:
        users: Tensor = self.norm(hidden)
        return users if self.project is None else self.project(users)

    def each_block(self) -> list[Block]:
        """The blocks, first to last, as what they are."""
        return [block for block in self.blocks if isinstance(block, Block)]


class SequenceModel(nn.Module):
    """A folded item table (n_items + 1, item_dim), row 0 zero for padding, and an encoder over it."""

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        self.shape = shape
        self.item_table = nn.Parameter(torch.zeros(shape.n_items + 1, shape.item_dim))
        self.encoder = SequenceEncoder(shape)

    def user_vectors(self, histories: Tensor) -> Tensor:
        """histories (batch, length) int64 rows, oldest first, padded with 0 on the left -> (batch, item_dim)."""
        return self.encoder.last(self.item_table[histories], histories > 0)

    def scores(self, histories: Tensor) -> Tensor:
        """The same histories -> scores of all items (batch, n_items + 1)."""
        return self.user_vectors(histories) @ self.item_table.T

    @property
    def n_items(self) -> int:
        return self.shape.n_items

    @property
    def max_history(self) -> int:
        return self.shape.max_history

    @property
    def device(self) -> torch.device:
        return self.item_table.device

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(self.shape.model_dump_json(indent=1) + "\n")
        save_file(
            {name: t.detach().contiguous().cpu() for name, t in self.state_dict().items()}, folder / "model.safetensors"
        )

    @classmethod
    def load(cls, folder: Path) -> "SequenceModel":
        model = cls(SequenceShape.model_validate_json((folder / "config.json").read_text()))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
