"""The sequence student: a small causal encoder over its own item table, with the teacher or (the control) without."""

from collections.abc import Iterator, Sequence
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn
from torch.nn import functional

from compress.data.dataset import Dataset
from compress.distil.losses import SequenceLoss
from compress.distil.mixture import Distillation
from compress.distil.nested import each_prefix, mean_ndcg
from compress.distil.step import Teaching
from compress.models.sequence import EncoderSizes, SequenceEncoder, SequenceModel, SequenceShape
from compress.stage import RunOptions, without_default
from compress.training import Fit, Training, batches, fit, warm_items
from compress.training.engine import device_of
from compress.training.softmax import Sampler, next_item_loss
from deploy.errors import UsageError


class SequenceStudent(EncoderSizes):
    """A sequence student. With `text` an item vector is a linear map of the teacher's plus a free vector; without
    `id_vectors` the map is all there is, so that items nobody met yet are placed as well as any.

    `table_dim` makes item and user vectors narrower than the encoder from the start. `nested` trains several widths at
    once, the last being dim: the first columns of the table are a table too, for `prune.sequence.keep_dims` to choose.
    """

    name: Literal["sequence"] = "sequence"
    dim: PositiveInt = 64
    heads: PositiveInt = 2
    neurons: PositiveInt = 128
    text: bool = True
    id_vectors: bool = True
    rated: bool = False  # like/dislike data: how many training rows a user liked, and disliked, enters every logit
    table_dim: PositiveInt | None = None
    nested: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.table_dim is not None and (self.nested or self.table_dim > self.dim):
            wanted = "is left out where nested says the widths" if self.nested else f"must be at most dim, {self.dim}"
            raise ValueError(f"table_dim {wanted} (got {self.table_dim})")
        if self.nested and (sorted(set(self.nested)) != list(self.nested) or self.nested[-1] != self.dim):
            raise ValueError(f"nested must ascend to dim, {self.dim} (got {', '.join(map(str, self.nested))})")
        if not self.text and not self.id_vectors:
            raise ValueError("id_vectors: false leaves item vectors to text (got text: false too)")
        return self

    @model_serializer(mode="wrap")
    def _only_what_differs(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_default(write(self), self, "id_vectors", "rated", "table_dim", "nested")

    def shape(self, n_items: int) -> SequenceShape:
        own = {"table_dim": self.table_dim, "nested": self.nested}
        return super().shape(n_items).model_copy(update=own)


class FoldedTable(nn.Module):
    """Item vectors = text vectors @ map + free vectors. Both fold into one table; items without training events have no
    free vector, so that text alone places them."""

    warm: Tensor
    text: Tensor | None

    def __init__(
        self,
        n_items: int,
        dim: int,
        warm: Tensor,
        text: Tensor | None,
        generator: torch.Generator,
        id_vectors: bool = True,
    ) -> None:
        """`warm` bool (n_items + 1,): items with training events; `text` (n_items + 1, text dim) float32. Without
        `id_vectors` the free vectors are zero and stay so."""
        super().__init__()
        self.register_buffer("warm", warm.float()[:, None], persistent=False)
        self.register_buffer("text", text, persistent=False)
        free = torch.randn(n_items + 1, dim, generator=generator) * 0.02
        self.free = nn.Parameter(free if id_vectors else torch.zeros_like(free), requires_grad=id_vectors)
        self.map = None
        if text is not None:
            self.map = nn.Linear(text.shape[1], dim, bias=False)
            with torch.no_grad():
                self.map.weight.copy_(_principal_axes(text, dim))

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """(n_items + 1, dim), row 0 zero; with `rows` (n,) int64 those alone, (n, dim)."""
        free, warm = (self.free, self.warm) if rows is None else (self.free[rows], self.warm[rows])
        table: Tensor = free * warm
        if self.map is None or self.text is None:
            return table
        mapped: Tensor = self.map(self.text if rows is None else self.text[rows])
        return table + mapped


class StudentInTraining(nn.Module):
    """An encoder and a folded table, trained together."""

    def __init__(self, shape: SequenceShape, table: FoldedTable) -> None:
        super().__init__()
        self.shape, self.table, self.encoder = shape, table, SequenceEncoder(shape)

    @torch.no_grad()
    def folded(self) -> SequenceModel:
        model = SequenceModel(self.shape).to(self.table.free.device)
        model.item_table.copy_(self.table())
        model.encoder.load_state_dict(self.encoder.state_dict())
        return model.eval()

    @property
    def text_map(self) -> NDArray[np.float32] | None:
        """(teacher's item dim, item_dim): what folds a text vector into this student's item space."""
        return None if self.table.map is None else self.table.map.weight.detach().cpu().numpy().T.copy()


def new_student(student: SequenceStudent, dataset: Dataset, teaching: Teaching, seed: int) -> StudentInTraining:
    """Raises UsageError where text alone is to place items and the teacher has no item vectors."""
    if not student.id_vectors and teaching.item_vectors is None:
        raise UsageError("distil.student.id_vectors: false needs a teacher with item vectors (got one without)")
    text = teaching.item_vectors if student.text else None
    shape = student.shape(dataset.n_items)
    table = FoldedTable(
        dataset.n_items,
        shape.item_dim,
        warm_items(dataset),
        None if text is None else torch.from_numpy(text),
        torch.Generator().manual_seed(seed),
        student.id_vectors,
    )
    return StudentInTraining(shape, table)


def resumed_student(
    model: SequenceModel,
    text_map: NDArray[np.float32] | None,
    dataset: Dataset,
    teaching: Teaching,
    id_vectors: bool = True,
) -> StudentInTraining:
    """Take a (pruned) student up again: the free vectors are what the folded table holds beyond text."""
    text = None if text_map is None or teaching.item_vectors is None else torch.from_numpy(teaching.item_vectors)
    warm, generator = warm_items(dataset), torch.Generator().manual_seed(0)
    table = FoldedTable(dataset.n_items, model.shape.item_dim, warm, text, generator, id_vectors)
    with torch.no_grad():
        if id_vectors:
            table.free.copy_(model.item_table)
        if table.map is not None and text_map is not None:
            table.map.weight.copy_(torch.from_numpy(text_map.T.copy()))
            if id_vectors:
                table.free.sub_(table.map(table.text))
    student = StudentInTraining(model.shape, table)
    student.encoder.load_state_dict(model.encoder.state_dict())
    return student


def train_student(
    student: StudentInTraining,
    dataset: Dataset,
    teaching: Teaching,
    losses: Sequence[SequenceLoss],
    training: Training,
    rng: np.random.Generator,
    options: RunOptions,
    what: str,
    start_competes: bool = False,
) -> Fit:
    """Minimise the next item's cross-entropy, mixed with `losses` where there is a teacher."""
    taught = distillation(student, teaching, losses)
    both = nn.ModuleList([student, taught]).to(device_of(options))
    sequences = dataset.train_sequences()
    sampler = training.softmax.sampler(sequences, dataset.n_items, rng)

    def epoch(_number: int) -> Iterator[Tensor]:
        for batch in batches(sequences, student.shape.max_history, training, rng):
            yield student_loss(student, batch, taught, training, sampler)

    def validate(_number: int) -> float:
        return mean_ndcg(student.folded(), dataset)

    groups = [(list(both.parameters()), 1.0)]
    metric = "NDCG@10, mean over widths" if student.shape.nested else "NDCG@10"
    return fit(both, groups, training, epoch, validate, options, what, start_competes, rng, metric)


def distillation(student: StudentInTraining, teaching: Teaching, losses: Sequence[SequenceLoss]) -> Distillation:
    """What `losses` need to teach this student. Raises UsageError where the teacher did not leave it."""
    return Distillation(losses, teaching, student.table().detach(), student.table.warm[:, 0] > 0)


def student_loss(
    student: StudentInTraining,
    batch: tuple[Tensor, Tensor, Tensor],
    taught: Distillation,
    training: Training,
    sampler: Sampler | None = None,
) -> Tensor:
    """One batch of `windows` -> the mixed loss, a scalar in nats. Without a sampler every candidate is scored.

    Of a nested student the mean over its widths, each with its own next-item and teacher's losses.
    """
    inputs, targets, positions = batch
    device = student.table.free.device
    at = positions[positions >= 0]
    pair, left_out = (inputs.to(device), targets.to(device)), training.softmax.left_out(student.table.warm[:, 0] > 0)
    listed, found = taught.listed(at, device), []
    for table, encoder in each_prefix(student.shape, student.table, student.encoder):
        scored = next_item_loss(table, encoder, pair, left_out, training.label_smoothing, sampler, listed)
        found.append(taught(scored, at, pair[1][pair[1] > 0], left_out, table))
    mixed: Tensor = torch.stack(found).mean() if len(found) > 1 else found[0]
    return mixed


def _principal_axes(vectors: Tensor, dim: int) -> Tensor:
    """(dim, text dim): the text vectors' leading directions, so that the map starts by losing least."""
    _, _, axes = torch.linalg.svd(vectors[1:].float(), full_matrices=True)
    kept = axes[:dim]
    return functional.pad(kept, (0, 0, 0, dim - len(kept)))
