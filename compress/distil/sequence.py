"""The sequence student: a small causal encoder over its own item table, with the teacher or (the control) without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from compress.data.dataset import Dataset
from compress.distil.losses import ListwiseKL, SequenceLoss
from compress.models.folder import load_array
from compress.models.sequence import EncoderSizes, SequenceEncoder, SequenceModel, SequenceShape
from compress.stage import RunOptions, Skip
from compress.training import Fit, Training, batches, fit, validation_ndcg, warm_items
from compress.training.engine import device_of
from compress.training.softmax import Sampler, next_item_loss


class SequenceStudent(EncoderSizes):
    """A sequence student. With `text` an item vector is a linear map of the teacher's plus a free vector."""

    name: Literal["sequence"] = "sequence"
    dim: PositiveInt = 64
    heads: PositiveInt = 2
    neurons: PositiveInt = 128
    text: bool = True


class Teaching:
    """What the teacher left for its students, or nothing: item vectors and its best items per training position."""

    def __init__(self, teacher: Path) -> None:
        self.item_vectors: NDArray[np.float32] | None = load_array(teacher, "item_vectors")
        items, scores = load_array(teacher, "score_items"), load_array(teacher, "scores")
        self.items = None if items is None else torch.from_numpy(items.astype(np.int64))
        self.scores = None if scores is None else torch.from_numpy(scores.astype(np.float32))
        taught = None if self.items is None else self.items[:, 0] > 0
        self.taught = None if taught is None or bool(taught.all()) else taught  # bool (positions,); None: all are


class FoldedTable(nn.Module):
    """Item vectors = text vectors @ map + free vectors. Both fold into one table; items without training events have no
    free vector, so that text alone places them."""

    warm: Tensor
    text: Tensor | None

    def __init__(self, n_items: int, dim: int, warm: Tensor, text: Tensor | None, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("warm", warm.float()[:, None], persistent=False)
        self.register_buffer("text", text, persistent=False)
        self.free = nn.Parameter(torch.randn(n_items + 1, dim, generator=generator) * 0.02)
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
        """(teacher's item dim, dim): what folds a text vector into this student's item space."""
        return None if self.table.map is None else self.table.map.weight.detach().cpu().numpy().T.copy()


def new_student(student: SequenceStudent, dataset: Dataset, teaching: Teaching, seed: int) -> StudentInTraining:
    text = teaching.item_vectors if student.text else None
    table = FoldedTable(
        dataset.n_items,
        student.dim,
        warm_items(dataset),
        None if text is None else torch.from_numpy(text),
        torch.Generator().manual_seed(seed),
    )
    return StudentInTraining(student.shape(dataset.n_items), table)


def resumed_student(
    model: SequenceModel, text_map: NDArray[np.float32] | None, dataset: Dataset, teaching: Teaching
) -> StudentInTraining:
    """Take a (pruned) student up again: the free vectors are what the folded table holds beyond text."""
    text = None if text_map is None or teaching.item_vectors is None else torch.from_numpy(teaching.item_vectors)
    table = FoldedTable(dataset.n_items, model.shape.dim, warm_items(dataset), text, torch.Generator().manual_seed(0))
    with torch.no_grad():
        table.free.copy_(model.item_table)
        if table.map is not None and text_map is not None:
            table.map.weight.copy_(torch.from_numpy(text_map.T.copy()))
            table.free.sub_(table.map(table.text))
    student = StudentInTraining(model.shape, table)
    student.encoder.load_state_dict(model.encoder.state_dict())
    return student


def train_student(
    student: StudentInTraining,
    dataset: Dataset,
    teaching: Teaching,
    loss: SequenceLoss,
    training: Training,
    rng: np.random.Generator,
    options: RunOptions,
    what: str,
    start_competes: bool = False,
) -> Fit:
    """Minimise the next item's cross-entropy, mixed with `loss` where there is a teacher."""
    student.to(device_of(options))
    sequences = dataset.train_sequences()
    sampler = training.softmax.sampler(sequences, dataset.n_items, rng)

    def epoch(_number: int) -> Iterator[Tensor]:
        for batch in batches(sequences, student.shape.max_history, training, rng):
            yield student_loss(student, batch, teaching, loss, training, sampler)

    def validate(_number: int) -> float:
        return validation_ndcg(student.folded(), dataset)

    groups = [(list(student.parameters()), 1.0)]
    return fit(student, groups, training, epoch, validate, options, what, start_competes, rng)


def student_loss(
    student: StudentInTraining,
    batch: tuple[Tensor, Tensor, Tensor],
    teaching: Teaching,
    loss: SequenceLoss,
    training: Training,
    sampler: Sampler | None = None,
) -> Tensor:
    """One batch of `windows` -> the mixed loss, a scalar in nats. Without a sampler every candidate is scored."""
    inputs, targets, positions = batch
    device = student.table.free.device
    at, listed, scores = positions[positions >= 0], None, None
    if not isinstance(loss, Skip) and teaching.items is not None and teaching.scores is not None:
        listed, scores = teaching.items[at].to(device), teaching.scores[at].to(device)
    pair, left_out = (inputs.to(device), targets.to(device)), training.softmax.left_out(student.table.warm[:, 0] > 0)
    hard, logits, columns = next_item_loss(
        student.table, student.encoder, pair, left_out, training.label_smoothing, sampler, listed
    )
    if columns is None or scores is None:
        return hard
    assert isinstance(loss, ListwiseKL)
    weight = loss.weight
    if teaching.taught is not None:  # where there is no teacher the observed items take its weight
        known = teaching.taught[at].to(device)
        if not known.any():
            return hard
        weight *= float(known.float().mean())
        logits, columns, scores = logits[known], columns[known], scores[known]
    return (1 - weight) * hard + weight * loss(logits, columns, scores)


def _principal_axes(vectors: Tensor, dim: int) -> Tensor:
    """(dim, text dim): the text vectors' leading directions, so that the map starts by losing least."""
    _, _, axes = torch.linalg.svd(vectors[1:].float(), full_matrices=True)
    kept = axes[:dim]
    return functional.pad(kept, (0, 0, 0, dim - len(kept)))
