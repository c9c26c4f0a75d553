"""A sequence model over a narrower item table: fewer dimensions for every item, the encoder as wide as it was."""

import torch
from torch import Tensor

from compress.models.sequence import SequenceModel


@torch.no_grad()
def narrowed(model: SequenceModel, axes: Tensor, scale: float = 1.0) -> SequenceModel:
    """The model whose item vectors are `model`'s times `axes` (item_dim, fewer), orthonormal columns; a copy.

    Item vectors enter the encoder and user vectors leave it as if they had been projected onto the axes and multiplied
    by `scale`: scores stay where the table lies in their span. The maps around the encoder learn from there.
    """
    encoder, width = model.encoder, axes.shape[1]
    axes = axes.to(model.device)
    same = torch.eye(model.shape.dim, device=model.device)
    lift = same if encoder.lift is None else encoder.lift.weight
    project = same if encoder.project is None else encoder.project.weight
    maps = {"lift.weight": lift @ axes * scale, "project.weight": axes.T @ project * scale}
    cut = SequenceModel(model.shape.model_copy(update={"table_dim": width, "nested": ()})).to(model.device)
    cut.encoder.load_state_dict({**encoder.state_dict(), **maps})
    cut.item_table.copy_(model.item_table @ axes)
    return cut.eval()


def leading(model: SequenceModel, kept: int) -> SequenceModel:
    """The model over the first `kept` columns of its table, as nested training has seen them."""
    width = model.shape.item_dim
    return narrowed(model, torch.eye(width)[:, :kept], prefix_scale(width, kept))


def prefix_scale(width: int, kept: int) -> float:
    """Vectors of the first columns are lengthened by this: by as much as they have fewer numbers to be long with."""
    scale: float = (width / kept) ** 0.5
    return scale
