"""Item texts -> item vectors without a language model: the mean of one vector per token, which others may change."""

from pathlib import Path

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from compress.models.encoder import ItemEncoder
from compress.models.family import additive
from compress.models.sequence import Block, BlockShape, SequenceShape
from compress.stage import without_default

TABLE = "table.safetensors"
"""The file that tells a static `text/` part from a language model's."""


class StaticShape(BaseModel):
    """All sizes of a static encoder. `dim` is the item vector's width, `rank` the table's where a head widens it; with
    `blocks` the tokens of a text see one another, through heads of `head_dim`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    vocabulary: PositiveInt
    dim: PositiveInt
    max_tokens: PositiveInt
    rank: PositiveInt | None = None
    blocks: tuple[BlockShape, ...] = ()
    head_dim: PositiveInt | None = None
    dropout: NonNegativeFloat = 0.0

    @model_serializer(mode="wrap")
    def _only_what_differs(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_default(write(self), self, "blocks", "head_dim", "dropout")

    def block(self, block: BlockShape) -> Block:
        """Raises ValueError without a `head_dim`."""
        if self.head_dim is None:
            raise ValueError("blocks need a head_dim (got none)")
        sizes = SequenceShape(
            n_items=self.vocabulary,
            dim=self.rank or self.dim,
            head_dim=self.head_dim,
            blocks=self.blocks,
            max_history=self.max_tokens,
            dropout=self.dropout,
            distances=False,
        )
        return Block(sizes, block)


class StaticEncoder(ItemEncoder):
    """The mean over a text's tokens of their rows in `table`, (vocabulary, dim), or (vocabulary, rank) and a head.

    Whatever weighs the tokens is in their rows already. What `blocks` add to the rows of a text starts at nothing, so
    that such an encoder starts as the table alone. They read rows over `scale`, one number for all, and positions.
    """

    scale: Tensor

    def __init__(self, tokenizer: Tokenizer, shape: StaticShape) -> None:
        super().__init__()
        self.tokenizer, self.shape = tokenizer, shape
        self.table = nn.Parameter(torch.zeros(shape.vocabulary, shape.rank or shape.dim))
        self.head: nn.Module = nn.Identity() if shape.rank is None else nn.Linear(shape.rank, shape.dim)
        blocks = [shape.block(block) for block in shape.blocks]
        self.blocks = nn.ModuleList(blocks)
        if blocks:
            self.register_buffer("scale", torch.ones(()))
            self.positions = nn.Parameter(torch.zeros(shape.max_tokens, shape.rank or shape.dim))
            nn.init.normal_(self.positions, std=0.1)
            for last in (layer for block in blocks for layer in (block.output, block.down)):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

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
        if self.blocks:
            rows = rows + self._added(rows, attention_mask)
        vectors: Tensor = self.head((rows * weights).sum(1) / weights.sum(1).clamp(min=1.0))
        return vectors

    def _added(self, rows: Tensor, attention_mask: Tensor) -> Tensor:
        """What the tokens of a text change of one another's rows, (batch, tokens, width)."""
        entering = rows / self.scale + self.positions[: rows.shape[1]]
        hidden, bias = entering, additive(attention_mask)
        for block in self.blocks:
            hidden = block(hidden, bias)
        added: Tensor = (hidden - entering) * self.scale
        return added

    def distilled(self) -> list[nn.Parameter]:
        """All but the blocks' biases by distance: where a token stands is in the positions."""
        return [parameter for name, parameter in self.named_parameters() if not name.endswith("distance_bias")]

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
