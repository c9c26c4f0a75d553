"""Which events train and which are asked: leave-one-out, global time, folds of users."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from compress.data.domains import Events
from compress.stage import Entry, Shorthand
from deploy.errors import UsageError


@dataclass(frozen=True)
class CaseIndex:
    """Cases of one set: `users` int32, `positions` int64 (index of the target among all events), both (cases,)."""

    users: NDArray[np.int32]
    positions: NDArray[np.int64]


@dataclass(frozen=True)
class Division:
    """`train` bool (events,) and the validation and test cases."""

    train: NDArray[np.bool_]
    valid: CaseIndex
    test: CaseIndex


class LeaveOneOut(Entry):
    """A user's last event is the test case, the one before the validation case, the rest trains.

    A case needs a history: with two events only the last is asked, with one none. Ties in time keep source order.
    """

    name: Literal["leave_one_out"] = "leave_one_out"

    def __call__(self, events: Events, timed: bool) -> Division:  # noqa: ARG002 - one signature for all splits
        counts = np.diff(events.offsets)
        users = np.arange(len(counts))
        ends = events.offsets[1:]
        test, valid = counts >= 2, counts >= 3
        train = np.ones(len(events.rows), dtype=bool)
        train[ends[test] - 1] = False
        train[ends[valid] - 2] = False
        return Division(train, _cases(users[valid], ends[valid] - 2), _cases(users[test], ends[test] - 1))


class RandomLiked(Entry):
    """For data without order: one of a user's events, drawn, is the test case, another the validation case.

    The data stage has put each user's events in a random order before (`compress.data.order`), so that the last is as
    good as any. With `min_rating` events are likes.
    """

    name: Literal["random_liked"] = "random_liked"

    def __call__(self, events: Events, timed: bool) -> Division:
        return LeaveOneOut()(events, timed)


class TimeSplit(Entry):
    """Two cuts in time for everybody: quantiles of the events' times.

    Events before the first cut train. A user's validation case is the first event between the cuts, the test case the
    first at or after the second cut, each with at least one earlier event of the user; the history is all of those.
    """

    name: Literal["time"] = "time"
    valid_from: float = Field(default=0.8, gt=0, lt=1)
    test_from: float = Field(default=0.9, gt=0, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> "TimeSplit":
        if self.valid_from >= self.test_from:
            raise ValueError(f"valid_from must lie before test_from (got {self.valid_from} and {self.test_from})")
        return self

    def __call__(self, events: Events, timed: bool) -> Division:
        if not timed:
            raise UsageError("data.split: a time split needs a time column; use leave_one_out (got data without times)")
        first_cut, second_cut = np.quantile(events.times, [self.valid_from, self.test_from])
        train = events.times < first_cut
        if not train.any():
            raise UsageError("data.split: no event lies before the first cut; choose other quantiles (got 0 events)")
        middle = ~train & (events.times < second_cut)
        return Division(train, _first(events, middle), _first(events, events.times >= second_cut))


class UserFolds(Entry):
    """Cross-validation over users: whole users are asked, and nothing that they did trains.

    A hash of a user's id tells the fold, so that a user of several domains is in the same one everywhere. Users of
    `fold` are the test cases, users of the next fold the validation cases, each asked for the last event after all
    before it; the others train on all their events (strong generalisation, as Liang et al. 2018 have it).
    """

    name: Literal["user_folds"] = "user_folds"
    folds: int = Field(default=5, ge=3, le=100)
    fold: int = Field(default=0, ge=0, description="from 0")
    draw: int = Field(default=0, ge=0, lt=2**32, description="another number is another partition")

    @model_validator(mode="after")
    def _one_of_the_folds(self) -> "UserFolds":
        if self.fold >= self.folds:
            raise ValueError(f"fold is one of 0 to {self.folds - 1} (got {self.fold})")
        return self

    def __call__(self, events: Events, timed: bool) -> Division:  # noqa: ARG002 - one signature for all splits
        fold_of = np.array([self.fold_of(user) for user in events.users], np.int64)
        tested, validated = fold_of == self.fold, fold_of == (self.fold + 1) % self.folds
        asked, last = np.diff(events.offsets) >= 2, events.offsets[1:] - 1
        train = ~(tested | validated)[events.owners()]
        valid, test = (np.flatnonzero(asked & some) for some in (validated, tested))
        if not (len(valid) and len(test) and train.any()):
            raise UsageError(
                f"data.split.folds: a fold without a user to ask, or none to train on; choose fewer (got {self.folds} "
                f"for {len(events.users)} users)"
            )
        return Division(train, _cases(valid, last[valid]), _cases(test, last[test]))

    def fold_of(self, user: str) -> int:
        """The fold of a user id."""
        return int.from_bytes(hashlib.sha256(f"{self.draw} {user}".encode()).digest()[:8]) % self.folds


class Published(Entry):
    """Like/dislike rows split by whoever published them (`NAME.train.inter`, `.valid.inter`, `.test.inter`).

    With `shots` only so many rows train, drawn with the seed of `data`; where the data set has no training rows they
    are taken from its validation rows.
    """

    name: Literal["published"] = "published"
    shots: int | None = Field(default=None, ge=1, le=1_000_000, description="training rows kept; default: all")
    liked_from: float | None = Field(default=None, description="a rating from this on is a like; default: labels 0, 1")


Split = Annotated[LeaveOneOut | RandomLiked | TimeSplit | UserFolds | Published, Field(discriminator="name"), Shorthand]


def _first(events: Events, window: NDArray[np.bool_]) -> CaseIndex:
    """Each user's first event in `window` that is not the user's first of all."""
    eligible = window.copy()
    eligible[events.offsets[:-1][np.diff(events.offsets) > 0]] = False
    positions = np.flatnonzero(eligible)
    users, first = np.unique(events.owners()[positions], return_index=True)
    return _cases(users, positions[first])


def _cases(users: NDArray[np.int64], positions: NDArray[np.int64]) -> CaseIndex:
    return CaseIndex(users.astype(np.int32), positions.astype(np.int64))


@dataclass(frozen=True)
class Cold:
    """Items made cold and who is asked for them: `items` int32 rows; per case `users` and `targets` int32 (cases,)."""

    items: NDArray[np.int32]
    users: NDArray[np.int32]
    targets: NDArray[np.int32]


def make_cold(events: Events, n_items: int, fraction: float, seed: int) -> tuple[Events, Cold]:
    """Draws `fraction` of the items and takes all their events away.

    A cold case is a user whose last event was on such an item and who has events left: its history.
    """
    count = round(fraction * n_items)
    rows = np.sort(np.random.default_rng(seed).permutation(n_items)[:count] + 1).astype(np.int32)
    kept = events.keep(~np.isin(events.rows, rows))
    has = np.flatnonzero(np.diff(events.offsets) > 0)
    last = events.rows[events.offsets[1:][has] - 1]
    asked = np.isin(last, rows) & (np.diff(kept.offsets)[has] > 0)
    return kept, Cold(rows, has[asked].astype(np.int32), last[asked])
