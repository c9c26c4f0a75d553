"""Pruning the encoder of a like/dislike student, and its re-distillation afterwards."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from compress.data.dataset import Dataset
from compress.distil.losses import SequenceLoss
from compress.distil.sequence import resumed_student
from compress.distil.step import Teaching
from compress.likes.model import LikesModel
from compress.likes.ratings import ratings_before
from compress.likes.rows import LikeData
from compress.likes.stages import known_items, soft_labels_of, taught_by, write_likes
from compress.likes.train import LikesTraining, row_losses, train_likes
from compress.likes.training_rows import training_rows
from compress.models.folder import load_array, model_facts
from compress.prune.schedule import gradually
from compress.prune.sequence import StructuredSequence
from compress.prune.structured import CALIBRATION_BATCHES, cut
from compress.stage import Inputs, RunOptions
from compress.training.engine import device_of
from deploy.errors import UsageError


def prune_likes(
    model: LikesModel,
    structured: StructuredSequence,
    losses: Sequence[SequenceLoss],
    domain: str,
    seed: int,
    inputs: Inputs,
    rng: np.random.Generator,
    out: Path,
    options: RunOptions,
) -> None:
    """data, mix, distil -> the pruned student's folder, its head as well. Raises UsageError on a ranking loss, and
    where the item table is to be cut: two of its columns are leanings.

    The criterion scores the losses of training rows; the state right after the cut competes with what recovery finds.
    """
    if structured.keep_dims < 1.0:
        raise UsageError(f"prune.sequence.keep_dims: like/dislike tables keep their width (got {structured.keep_dims})")
    taught = taught_by(soft_labels_of("prune.loss", losses), inputs["mix"])
    dataset, data = Dataset.open(inputs["data"], domain), LikeData.open(inputs["data"], domain)
    rows = training_rows(data)
    text_map = load_array(inputs["distil"], "text_map")
    student = resumed_student(model.sequence, text_map, dataset, Teaching(inputs["mix"]))
    student.table.warm.copy_(known_items(rows, dataset.n_items)[:, None])
    module = LikesTraining(student, head=model.head).to(device_of(options))
    ratings = None if model.head.leaning is None else ratings_before(data, rows, seed)

    def table(_number: int, _batch: Tensor) -> Tensor:
        whole: Tensor = student.table()
        return whole

    index = np.array_split(rng.permutation(len(rows)), -(-len(rows) // 64))[:CALIBRATION_BATCHES]

    def calibrated() -> Iterator[Tensor]:
        return row_losses(module, table, 0, rows, ratings, taught, index, options)

    for step, what in list(gradually(structured, student.encoder)):
        cut(student.encoder, step, calibrated)
        student.shape = student.encoder.shape
        groups = [(list(module.parameters()), 1.0)]
        found = train_likes(
            module,
            groups,
            table,
            data,
            rows,
            taught,
            step.recovery,
            rng,
            options,
            f"recover{what}",
            ratings=ratings,
            start_competes=True,
        )
    arrays = {} if student.text_map is None else {"text_map": student.text_map}
    space = model_facts(inputs["distil"]).get("text_space")
    write_likes(out, module.folded(), data, rows, found, None, arrays, ratings, text_space=space)
