"""Data without order in time, and training on a part of the users or on few events."""

import math
from dataclasses import replace

import numpy as np

from compress.data.domains import Events
from compress.data.few_shot import FewShot
from compress.data.splits import CaseIndex, Division


def in_random_order(events: Events, seed: int) -> Events:
    """Each user's events in an order drawn once, so that no order of the file is taken for one in time."""
    chance = np.random.default_rng([seed, 1]).random(len(events.rows))
    order = np.lexsort((chance, events.owners()))
    return replace(events, rows=events.rows[order], times=events.times[order])


def train_on_some_users(division: Division, events: Events, share: float, seed: int) -> Division:
    """Keep the training events and validation cases of a share of the users, drawn; all users' test cases stay.

    That is a domain where few users are known when a model is made, asked for all who come later.
    """
    if share == 1.0:
        return division
    n = len(events.users)
    kept = np.zeros(n, bool)
    kept[np.random.default_rng([seed, 2]).permutation(n)[: math.ceil(share * n)]] = True
    asked = kept[division.valid.users]
    valid = CaseIndex(division.valid.users[asked], division.valid.positions[asked])
    return Division(division.train & kept[events.owners()], valid, division.test)


def train_on_few_events(division: Division, events: Events, few: FewShot | None, seed: int) -> Division:
    """Keep K training events and their users' validation cases; all users' test cases stay.

    That is a new domain, asked for everybody who comes later: a user asked in the test has the whole history.
    """
    if few is None:
        return division
    owners, trains = events.owners(), division.train
    counts = np.bincount(owners[trains], minlength=len(events.users))
    kept = few(counts, np.random.default_rng([seed, 3]))
    place = np.cumsum(trains) - 1 - (np.cumsum(counts) - counts)[owners]  # among the user's training events, from 0
    asked = kept[division.valid.users] > 0
    valid = CaseIndex(division.valid.users[asked], division.valid.positions[asked])
    return Division(trains & (place < kept[owners]), valid, division.test)
