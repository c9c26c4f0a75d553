"""Users and releases: sticky, in the shares asked for, and as documented."""

import hashlib
import math

import pytest
from pydantic import ValidationError

from deploy.releases.split import SLOTS, Experiment, slot

A, B = "a" * 64, "b" * 64
USERS = [f"user-{number}" for number in range(20_000)]


def test_the_hash_is_the_documented_one():
    expected = int.from_bytes(hashlib.sha256(b"november\nana").digest()[:8], "big") % 10_000
    assert slot("november", "ana") == expected == 225
    assert 0 <= slot("x", "\ud800 any \x00 text") < SLOTS


def test_shares_are_right_and_sticky():
    split = Experiment(name="november", arms={A: 1000, B: 2500}, shadows={A: 5000})
    answers = [split.answers(user) for user in USERS]
    assert answers == [Experiment(**split.model_dump()).answers(user) for user in USERS]
    for digest, share in ((A, 0.1), (B, 0.25), (None, 0.65)):
        # five standard deviations of a draw of this many users
        assert abs(answers.count(digest) / len(USERS) - share) < 5 * math.sqrt(share * (1 - share) / len(USERS))
    shadowed = [split.shadow(user) for user in USERS]
    assert abs(shadowed.count(A) / len(USERS) - 0.5) < 0.02
    both = sum(answer == A and shadow == A for answer, shadow in zip(answers, shadowed, strict=True))
    assert abs(both / len(USERS) - 0.05) < 0.01  # drawn apart


def test_a_larger_share_moves_users_to_the_candidate_alone():
    small, large = (Experiment(name="n", arms={A: share}) for share in (500, 2000))
    moves = {(small.answers(user), large.answers(user)) for user in USERS}
    assert moves == {(None, None), (None, A), (A, A)}


def test_another_name_draws_anew():
    first, second = (Experiment(name=name, arms={A: 5000}) for name in ("one", "two"))
    agree = sum(first.answers(user) == second.answers(user) for user in USERS)
    assert abs(agree / len(USERS) - 0.5) < 0.02


def test_all_none_and_nobody():
    everybody = Experiment(name="n", arms={A: SLOTS})
    assert {everybody.answers(user) for user in USERS[:1000]} == {A}
    assert {everybody.shadow(user) for user in USERS[:1000]} == {None}
    assert everybody.answers(None) is None  # who has no name cannot be kept to a release
    assert Experiment(name="n", shadows={A: SLOTS}).shadow(None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"arms": {}},
        {"arms": {A: 6000, B: 4001}},
        {"arms": {A: 0}},
        {"arms": {"short": 10}},
        {"arms": {A: 10}, "name": "line\nfeed"},
    ],
)
def test_what_makes_no_experiment(wrong):
    with pytest.raises(ValidationError):
        Experiment(**{"name": "n", **wrong})
