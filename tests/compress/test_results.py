"""What `result.json` says about models together: chosen on validation, compared on test, corrected for asking often."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.intervals import holm, paired_tests
from compress.results import chosen_variants, comparisons, per_user, transfer_ratio

Ranks = dict[str, NDArray[np.int32]]
GAIN = {0: 0.0, 1: 1.0, 3: 0.5, 11: 0.0}
"""NDCG@10 of a rank: 1 / log2(1 + rank) within ten places."""


def row(name: str, role: str, variant: str, valid: float, precision: str = "fp32", seed: int = 0) -> dict[str, Any]:
    accuracy = {"valid": {"ndcg@10": valid}}
    return {
        "name": name,
        "role": role,
        "variant": variant,
        "seed": seed,
        "precision": precision,
        "accuracy": accuracy,
    }


def ranked(**models: list[int]) -> Ranks:
    return {f"{name.replace('_', '-')}/test": np.array(ranks, np.int32) for name, ranks in models.items()}


def test_validation_in_fp32_chooses_per_role_over_all_seeds() -> None:
    rows = [
        row("a-fp32", "student", "a", 0.30),
        row("a@1-fp32", "student", "a", 0.10, seed=1),
        row("b-fp32", "student", "b", 0.21),
        row("b@1-fp32", "student", "b", 0.21, seed=1),
        row("b-int8", "student", "c", 0.90, precision="int8"),  # rounding does not choose
        row("t-fp32", "teacher", "t", 0.0),
        row("ease", "baseline", "ease", 0.2),
        row("popularity", "baseline", "popularity", 0.1),
    ]
    assert chosen_variants(rows) == {"student": "b", "teacher": "t", "baseline": "ease"}
    assert chosen_variants(rows[::-1]) == chosen_variants(rows)
    assert chosen_variants([]) == {}


def test_per_user_is_the_mean_over_seeds() -> None:
    ranks = ranked(a=[1, 3, 0, 11], b=[3, 3, 1, 0])
    assert per_user(["a"], ranks) == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert per_user(["a", "b"], ranks) == pytest.approx([0.75, 0.5, 0.5, 0.0])
    assert per_user(["a", "c"], ranks) is None  # a seed is missing: no mean over those there
    assert per_user([], ranks) is None
    assert per_user(["a"], ranks, "cold") is None


def test_transfer_ratio_by_hand() -> None:
    """Control .25, teacher .75; the student's seeds .5 and .625: (.5625 - .25) / .5."""
    ranks = ranked(c=[3, 3, 0, 0], t=[1, 1, 3, 3], s=[1, 3, 3, 0], z=[1, 3, 3, 3])
    leaders = {"control": ["c"], "teacher": ["t"], "student": ["s"]}
    assert transfer_ratio(leaders, ranks) == pytest.approx(0.5)
    assert transfer_ratio(leaders | {"student": ["s", "z"]}, ranks) == pytest.approx(0.625)
    assert transfer_ratio(leaders | {"student": ["c"]}, ranks) == 0.0


def test_there_is_no_transfer_ratio_without_a_teacher_above_the_control() -> None:
    ranks = ranked(c=[3, 3, 0, 0], t=[3, 3, 0, 11], w=[3, 0, 0, 0], s=[1, 3, 3, 0])
    leaders = {"control": ["c"], "student": ["s"]}
    assert transfer_ratio(leaders | {"teacher": ["t"]}, ranks) is None  # equal
    assert transfer_ratio(leaders | {"teacher": ["w"]}, ranks) is None  # worse
    assert transfer_ratio(leaders, ranks) is None  # none
    assert transfer_ratio(leaders | {"teacher": ["lost"]}, ranks) is None


