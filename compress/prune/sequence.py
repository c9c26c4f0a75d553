"""Pruning the sequence encoder, and its re-distillation afterwards."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from compress.data.dataset import Dataset
from compress.distil.distil import write_student
from compress.distil.losses import SequenceLoss
from compress.distil.sequence import distillation, resumed_student, student_loss, train_student
from compress.distil.step import Teaching
from compress.models.folder import load_array
from compress.models.sequence import SequenceModel
from compress.prune.structured import CALIBRATION_BATCHES, Structured, cut
from compress.stage import Inputs, RunOptions
from compress.training import Training, windows


class StructuredSequence(Structured):
    """The sequence encoder's, and its re-distillation afterwards."""

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
    text_map = load_array(inputs["distil"], "text_map")
    student = resumed_student(model, text_map, dataset, teaching)
    taught = distillation(student, teaching, losses)
    rows = windows(dataset.train_sequences(), model.shape.max_history)
    calibration = np.array_split(rng.permutation(len(rows.inputs)), -(-len(rows.inputs) // 64))[:CALIBRATION_BATCHES]

    def calibrated() -> Iterator[Tensor]:
        return (student_loss(student, rows.batch(index), taught, structured.recovery) for index in calibration)

    cut(student.encoder, structured, calibrated)
    student.shape = student.encoder.shape
    train_student(student, dataset, teaching, losses, structured.recovery, rng, options, "recover", start_competes=True)
    write_student(out, student, dataset, inputs["mix"])
