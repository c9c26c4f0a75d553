"""Nested (Matryoshka) training: the first columns of one item table are tables of their own.

Kusupati et al. 2022, section 3: the loss is summed over prefixes of the representation, all of one weight. Here the
history enters cut to the prefix as well, with zeros for the rest, since a cut table has nothing else to give: a prefix
is trained as it will be served. (Cutting what is scored alone, as there, costs one pass of the encoder in place of one
per prefix, and leaves it reading columns that are gone.) Vectors are lengthened by sqrt(dim / width) on entering and on
leaving the encoder, or short prefixes would need longer items than the whole does; a cut student has that in its maps.
The weights are one over the number of prefixes, so that a loss is in nats and gradients are clipped as without.
"""

from collections.abc import Callable, Iterator

from torch import Tensor
from torch.nn import functional

from compress.data.dataset import Dataset
from compress.distil.mixture import Table
from compress.models.narrow import leading, prefix_scale
from compress.models.sequence import SequenceModel, SequenceShape
from compress.training import validation_ndcg

Encoder = Callable[[Tensor], Tensor]


def each_prefix(shape: SequenceShape, table: Table, encoder: Encoder) -> Iterator[tuple[Table, Encoder]]:
    """The table and the encoder of each width that is trained, as `next_item_loss` takes them; one pair without."""
    if not shape.nested:
        yield table, encoder
        return
    whole: list[Tensor] = []  # all prefixes of a step read one table: its text map is multiplied once

    def columns(width: int) -> tuple[Table, Encoder]:
        scale = prefix_scale(shape.dim, width)

        def prefix(rows: Tensor | None) -> Tensor:
            if rows is not None:
                return table(rows)[:, :width]
            if not whole:
                whole.append(table(None))
            return whole[0][:, :width]

        def users(vectors: Tensor) -> Tensor:
            return encoder(functional.pad(vectors * scale, (0, shape.dim - width)))[..., :width] * scale

        return prefix, users

    for width in shape.nested:
        yield columns(width)


def mean_ndcg(model: SequenceModel, dataset: Dataset) -> float:
    """Validation NDCG@10, of a nested model the mean over its widths: all are to be good at once."""
    width = model.shape.item_dim
    cut = (model if kept == width else leading(model, kept) for kept in model.shape.nested or (width,))
    values = [validation_ndcg(each, dataset) for each in cut]
    return sum(values) / len(values)
