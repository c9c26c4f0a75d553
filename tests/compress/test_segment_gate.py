"""The segment gate on ranks made by hand: what counts as broken, against whom, and what selection does with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.models.folder import read_json, write_json
from compress.segment_gate import Broken, broken_segments
from compress.select import SelectConfig, select
from compress.stage import RunOptions

CASES = 600
TAIL = np.arange(CASES) < 200


def row(role: str, precision: str = "fp32", valid: float = 0.5, mb: int = 1) -> dict[str, Any]:
    cached = {"path": "cached", "runtime": "onnxruntime", "device": "cpu", "p95_ms": 1.0}
    cached |= {"ratio_to_fp32": {"median": 1.0}}
    same = {"role": role, "variant": role, "seed": 0, "accuracy": {"valid": {"ndcg@10": valid}}}
    return {"name": f"{role}-{precision}", "precision": precision, "size_bytes": mb, "latency": [cached], **same}


def ranks(found_in_tail: int, found_elsewhere: int = 400) -> np.ndarray[Any, np.dtype[np.int32]]:
    """First place for so many cases of each part, not found for the others."""
    places = np.zeros(CASES, np.int32)
    places[:found_in_tail] = 1
    places[200 : 200 + found_elsewhere] = 1
    return places


ROWS = [row("control"), row("student"), row("student", "int8")]


def test_a_student_is_held_against_the_control_and_int8_against_its_own_fp32() -> None:
    """Of 200 tail cases the control finds 100, the student 50, its INT8 form 49: 2 % less, which is not 5."""
    found = {"control-fp32/valid": ranks(100), "student-fp32/valid": ranks(50), "student-int8/valid": ranks(49)}
    broken = broken_segments(ROWS, found, {"tail_items": TAIL}, 0.05)
    assert broken == {"student-fp32": [Broken("tail_items", 0.5, "control-fp32")]}
    assert str(broken["student-fp32"][0]) == "loses 50% on tail_items against control-fp32"


@pytest.mark.parametrize(
    ("found", "cases", "is_broken"),
    [(80, 200, True), (80, 199, False), (100, 200, False), (95, 200, False), (97, 200, False)],
)
def test_it_takes_200_cases_more_than_5_percent_and_an_interval_below_zero(
    found: int, cases: int, is_broken: bool
) -> None:
    """Of 100: 95 is 5 % and not more."""
    segment = np.arange(CASES) < cases
    both = {"student-fp32/valid": ranks(100), "student-int8/valid": ranks(found)}
    assert bool(broken_segments(ROWS[1:], both, {"tail_items": segment}, 0.05)) is is_broken


def test_a_loss_that_chance_explains_is_no_break() -> None:
    """10 of 100 lost, but 45 others won and 55 lost."""
    fp32, int8 = np.zeros(CASES, np.int32), np.zeros(CASES, np.int32)
    fp32[:100] = 1
    int8[55:145] = 1
    found = {"student-fp32/valid": fp32, "student-int8/valid": int8}
    assert not broken_segments(ROWS[1:], found, {"tail_items": TAIL}, 0.05)


@pytest.mark.parametrize(("limit", "selected"), [(0.05, "control-fp32"), (None, "student-fp32")])
def test_a_student_that_breaks_a_segment_does_not_ship_however_good_its_average(
    tmp_path: Path, limit: float | None, selected: str
) -> None:
    rows = [row("control", valid=0.1), row("student", valid=0.2)]
    write_json(tmp_path / "measurements.json", {"models": rows})
    np.savez(tmp_path / "ranks.npz", **{"control-fp32/valid": ranks(100, 0), "student-fp32/valid": ranks(10)})
    np.savez(tmp_path / "segments.npz", tail_items=TAIL, short_history=~TAIL)
    select(SelectConfig(max_segment_drop=limit), {"bench": tmp_path}, tmp_path, RunOptions())
    choice = read_json(tmp_path / "choice.json")
    assert choice["selected"] == selected
    assert ("refused: student-fp32 loses 90% on tail_items" in choice["reason"]) is (limit is not None)
