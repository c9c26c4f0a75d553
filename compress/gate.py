"""The teacher gate: distillation starts only from a teacher that beats the control on validation.

Where several teachers could teach (with a source domain and without it), validation decides too: a source that does not
help is not used (negative transfer).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg
from benchmarks.intervals import paired_difference
from compress.models.folder import load_array
from deploy.errors import UsageError


@dataclass(frozen=True)
class GateReport:
    """Validation NDCG@10 (AUC for like/dislike data) of teacher and best control, their difference and its 95 %
    interval over users."""

    passed: bool
    teacher_valid: float
    control_valid: float
    difference: float
    ci95: tuple[float, float]


def check_gate(teachers: Sequence[Path], controls: Sequence[Sequence[Path]]) -> GateReport:
    """Model folders of one teacher (one per seed) against those of every control variant (one per seed each).

    The point estimate decides, averaged over seeds; the interval is for the reader. A teacher given as lists is judged
    on the cases they cover. Raises UsageError where they cover none.
    """
    judged = np.logical_and.reduce([judged_cases(folder) for folder in teachers])
    teacher = per_user(teachers)[judged]
    control = max((per_user(seeds)[judged] for seeds in controls), key=lambda values: float(values.mean()))
    difference, ci95 = paired_difference(teacher, control)
    return GateReport(difference > 0, float(teacher.mean()), float(control.mean()), difference, ci95)


@dataclass(frozen=True)
class TeacherChoice:
    """Validation NDCG@10 of every teacher a variant might learn from, and the best's lead on the next with its 95 %
    interval over users (None where there is no other)."""

    chosen: str
    valid: Mapping[str, float]
    difference: float | None = None
    ci95: tuple[float, float] | None = None


def best_teacher(candidates: Mapping[str, Sequence[Path]]) -> str:
    """The name that validates best, averaged over its folders (seeds) and the cases all were asked; ties: the first."""
    if len(candidates) == 1:
        return next(iter(candidates))
    values = _teachers_values(candidates)
    return max(values, key=lambda name: float(values[name].mean()))


def choose_teacher(candidates: Mapping[str, Sequence[Path]]) -> TeacherChoice:
    """`best_teacher` with what it rests on. Raises UsageError where one answers no validation case."""
    values = _teachers_values(candidates)
    valid = {name: float(value.mean()) for name, value in values.items()}
    chosen, *others = sorted(valid, key=lambda name: -valid[name])
    if not others:
        return TeacherChoice(chosen, valid)
    return TeacherChoice(chosen, valid, *paired_difference(values[chosen], values[others[0]]))


def _teachers_values(candidates: Mapping[str, Sequence[Path]]) -> dict[str, NDArray[np.float64]]:
    judged = np.logical_and.reduce([judged_cases(folder) for folders in candidates.values() for folder in folders])
    return {name: per_user(folders)[judged] for name, folders in candidates.items()}


def judged_cases(folder: Path) -> NDArray[np.bool_]:
    """Which validation cases a teacher answered, bool (cases,)."""
    values, judged = _values(folder), load_array(folder, "valid_judged")
    if values is None or (judged is not None and not judged.any()):
        raise UsageError(
            "teacher gate: cannot judge a teacher that answers no validation case; give target.method lists for the "
            "validation position of users (or rows without a position), user_vectors, or an encoder"
        )
    return np.ones(len(values), bool) if judged is None else judged


def per_user(folders: Sequence[Path]) -> NDArray[np.float64]:
    """Validation NDCG@10 (or AUC) of every user, (users,), averaged over the folders (seeds)."""
    found = [_values(folder) for folder in folders]
    return np.asarray(np.mean([values for values in found if values is not None], axis=0), np.float64)


def _values(folder: Path) -> NDArray[np.float64] | None:
    ranks = load_array(folder, "valid_ranks")
    return load_array(folder, "valid_values") if ranks is None else ndcg(ranks, 10)
