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
from compress.training import Fit, Training, fit, validation_ndcg, warm_items, windows


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

    def forward(self) -> Tensor:
        """(n_items + 1, dim), row 0 zero."""
        table: Tensor = self.free * self.warm
        return table if self.map is None else table + self.map(self.text)


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
    """Minimise the next item's cross-entropy over the warm catalogue, mixed with `loss` where there is a teacher."""
    student.to(options.device)

    def epoch(_number: int) -> Iterator[Tensor]:
        cut = windows(dataset.train_sequences(), student.shape.max_history, rng)
        for index in np.array_split(rng.permutation(len(cut.inputs)), -(-len(cut.inputs) // training.batch_size)):
            yield student_loss(student, cut.batch(index), teaching, loss, training.label_smoothing)

    def validate(_number: int) -> float:
        return validation_ndcg(student.folded(), dataset)

    groups = [(list(student.parameters()), 1.0)]
    return fit(student, groups, training, epoch, validate, options, what, start_competes)


def student_loss(
    student: StudentInTraining,
    batch: tuple[Tensor, Tensor, Tensor],
    teaching: Teaching,
    loss: SequenceLoss,
    label_smoothing: float = 0.0,
) -> Tensor:
    """One batch of `windows` -> the mixed loss, a scalar in nats."""
    inputs, targets, positions = batch
    device = student.table.free.device
    inputs, targets = inputs.to(device), targets.to(device)
    table = student.table()
    logits = student.encoder(table[inputs])[targets > 0] @ table.T
    logits = logits.masked_fill(student.table.warm[:, 0] == 0, -1e4)
    hard = functional.cross_entropy(logits, targets[targets > 0], label_smoothing=label_smoothing)
    if isinstance(loss, Skip) or teaching.items is None or teaching.scores is None:
        return hard
    assert isinstance(loss, ListwiseKL)
    at = positions[positions >= 0]
    soft = loss(logits, teaching.items[at].to(device), teaching.scores[at].to(device))
    return (1 - loss.weight) * hard + loss.weight * soft


def _principal_axes(vectors: Tensor, dim: int) -> Tensor:
    """(dim, text dim): the text vectors' leading directions, so that the map starts by losing least."""
    _, _, axes = torch.linalg.svd(vectors[1:].float(), full_matrices=True)
    kept = axes[:dim]
    return functional.pad(kept, (0, 0, 0, dim - len(kept)))
