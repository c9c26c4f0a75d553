"""Which release did better with the users it answered: rates by release from the log, with intervals over users."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.feedback.export import LIKED
from deploy.feedback.reader import Damage, read
from deploy.feedback.records import Event, EventName, Shown

MIN_USERS = 30
"""With fewer, a mean over users is not near enough to normal for an interval."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """What came of a release's answers.

    rate: mean over its users of the share of their answers that something came of. ci95: of the rate, over users.
    difference, difference_ci95: of the rate to that of the first release; None for itself. Intervals are normal, and
    None where a release has fewer than `MIN_USERS` users. A user is answered by one release for as long as an
    experiment's shares stay, so users of two releases are taken as independent.
    """

    release: str
    users: int
    answers: int
    rate: float
    ci95: Interval | None
    difference: float | None = None
    difference_ci95: Interval | None = None


def compare(
    log: Path,
    *,
    since: float = -math.inf,
    experiment: str | None = None,
    events: Sequence[EventName] = LIKED,
    damage: Damage | None = None,
) -> list[Outcome]:
    """The outcome of every release that answered a known user, the one with the most users first.

    since: Unix seconds; earlier answers are left out. experiment: only answers that were recorded with its name.
    events: what counts as something. Raises UsageError where there is no log.
    """
    asked = {
        (record.request_id, record.item_id)
        for record in read(log, damage)
        if isinstance(record, Event) and record.event in events
    }
    # release -> user -> [answers, answers that something came of]
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for record in read(log):
        if not isinstance(record, Shown) or record.user is None or record.role != "answer" or record.time < since:
            continue
        if experiment is not None and record.experiment != experiment:
            continue
        count = counts[record.release][record.user]
        count[0] += 1
        count[1] += any((record.request_id, item.id) in asked for item in record.items)
    found = [_outcome(release, list(users.values())) for release, users in counts.items()]
    found.sort(key=lambda pair: (-pair[0].users, pair[0].release))
    return [pair[0] if place == 0 else _against(found[0], pair) for place, pair in enumerate(found)]


def _outcome(release: str, counts: Sequence[Sequence[int]]) -> tuple[Outcome, float]:
    """A release's outcome, and the standard error of its rate (NaN for a single user)."""
    shares = [came / answers for answers, came in counts]
    rate = math.fsum(shares) / len(shares)
    spread = math.fsum((share - rate) ** 2 for share in shares)
    error = math.sqrt(spread / (len(shares) - 1) / len(shares)) if len(shares) > 1 else math.nan
    answers = sum(answers for answers, _ in counts)
    ci95 = _interval(rate, error) if len(shares) >= MIN_USERS else None
    return Outcome(release, len(shares), answers, rate, ci95), error


def _against(first: tuple[Outcome, float], other: tuple[Outcome, float]) -> Outcome:
    (base, base_error), (outcome, error) = first, other
    difference = outcome.rate - base.rate
    both = base.ci95 is not None and outcome.ci95 is not None
    interval = _interval(difference, math.hypot(base_error, error)) if both else None
    plain = (outcome.release, outcome.users, outcome.answers, outcome.rate, outcome.ci95)
    return Outcome(*plain, difference=difference, difference_ci95=interval)


def _interval(mean: float, error: float) -> Interval:
    return mean - 1.959964 * error, mean + 1.959964 * error
