"""Cutting layers, heads and neurons out of a model, and masking them instead."""

import copy
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import nn

from compress.models.sequence import SequenceEncoder, SequenceModel
from compress.models.text import TextEncoder
from compress.prune.views import LayerView, Model, Width, sequence_encoder, views

AnyModel = TypeVar("AnyModel", SequenceModel, SequenceEncoder, TextEncoder)


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
    layers = model.layers if isinstance(model, TextEncoder) else sequence_encoder(model).blocks
    _check(keep, len(layers), "layers")
    if isinstance(model, TextEncoder):
        model.keep_layers(keep)
        return
    sequence_encoder(model).blocks = nn.ModuleList(layers[index] for index in keep)
    _set_shape(model)


def _set_shape(model: Model) -> None:
    shapes = tuple(view.shape for view in views(model))
    if isinstance(model, TextEncoder):
        model.shape = model.shape.model_copy(update={"layers": shapes})
        return
    model.shape = model.shape.model_copy(update={"blocks": shapes})
    sequence_encoder(model).shape = model.shape


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
