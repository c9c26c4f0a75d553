"""Pruning the sequence encoder and its item table, and their re-distillation afterwards."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.data.dataset import Dataset
from compress.distil.distil import write_student
from compress.distil.losses import SequenceLoss
from compress.distil.sequence import StudentInTraining, distillation, resumed_student, student_loss, train_student
from compress.distil.step import Teaching
from compress.models.folder import load_array, model_facts
from compress.models.sequence import SequenceModel
from compress.prune.schedule import gradually, kept
from compress.prune.structured import CALIBRATION_BATCHES, Kept, Structured, cut
from compress.prune.table import cut_table
from compress.stage import Inputs, RunOptions
from compress.training import Training, Windows, windows


class StructuredSequence(Structured):
    """The sequence encoder's, and its re-distillation afterwards. `keep_dims` is of the item table's dimensions: the
    leading ones of a nested student, the principal ones of any other; the encoder stays as wide as it is."""

    later: ClassVar = (*Structured.later, "keep_dims")
    keep_dims: Kept = 1.0
    recovery: Training = Training(epochs=6, learning_rate=5e-4)


def prune_sequence(
    model: SequenceModel,
    structured: StructuredSequence,
    losses: Sequence[SequenceLoss],
    domain: str,
    inputs: Inputs,
    rng: np.random.Generator,
    out: Path,
    options: RunOptions,
) -> None:
    """data, mix, distil -> the pruned student's folder."""
    dataset, teaching = Dataset.open(inputs["data"], domain), Teaching(inputs["mix"])
    nested = bool(model.shape.nested)
    model.shape = model.shape.model_copy(update={"nested": ()})  # what ships has one width, which recovers alone
    ids = bool(model_facts(inputs["distil"]).get("id_vectors", True))
    student = resumed_student(model, load_array(inputs["distil"], "text_map"), dataset, teaching, ids)
    rows = windows(dataset.train_sequences(), model.shape.max_history)
    calibration = np.array_split(rng.permutation(len(rows.inputs)), -(-len(rows.inputs) // 64))[:CALIBRATION_BATCHES]
    for step, what in gradually(structured, student.encoder):
        width = student.shape.item_dim
        if (left := kept(width, step.keep_dims)) < width:
            narrow = cut_table(student.folded(), student.text_map, dataset.popularity, left, nested)
            student = resumed_student(*narrow, dataset, teaching, ids)
        cut(student.encoder, step, partial(_calibrated, student, teaching, losses, step.recovery, rows, calibration))
        student.shape = student.encoder.shape
        train_student(
            student, dataset, teaching, losses, step.recovery, rng, options, f"recover{what}", start_competes=True
        )
    write_student(out, student, dataset, inputs["mix"])


def _calibrated(
    student: StudentInTraining,
    teaching: Teaching,
    losses: Sequence[SequenceLoss],
    training: Training,
    rows: Windows,
    calibration: Sequence[NDArray[np.int64]],
) -> Iterator[Tensor]:
    """The losses of some batches of training windows, of the student as it is."""
    taught = distillation(student, teaching, losses).to(student.table.free.device)
    return (student_loss(student, rows.batch(index), taught, training) for index in calibration)
