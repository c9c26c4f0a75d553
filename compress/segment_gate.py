"""The segment gate: a candidate that keeps the average and breaks a segment of users is refused.

A quantized candidate is held against its own fp32, a student in fp32 against the control that validates best; both on
validation. Cold items are not judged here: their cases are all test cases, which choose nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg
from benchmarks.intervals import paired_difference
from compress.task import valid_value

LEAST_CASES = 200

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Broken:
    """A segment's loss of validation NDCG@10, relative to that of the model named `against`."""

    segment: str
    loss: float
    against: str

    def __str__(self) -> str:
        return f"loses {self.loss:.0%} on {self.segment} against {self.against}"


def broken_segments(
    rows: Sequence[Row],
    ranks: Mapping[str, NDArray[np.int32]],
    segments: Mapping[str, NDArray[np.bool_]],
    most: float,
) -> dict[str, list[Broken]]:
    """By candidate what it breaks. ranks: `<model>/valid` -> (cases,) places of the targets; segments: (cases,) each.

    Broken: at least 200 cases, more than `most` of the reference's NDCG@10 lost, and the paired 95 % interval below 0.
    """
    found: dict[str, list[Broken]] = defaultdict(list)
    for row in rows:
        reference = _reference(row, rows)
        if reference is None or any(f"{name}/valid" not in ranks for name in (row["name"], reference)):
            continue
        own, other = (ndcg(ranks[f"{name}/valid"], 10) for name in (row["name"], reference))
        for segment, mask in segments.items():
            if mask.sum() < LEAST_CASES or not other[mask].any():
                continue
            difference, (_, high) = paired_difference(own[mask], other[mask])
            loss = -difference / float(other[mask].mean())
            if loss > most and high < 0:
                found[row["name"]].append(Broken(segment, loss, reference))
    return dict(found)


def _reference(row: Row, rows: Sequence[Row]) -> str | None:
    """The name of what a candidate is held against; None for what only others are held against."""
    if row["precision"] != "fp32":
        wanted = [r for r in rows if (r["variant"], r["seed"], r["precision"]) == (row["variant"], row["seed"], "fp32")]
    elif row["role"] == "student":
        wanted = [r for r in rows if (r["role"], r["seed"], r["precision"]) == ("control", row["seed"], "fp32")]
    else:
        return None
    return None if not wanted else str(max(wanted, key=valid_value)["name"])
