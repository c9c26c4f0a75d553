"""`slimrec recommend`."""

import dataclasses
import json
from pathlib import Path

import click


def _ids(_ctx: click.Context, _param: click.Parameter, value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


@click.command(short_help="Recommend items for a history.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--history", callback=_ids, required=True, metavar="ID,ID,...", help='Item ids, oldest first; "" for a new user.'
)
@click.option("-k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many items.")
@click.option("--exclude", callback=_ids, default="", metavar="ID,ID,...", help="Item ids to leave out.")
@click.option("--precision", help="Graph to use instead of the bundle's default.")
@click.option("--key", type=click.Path(path_type=Path), metavar="PUB", help="Public key that must have signed it.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def recommend(
    bundle: Path,
    history: list[str],
    k: int,
    exclude: list[str],
    precision: str | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Recommend items for a history. Unknown ids are skipped and named; without a known id, recent popularity answers.

    \b
    slimrec recommend runs/quickstart/bundle.slim --history 50,181,1 -k 5
    """
    from deploy.runtime import Recommender

    recommender = Recommender.load(bundle, key, precision=precision)
    answer = recommender.recommend(history, k, exclude)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(answer), "release": recommender.release}, ensure_ascii=False))
        return
    for unknown in answer.unknown:
        click.echo(f"unknown id, skipped: {unknown}", err=True)
    if answer.source == "popularity":
        click.echo("no known id in the history: recently popular items", err=True)
    width = max((len(item.id) for item in answer.items), default=0)
    for place, item in enumerate(answer.items, start=1):
        score = "-" if item.score is None else f"{item.score:.4f}"
        click.echo(f"{place:4d}  {score:>9}  {item.id:<{width}}  {item.title}")
