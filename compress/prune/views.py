"""One view over the layers of every kind of model: their linear maps by role, and slicing them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.sequence import Block, BlockShape, SequenceEncoder, SequenceModel
from compress.models.text import TextEncoder

Model = SequenceModel | SequenceEncoder | TextEncoder


@dataclass(frozen=True)
class Width:
    """What stays of one layer: indices of heads and of feed-forward neurons, in the order they are to have."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class LayerView:
    """The linear maps of one transformer layer by role, whoever owns them.

    query: hidden -> query heads * head_dim; key, value: hidden -> heads * head_dim; output: query heads * head_dim ->
    hidden; up: hidden -> neurons; down: neurons -> hidden. A head is what can be cut alone: head h owns rows
    h * head_dim .. (h + 1) * head_dim of key and value and the same share of query's rows and of output's columns. With
    grouped queries (Ainslie et al. 2023) it is thus a head of keys and values with all query heads that read it.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    up: nn.Linear
    down: nn.Linear
    head_dim: int

    @property
    def heads(self) -> int:
        return self.key.out_features // self.head_dim

    @property
    def neurons(self) -> int:
        return self.up.out_features

    @property
    def shape(self) -> BlockShape:
        """Its widths as models count them: by query heads."""
        return BlockShape(heads=self.query.out_features // self.head_dim, neurons=self.neurons)

    @property
    def neuron_maps(self) -> tuple[nn.Linear, ...]:
        """The maps of which a neuron owns a row."""
        return (self.up,)

    def head_parts(self) -> list[Tensor]:
        """Everything a head owns alone, as views into the parameters: each (heads, rows of one head, ...)."""
        parts = [part for linear in (self.query, self.key, self.value) for part in _rows(linear)]
        return [part.view(self.heads, -1, *part.shape[1:]) for part in [*parts, self.output.weight.t()]]

    def neuron_parts(self) -> list[Tensor]:
        """Everything a neuron owns alone, as views into the parameters: each (neurons, ...)."""
        return [*(part for linear in self.neuron_maps for part in _rows(linear)), self.down.weight.t()]

    def narrow(self, width: Width) -> None:
        """Slice all maps, in place, to the heads and neurons of `width`."""
        own, shared = (_inner(linear, self.heads, width.heads) for linear in (self.query, self.key))
        neurons = torch.tensor(width.neurons)
        for linear, rows in ((self.query, own), (self.key, shared), (self.value, shared)):
            _keep_rows(linear, rows)
        _keep_columns(self.output, own)
        for linear in self.neuron_maps:
            _keep_rows(linear, neurons)
        _keep_columns(self.down, neurons)


@dataclass(frozen=True)
class BlockView(LayerView):
    """A `Block` of the sequence encoder; its heads have a learned bias per distance too."""

    block: Block

    @classmethod
    def of(cls, block: Block) -> "BlockView":
        attention = (block.query, block.key, block.value, block.output)
        return cls(*attention, block.up, block.down, block.head_dim, block)

    def narrow(self, width: Width) -> None:
        super().narrow(width)
        self.block.heads = len(width.heads)
        self.block.distance_bias = _sliced(self.block.distance_bias, torch.tensor(width.heads), 0)


@dataclass(frozen=True)
class BertView(LayerView):
    """A layer of a Hugging Face encoder of the BERT family."""

    attention: Any

    @classmethod
    def of(cls, layer: Any) -> "BertView":
        own = layer.attention.self
        maps = (own.query, own.key, own.value, layer.attention.output.dense, layer.intermediate.dense)
        return cls(*maps, layer.output.dense, own.attention_head_size, own)

    def narrow(self, width: Width) -> None:
        super().narrow(width)
        self.attention.num_attention_heads = len(width.heads)
        self.attention.all_head_size = len(width.heads) * self.head_dim


@dataclass(frozen=True)
class LlamaView(LayerView):
    """A layer of a decoder of the Llama family. A neuron owns a row of `gate` beside one of `up`.

    Norms of queries and keys, where a model has them (Qwen3), are one for all heads and owned by none.
    """

    gate: nn.Linear

    @classmethod
    def of(cls, layer: Any) -> "LlamaView":
        own, mlp = layer.self_attn, layer.mlp
        maps = (own.q_proj, own.k_proj, own.v_proj, own.o_proj, mlp.up_proj, mlp.down_proj)
        return cls(*maps, int(own.head_dim), mlp.gate_proj)

    @property
    def neuron_maps(self) -> tuple[nn.Linear, ...]:
        return self.gate, self.up


def views(model: Model) -> list[LayerView]:
    """The layers of a model, first to last."""
    if isinstance(model, TextEncoder):
        of = LlamaView.of if model.family.causal else BertView.of
        return [of(layer) for layer in model.layers]
    return [BlockView.of(block) for block in sequence_encoder(model).each_block()]


def sequence_encoder(model: SequenceModel | SequenceEncoder) -> SequenceEncoder:
    return model.encoder if isinstance(model, SequenceModel) else model


def _inner(linear: nn.Linear, heads: int, kept: tuple[int, ...]) -> Tensor:
    """The rows that the kept of `heads` heads own."""
    each = linear.out_features // heads
    return (torch.tensor(kept)[:, None] * each + torch.arange(each)).flatten()


def _rows(linear: nn.Linear) -> list[Tensor]:
    return [linear.weight] if linear.bias is None else [linear.weight, linear.bias]


def _keep_rows(linear: nn.Linear, rows: Tensor) -> None:
    linear.weight = _sliced(linear.weight, rows, 0)
    if linear.bias is not None:
        linear.bias = _sliced(linear.bias, rows, 0)
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: Tensor) -> None:
    linear.weight = _sliced(linear.weight, columns, 1)
    linear.in_features = len(columns)


def _sliced(parameter: Tensor, kept: Tensor, axis: int) -> nn.Parameter:
    slices = parameter.detach().index_select(axis, kept.to(parameter.device))
    return nn.Parameter(slices, requires_grad=parameter.requires_grad)