@pytest.fixture
def film_rows() -> list[dict[str, Any]]:
    return [
        row("control-fp32", "control", "control", 0.3),
        row("big-fp32", "teacher", "big", 0.4),
        row("big@1-fp32", "teacher", "big", 0.4, seed=1),
        row("plain-fp32", "teacher", "plain", 0.35),
        row("small-fp32", "student", "small", 0.35),
        row("small-int8", "student", "small", 0.34, precision="int8"),
        row("ease", "baseline", "ease", 0.2),
    ]


@pytest.fixture
def film_ranks(film_rows: list[dict[str, Any]]) -> Ranks:
    """40 users, each model a little worse than the one before it."""
    rng = np.random.default_rng(0)
    return {
        f"{r['name']}/test": rng.choice([1, 3, 0], 40, p=[0.9 - i / 8, 0.05, 0.05 + i / 8]).astype(np.int32)
        for i, r in enumerate(film_rows)
    }


LEADERS = {
    "control": ["control-fp32"],
    "teacher": ["big-fp32", "big@1-fp32"],
    "student": ["small-fp32"],
    "baseline": ["ease"],
}


def test_comparisons_are_paired_averaged_over_seeds_and_holm_corrected(
    film_rows: list[dict[str, Any]], film_ranks: Ranks
) -> None:
    found = comparisons(film_rows, LEADERS, film_rows[5], film_ranks)
    gains = {name.removesuffix("/test"): np.vectorize(GAIN.get)(ranks) for name, ranks in film_ranks.items()}
    teacher = (gains["big-fp32"] + gains["big@1-fp32"]) / 2
    control, student = gains["control-fp32"], gains["small-fp32"]
    wanted = [
        ("teacher big", "control", teacher, control),
        ("student small", "control", student, control),
        ("student small", "teacher big", student, teacher),
        ("control", "baseline ease", control, gains["ease"]),
        ("teacher big", "teacher plain", teacher, gains["plain-fp32"]),
        ("small-int8", "small-fp32", gains["small-int8"], student),
    ]
    assert [(c.a, c.b) for c in found] == [(a, b) for a, b, _, _ in wanted]
    for comparison, (_, _, first, second) in zip(found, wanted, strict=True):
        assert comparison.difference == pytest.approx((first - second).mean())
        assert comparison.ci95[0] <= comparison.difference <= comparison.ci95[1]
        assert comparison.p == paired_tests([(first, second)])[0].p
        assert (comparison.users, comparison.metric) == (40, "ndcg@10")
    p_values = [c.p for c in found if c.p is not None]
    assert [c.p_holm for c in found] == holm(p_values)
    smallest = min(found, key=lambda c: c.p or 0.0)
    assert smallest.p is not None
    assert smallest.p_holm == pytest.approx(min(1.0, smallest.p * len(found)))


def test_what_was_not_measured_is_not_compared(film_rows: list[dict[str, Any]], film_ranks: Ranks) -> None:
    ranks = {name: found for name, found in film_ranks.items() if name != "big@1-fp32/test"}
    leaders = {role: names for role, names in LEADERS.items() if role != "baseline"}
    found = comparisons(film_rows, leaders, None, ranks)
    assert [(c.a, c.b) for c in found] == [("student small", "control")]
    assert found[0].p_holm == found[0].p  # asked once
    assert comparisons(film_rows, {}, None, ranks) == []


def test_what_ships_is_compared_with_the_fp32_of_its_own_seed(film_ranks: Ranks) -> None:
    rows = [
        row("small-fp32", "student", "small", 0.3),
        row("small-int8", "student", "small", 0.3, precision="int8"),
        row("small@1-fp32", "student", "small", 0.3, seed=1),
    ]
    found = comparisons(rows, {}, rows[1], film_ranks)
    assert [(c.a, c.b) for c in found] == [("small-int8", "small-fp32")]


def test_models_that_ship_in_fp32_alone_have_nothing_to_be_compared_with(film_ranks: Ranks) -> None:
    rows = [row("small-fp32", "student", "small", 0.3)]
    assert comparisons(rows, {}, rows[0], film_ranks) == []
