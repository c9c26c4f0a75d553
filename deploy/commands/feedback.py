"""`slimrec feedback`."""

import dataclasses
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import click

from deploy.errors import UsageError

if TYPE_CHECKING:
    from deploy.feedback.reader import Damage

_LOG = click.argument("log", metavar="LOG", type=click.Path(path_type=Path, file_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")


@click.group(short_help="Read, export and delete what a device recorded.")
def feedback() -> None:
    """The log of what was shown and what came of it. Every verb works while a server appends.

    \b
    slimrec feedback export /var/lib/slimrec/feedback data/shop --catalogue bundle.slim
    slimrec feedback forget /var/lib/slimrec/feedback USER
    """


@feedback.command(short_help="Write a data set that a recipe reads.")
@_LOG
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--catalogue",
    "sources",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="SOURCE",
    help="Where titles are: a bundle, a releases folder or an .item file; the first that has an item tells.",
)
@click.option("--base", type=click.Path(path_type=Path), metavar="DATA", help="A data set whose events come first.")
@click.option(
    "--event", "events", multiple=True, metavar="NAME", help="click, like, purchase unless named; or dislike."
)
@_JSON
def export(
    log: Path, out: Path, sources: tuple[Path, ...], base: Path | None, events: tuple[str, ...], as_json: bool
) -> None:
    """Write OUT/NAME.inter, and OUT/NAME.item where titles are known (NAME is OUT's name). A recipe reads them:
    `data: {domains: {target: {from: OUT}}}`.

    \b
    slimrec feedback export /var/lib/slimrec/feedback data/shop --catalogue /var/lib/slimrec
    """
    from deploy.feedback.data_set import read_catalogues
    from deploy.feedback.export import LIKED
    from deploy.feedback.export import export as write
    from deploy.feedback.records import EventName

    allowed = get_args(EventName)
    for name in events:
        if name not in allowed:
            raise UsageError(f"feedback export: --event is one of {', '.join(allowed)} (got {name!r})")
    chosen = cast("tuple[EventName, ...]", events) or LIKED
    catalogues = [items for source in sources for items in read_catalogues(source)]
    done = write(log, out, catalogues=catalogues, base=base, events=chosen)
    if as_json:
        found = {"events": done.events, "users": done.users, "items": done.items, "left_out": done.left_out}
        return click.echo(json.dumps({**found, "damage": vars(done.damage)}))
    click.echo(f"{out}: {done.events} events of {done.users} users with {done.items} items")
    for reason, count in done.left_out.items():
        click.echo(f"left out: {count} {reason}")
    return _tell(done.damage)


@feedback.command(short_help="Print the records, one line of JSON each.")
@_LOG
def read(log: Path) -> None:
    """Print every record of LOG, oldest first; what is damaged is skipped and counted on stderr.

    \b
    slimrec feedback read /var/lib/slimrec/feedback | jq 'select(.kind == "event")'
    """
    from deploy.feedback.reader import Damage
    from deploy.feedback.reader import read as records

    damage = Damage()
    for record in records(log, damage):
        click.echo(record.model_dump_json())
    _tell(damage)


@feedback.command(short_help="Show what the log holds.")
@_LOG
@_JSON
def status(log: Path, as_json: bool) -> None:
    """Show the records of LOG, how far back they go, its bytes and what is damaged.

    \b
    slimrec feedback status /var/lib/slimrec/feedback
    """
    from deploy.feedback.reader import Damage, summarize

    damage = Damage()
    found = summarize(log, damage)
    if as_json:
        return click.echo(json.dumps({**found, "damage": vars(damage)}))
    span = " to ".join(_day(found[name]) for name in ("oldest", "newest")) if found["oldest"] is not None else "empty"
    click.echo(f"{log}: {found['shown']} answers, {found['events']} events, {span}")
    click.echo(f"{found['segments']} segments, {found['bytes'] / 1e6:.2f} MB")
    return _tell(damage)


@feedback.command(short_help="Compare the releases that answered.")
@_LOG
@click.option("--days", type=click.FloatRange(0), help="Only the answers of this many days.")
@click.option("--experiment", metavar="NAME", help="Only the answers that were recorded with this experiment.")
@_JSON
def compare(log: Path, days: float | None, experiment: str | None, as_json: bool) -> None:
    """For each release in LOG: in what share of its answers something was clicked, liked or bought, and the difference
    to the release with the most users. Means over users, with 95 % intervals.

    \b
    slimrec feedback compare /var/lib/slimrec/feedback --days 14
    """
    from deploy.feedback.compare import compare as outcomes
    from deploy.feedback.reader import Damage

    damage = Damage()
    since = float("-inf") if days is None else time.time() - days * 86_400
    found = outcomes(log, since=since, experiment=experiment, damage=damage)
    if as_json:
        return click.echo(json.dumps({"releases": [dataclasses.asdict(one) for one in found], "damage": vars(damage)}))
    for one in found:
        text = f"{one.release}: {one.users} users, {one.answers} answers, rate {one.rate:.4f}{_between(one.ci95)}"
        if one.difference is not None:
            interval = one.difference_ci95
            tie = " (a tie)" if interval and interval[0] <= 0 <= interval[1] else ""
            text += f", difference {one.difference:+.4f}{_between(interval)}{tie}"
        click.echo(text)
    if not found:
        click.echo("no answers to known users")
    return _tell(damage)


@feedback.command(short_help="Delete all of a user.")
@_LOG
@click.argument("user")
def forget(log: Path, user: str) -> None:
    """Delete what was shown to USER (the request's `user`) and what came of it.

    \b
    slimrec feedback forget /var/lib/slimrec/feedback 5f0c2a
    """
    from deploy.feedback.upkeep import forget as remove

    click.echo(f"{log}: {_writing(log, lambda: remove(log, user))} records deleted")


@feedback.command(short_help="Delete what is older than some days.")
@_LOG
@click.option("--days", type=click.FloatRange(0), required=True, help="Keep the records of this many days.")
def prune(log: Path, days: float) -> None:
    """Delete the records of LOG that are older than DAYS days by this device's clock.

    \b
    slimrec feedback prune /var/lib/slimrec/feedback --days 90
    """
    from deploy.feedback.upkeep import prune as remove

    click.echo(f"{log}: {_writing(log, lambda: remove(log, time.time() - days * 86_400))} records deleted")


def _writing(log: Path, change: Callable[[], int]) -> int:
    if not log.is_dir():
        raise UsageError(f"{log}: no such feedback log")
    try:
        return change()
    except OSError as error:
        raise UsageError(f"{log}: cannot be written ({error.strerror or error})") from None


def _tell(damage: "Damage") -> None:
    if damage:
        what = f"{damage.lines} damaged lines, {damage.records} missing records, {damage.open_segments} open segments"
        click.echo(f"skipped: {what}", err=True)


def _between(interval: tuple[float, float] | None) -> str:
    return f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else " (too few users for an interval)"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
