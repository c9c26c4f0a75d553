"""One view over both kinds of layers, and cutting layers, heads and neurons out of them."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compress.models.sequence import Block, BlockShape, SequenceEncoder, SequenceModel
from compress.models.text import TextEncoder
from deploy.errors import UsageError

Model = SequenceModel | SequenceEncoder | TextEncoder
AnyModel = TypeVar("AnyModel", SequenceModel, SequenceEncoder, TextEncoder)


@dataclass(frozen=True)
class Width:
    """What stays of one layer: indices of heads and of feed-forward neurons, in the order they are to have."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class LayerView:
    """The linear maps of one transformer layer by role, whoever owns them.

    query, key, value: hidden -> heads * head_dim; output: heads * head_dim -> hidden; up: hidden -> neurons;
    down: neurons -> hidden. Head h owns the rows (of `output`: the columns) h * head_dim .. (h + 1) * head_dim.
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
        return self.query.out_features // self.head_dim

    @property
    def neurons(self) -> int:
        return self.up.out_features

    def head_parts(self) -> list[Tensor]:
        """Everything a head owns alone, as views into the parameters: each (heads, head_dim, ...)."""
        parts = [part for linear in (self.query, self.key, self.value) for part in _rows(linear)]
        return [part.view(self.heads, self.head_dim, *part.shape[1:]) for part in [*parts, self.output.weight.t()]]

    def neuron_parts(self) -> list[Tensor]:
        """Everything a neuron owns alone, as views into the parameters: each (neurons, ...)."""
        return [*_rows(self.up), self.down.weight.t()]

    def narrow(self, width: Width) -> None:
        """Slice all six maps, in place, to the heads and neurons of `width`."""
        heads = torch.tensor(width.heads)[:, None]
        inner = (heads * self.head_dim + torch.arange(self.head_dim)).flatten()
        for linear in (self.query, self.key, self.value):
            _keep_rows(linear, inner)
        _keep_columns(self.output, inner)
        _keep_rows(self.up, torch.tensor(width.neurons))
        _keep_columns(self.down, torch.tensor(width.neurons))


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


def views(model: Model) -> list[LayerView]:
    """The layers of a model, first to last. Raises UsageError for a text encoder made of a decoder."""
    if isinstance(model, TextEncoder):
        check_encoder(model)
        return [BertView.of(layer) for layer in model.layers]
    return [BlockView.of(block) for block in _encoder(model).blocks if isinstance(block, Block)]


def check_encoder(model: TextEncoder) -> None:
    """Raises UsageError where the language model is a decoder: its layers are not viewed here."""
    if model.family.causal:
        raise UsageError(
            "prune.text: only encoders can be pruned; use none, and drop layers by distil.student.layers "
            f"(got {model.lm.config.model_type!r}, a decoder)"
        )


def prune_widths(model: Model, keep: Sequence[Width]) -> None:
    """Cut every layer to the heads and neurons kept, in place; `model.shape` follows.

    The outputs are those of `mask_widths(model, keep)`. Parameters are replaced: make optimizers afterwards.
    Raises ValueError where `keep` has another number of layers, an index out of range or twice, or nothing to keep.
    """
    for view, width in _matched(views(model), keep):
        view.narrow(width)
    _set_shape(model)


def mask_widths(model: AnyModel, keep: Sequence[Width]) -> AnyModel:
    """A copy of the model in its full size, with all weights of the heads and neurons not kept set to zero."""
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for view, width in _matched(views(masked), keep):
            for parts, kept in ((view.head_parts(), width.heads), (view.neuron_parts(), width.neurons)):
                for part in parts:
                    gone = sorted(set(range(len(part))) - set(kept))
                    part[gone] = 0.0
    return masked


def prune_layers(model: Model, keep: Sequence[int]) -> None:
    """Keep the layers of these indices, in place and in this order; `model.shape` follows. Raises as `prune_widths`."""
    layers = model.layers if isinstance(model, TextEncoder) else _encoder(model).blocks
    _check(keep, len(layers), "layers")
    if isinstance(model, TextEncoder):
        model.keep_layers(keep)
        return
    _encoder(model).blocks = nn.ModuleList(layers[index] for index in keep)
    _set_shape(model)


def _encoder(model: SequenceModel | SequenceEncoder) -> SequenceEncoder:
    return model.encoder if isinstance(model, SequenceModel) else model


def _set_shape(model: Model) -> None:
    shapes = tuple(BlockShape(heads=view.heads, neurons=view.neurons) for view in views(model))
    if isinstance(model, TextEncoder):
        model.shape = model.shape.model_copy(update={"layers": shapes})
        return
    model.shape = model.shape.model_copy(update={"blocks": shapes})
    _encoder(model).shape = model.shape


def _matched(layers: Sequence[LayerView], keep: Sequence[Width]) -> Iterable[tuple[LayerView, Width]]:
    """Pairs of layer and width, all checked before the first is handed out."""
    if len(keep) != len(layers):
        raise ValueError(f"keep: one width per layer, {len(layers)} (got {len(keep)})")
    for view, width in zip(layers, keep, strict=True):
        _check(width.heads, view.heads, "heads")
        _check(width.neurons, view.neurons, "neurons")
    return list(zip(layers, keep, strict=True))


def _check(kept: Sequence[int], count: int, what: str) -> None:
    if not kept or len(set(kept)) != len(kept) or not all(0 <= index < count for index in kept):
        raise ValueError(f"keep: {what} must be distinct indices below {count}, at least one (got {list(kept)})")


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
