"""The verb `slimrec advise`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.table import Table

from benchmarks.commands import parse_columns
from compress.commands import console
from deploy.errors import UsageError

if TYPE_CHECKING:
    from compress.advise.advise import Recommendation


@click.command("advise")
@click.argument("data")
@click.option(
    "--source", metavar="DATA", help="A richer domain to learn from first: a data set, or ATTRIBUTE=VALUE,..."
)
@click.option("--items", metavar="ATTRIBUTE=VALUE,...", help="Serve these items of DATA alone.")
@click.option("--columns", default="", metavar="ROLE=NAME,...", help="Column names, such as user=customer,item=sku.")
@click.option("--max-size-mb", type=click.FloatRange(0, min_open=True), help="Of the history -> top-k part.")
@click.option("--max-p95-ms", type=click.FloatRange(0, min_open=True), help="Of one answer, on one thread of a CPU.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Recipe file.  [default: DATA's name.yaml]"
)
@click.option("--json", "as_json", is_flag=True, help="Print facts and advice as one JSON object.")
def advise(
    data: str,
    source: str | None,
    items: str | None,
    columns: str,
    max_size_mb: float | None,
    max_p95_ms: float | None,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Recommend backbone, teacher, student and budget for DATA, each with its reason, and write the recipe.

    DATA is a folder of RecBole atomic files, a CSV or Parquet file, or the name of a public data set.

    \b
    slimrec advise ml-100k --max-size-mb 0.2
    slimrec advise shop/ --source 'department=Books,Music' --items department=Film
    """
    from compress.advise.advise import advise as recommend
    from compress.advise.facts import Part
    from compress.advise.rules import Budget

    target = Part(data) if items is None else Part.parse(items, data)
    if target.where != data:
        raise UsageError(f"--items: ATTRIBUTE=VALUE,... is expected (got {items!r})")
    budget = Budget(max_size_mb, max_p95_ms, _device(device))
    first = None if source is None else Part.parse(source, data)
    found = recommend(target, first, parse_columns(columns), budget)
    path = out or Path(f"{found.name}.yaml")
    if out is None and path.exists():
        raise UsageError(f"--out: {path} exists; name another file, or this one to replace it")
    try:
        path.write_text(found.recipe, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out: cannot write this file: {error.strerror} (got {path})") from error
    if as_json:
        click.echo(as_one_line(found, path))
        return
    table = Table("about", "recommended", "because", box=None, pad_edge=False)
    for one in found.advice:
        table.add_row(one.about, one.choice, one.reason)
    console().print(table, markup=False)
    click.echo(f"recipe: {path}; look at it, then: slimrec plan {path}; slimrec run {path}")


def as_one_line(found: "Recommendation", path: Path) -> str:
    """The facts, the advice and the recipe's path as JSON."""
    content = {"facts": asdict(found.facts), "advice": [asdict(one) for one in found.advice], "recipe": str(path)}
    return json.dumps(content, ensure_ascii=False)


def _device(given: str) -> Literal["cpu", "cuda"]:
    if given == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if given == "cuda":
        raise UsageError("--device: torch sees no CUDA device (got cuda); use auto or cpu")
    return "cpu"
