"""Which dimensions of the item table stay, and the student over what is left of it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.models.narrow import leading, narrowed
from compress.models.sequence import SequenceModel


def cut_table(
    model: SequenceModel,
    text_map: NDArray[np.float32] | None,
    popularity: NDArray[np.integer],
    kept: int,
    nested: bool,
) -> tuple[SequenceModel, NDArray[np.float32] | None]:
    """The model with `kept` dimensions in its table, and its map from text vectors, (teacher's item dim, kept).

    Where the table was trained `nested` its leading columns stay, else its principal axes. The map goes through the
    same axes, so that a text lands where its item does. popularity: training events of each row, (n_items + 1,).
    """
    if nested:
        return leading(model, kept), None if text_map is None else np.ascontiguousarray(text_map[:, :kept])
    axes = principal_axes(model.item_table, popularity, kept)
    return narrowed(model, axes), None if text_map is None else text_map @ axes.cpu().numpy()


@torch.no_grad()
def principal_axes(table: Tensor, popularity: NDArray[np.integer], kept: int) -> Tensor:
    """table (n_items + 1, dim) -> (dim, kept), orthonormal columns: the span that keeps most of the item vectors.

    Of all spans of this size the squared distance to it is least, summed over training events and one more per item,
    so that items without events count too (Eckart & Young 1936). Nothing is centred: what all items share is in the
    vectors that enter the encoder.
    """
    weight = torch.from_numpy(np.sqrt(popularity + 1.0)).to(table.device)[:, None]
    _, vectors = torch.linalg.eigh((table.double() * weight).T @ (table.double() * weight))
    axes: Tensor = vectors.flip(1)[:, :kept].to(table.dtype).contiguous()
    return axes
