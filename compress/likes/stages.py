"""What the stages `target` and `distil` do with like/dislike data: teachers, and students with or without them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy import auc
from benchmarks.likes import user_values
from compress.data.dataset import Dataset
from compress.distil.losses import SequenceLoss, SoftLabels
from compress.distil.sequence import SequenceStudent, new_student
from compress.distil.step import Teaching
from compress.likes.model import LikesHead, LikesModel
from compress.likes.ratings import Ratings, ratings_before
from compress.likes.rows import LikeData, Rows, Split, read_logits, write_logits
from compress.likes.train import LikesTraining, Taught, log_odds_of_all, train_likes
from compress.likes.training_rows import training_rows
from compress.models.folder import load_text, write_json, write_model
from compress.models.text import TextEncoder
from compress.stage import RunOptions, Skip
from compress.store import file_sha256
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import Fit, Training, seed_everything
from compress.training.engine import device_of
from deploy.errors import UsageError

LOGITS = "logits.npz"


def train_likes_teacher(
    method: TwoLevel, domain: str, seed: int, data: Path, start: Path, out: Path, options: RunOptions
) -> None:
    """The two-level teacher with a like/dislike head: text and sequence parts, the head, logits of all rows."""
    rng = seed_everything(seed, options)
    dataset, like_data = Dataset.open(data, domain), LikeData.open(data, domain)
    rows = training_rows(like_data)
    text = load_text(start)
    assert text is not None
    teacher = TwoLevelTeacher(method, text, dataset, None)
    teacher.warm.copy_(known_items(rows, dataset.n_items)[:, None])
    head = LikesHead(teacher.encoder.shape.dim, log_odds_of_all(rows))
    module = LikesTraining(teacher, head).to(device_of(options))

    def moves(number: int) -> bool:
        return bool(method.trained_layers) and 0 < number - method.frozen_epochs <= method.text_epochs

    settled = [True]  # empty while the bank holds what the texts read as before the last steps, or with dropout

    def settle() -> None:
        if not settled:
            teacher.refresh()
            settled.append(True)

    def table(number: int, batch: Tensor) -> Tensor:
        teacher.text.train(moves(number))
        if not moves(number):
            settle()
            return teacher.table()
        settled.clear()
        present = np.unique(batch[batch > 0].cpu().numpy()) - 1
        fresh = np.sort(rng.choice(present, min(method.texts_per_step, len(present)), replace=False))
        return teacher.table(torch.from_numpy(fresh).to(device_of(options)))

    moving = [p for p in teacher.text.lm.parameters() if p.requires_grad]
    ids = {id(p) for p in moving}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in ids]
    groups = [(rest, 1.0)] + ([(moving, method.text_learning_rate_factor)] if moving else [])
    found = train_likes(module, groups, table, like_data, rows, None, method.training, rng, options, "target", settle)
    teacher.refresh()
    vectors = teacher.text_vectors().detach().cpu().numpy().astype(np.float32)
    write_likes(out, module.folded(), like_data, rows, found, teacher.text, {"item_vectors": vectors})


def train_likes_student(
    student: SequenceStudent,
    losses: Sequence[SequenceLoss],
    training: Training,
    domain: str,
    seed: int,
    data: Path,
    teacher: Path,
    out: Path,
    options: RunOptions,
) -> None:
    """A student of the teacher's logits where there are any, else a control. Raises UsageError on a ranking loss."""
    taught = taught_by(soft_labels_of("distil.loss", losses), teacher)
    rng = seed_everything(seed, options)
    dataset, like_data, teaching = Dataset.open(data, domain), LikeData.open(data, domain), Teaching(teacher)
    rows = training_rows(like_data)
    parts = new_student(student, dataset, teaching, seed)
    parts.table.warm.copy_(known_items(rows, dataset.n_items)[:, None])
    ratings = ratings_before(like_data, rows, seed) if student.rated else None
    head = LikesHead(student.dim, log_odds_of_all(rows), student.rated)
    module = LikesTraining(parts, head).to(device_of(options))
    groups = [(list(module.parameters()), 1.0)]

    def table(_number: int, _batch: Tensor) -> Tensor:
        whole: Tensor = parts.table()
        return whole

    found = train_likes(
        module, groups, table, like_data, rows, taught, training, rng, options, "distil", ratings=ratings
    )
    arrays = {} if parts.text_map is None else {"text_map": parts.text_map}
    vectors = teacher / "item_vectors.npy"
    space = file_sha256(vectors) if arrays and vectors.exists() else None
    write_likes(out, module.folded(), like_data, rows, found, None, arrays, ratings, text_space=space)


def soft_labels_of(where: str, losses: Sequence[SequenceLoss]) -> SoftLabels | None:
    """The loss that like/dislike rows are learned with beside the labels; None for `none`. Raises UsageError."""
    given = [loss for loss in losses if not isinstance(loss, Skip)]
    soft = [loss for loss in given if isinstance(loss, SoftLabels)]
    if len(soft) != len(given) or len(soft) > 1:
        got = ", ".join(loss.name for loss in given)
        raise UsageError(f"{where}: like/dislike rows are learned with soft_labels or none (got {got})")
    return soft[0] if soft else None


def taught_by(soft: SoftLabels | None, teacher: Path) -> Taught | None:
    """What the teacher says of the training rows; None where nobody asks, or it has nothing to say (a control's)."""
    if soft is None or not (teacher / LOGITS).exists():
        return None
    return Taught(soft, torch.from_numpy(read_logits(teacher / LOGITS)["train"].astype(np.float32)))


def write_likes(
    out: Path,
    model: LikesModel,
    data: LikeData,
    rows: Rows,
    found: Fit,
    text: TextEncoder | None,
    arrays: dict[str, NDArray[Any]],
    ratings: Ratings | None = None,
    **facts: Any,
) -> None:
    """A model folder with its head, `logits.npz` and what the gate reads, `valid_values.npy`."""
    asked: dict[Split, Rows] = {**data.parts, "train": rows}
    logits = {split: model.logits(some, None if ratings is None else ratings[split]) for split, some in asked.items()}
    values = {"valid_values": user_values(logits["valid"], data["valid"].labels, data["valid"].users)}
    metrics = {"valid_auc": auc(logits["valid"], data["valid"].labels), "best_epoch": found.best_epoch}
    write_model(
        out, text=text, sequence=model.sequence, arrays={**arrays, **values, **model.arrays()}, metrics=metrics, **facts
    )
    write_logits(out / LOGITS, logits)
    write_json(out / "curve.json", [[e, None if loss != loss else loss, v] for e, loss, v in found.curve])


def known_items(rows: Rows, n_items: int) -> Tensor:
    """Which items the training rows ask about: those a free vector can be learned for. float (n_items + 1,)."""
    return torch.from_numpy((np.bincount(rows.items, minlength=n_items + 1) > 0).astype(np.float32))
