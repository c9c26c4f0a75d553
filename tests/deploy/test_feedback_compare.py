"""Rates by release: counted by hand, and right about a difference that is there."""

import json
import math
import random

from deploy.cli import run_command
from deploy.feedback import Event, FeedbackLog, Shown, ShownItem
from deploy.feedback.compare import MIN_USERS, compare


def answer(request: str, user: str | None, release: str, role: str = "answer", **more: object) -> Shown:
    items = [ShownItem(id="a"), ShownItem(id="b")]
    return Shown(request_id=request, user=user, release=release, items=items, time=100.0, role=role, **more)


def event(request: str, item: str = "a", name: str = "click") -> Event:
    return Event(request_id=request, item_id=item, event=name, ts=101.0, time=101.0)


def test_by_hand(tmp_path):
    with FeedbackLog(tmp_path) as log:
        for record in [
            answer("1", "ana", "x"),
            answer("2", "ana", "x"),
            answer("3", "ben", "x"),
            event("1"),
            event("1", "b", "like"),  # one answer, counted once
            event("3", name="dislike"),
            event("2", "c"),  # was not shown
            answer("4", "cy", "y", experiment="november"),
            event("4", "b", "purchase"),
            answer("5", None, "y"),
            event("5"),
            answer("6", "dan", "y", role="shadow"),
        ]:
            log.append(record)
    x, y = compare(tmp_path)
    assert (x.release, x.users, x.answers, x.rate, x.difference) == ("x", 2, 3, 0.25, None)
    assert (y.release, y.users, y.answers, y.rate, y.difference) == ("y", 1, 1, 1.0, 0.75)
    assert x.ci95 is None and y.difference_ci95 is None
    assert [one.release for one in compare(tmp_path, experiment="november")] == ["y"]
    assert compare(tmp_path, since=100.5) == []
    assert compare(tmp_path, events=("dislike",))[0].rate == 0.5


def test_an_interval_over_users(tmp_path, capsys):
    """Users of x react to 20 % of their answers, users of y to 40 %; users of z as those of x."""
    rng, shares = random.Random(1), {"x": 0.2, "y": 0.4, "z": 0.2}
    by_user: dict[str, list[float]] = {release: [] for release in shares}
    with FeedbackLog(tmp_path) as log:
        futures = []
        for number in range(900):
            release = "xyz"[number % 3] if number < 899 else "x"
            reacted = [rng.random() < shares[release] for _ in range(5)]
            by_user[release].append(sum(reacted) / 5)
            for turn, did in enumerate(reacted):
                futures.append(log.submit(answer(f"{number}-{turn}", f"u{number}", release)))
                if did:
                    futures.append(log.submit(event(f"{number}-{turn}")))
        for future in futures:
            future.result(10)
    x, z, y = sorted(compare(tmp_path), key=lambda one: "xzy".index(one.release))
    for one in (x, y, z):
        mine = by_user[one.release]
        assert one.users == len(mine) >= MIN_USERS and math.isclose(one.rate, sum(mine) / len(mine))
        deviation = math.sqrt(sum((share - one.rate) ** 2 for share in mine) / (len(mine) - 1))
        assert math.isclose(one.ci95[1] - one.rate, 1.959964 * deviation / math.sqrt(len(mine)))
        assert one.ci95[0] < shares[one.release] < one.ci95[1]
    assert y.difference_ci95[0] > 0.1 and z.difference_ci95[0] < 0 < z.difference_ci95[1]
    assert run_command(["feedback", "compare", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("x: 301 users, 1505 answers, rate 0.") and "difference" not in lines[0]
    assert sum("(a tie)" in line for line in lines) == 1
    assert run_command(["feedback", "compare", str(tmp_path), "--days", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["releases"] == []
