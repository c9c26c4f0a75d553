"""Learning curves over the target's users: `python -m benchmarks.curves RECIPE`.

Each share is a run of the recipe with `data.domains.target.train_users`: so many users train and validate, all are
asked. Smaller shares are parts of larger ones, and the cases are the same everywhere. Writes
`benchmarks/results/RECIPE.curves.{json,md,svg}`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from pydantic import Field

from benchmarks.line_chart import Point, line_chart
from benchmarks.result import Comparison, Metrics, Record, Role
from benchmarks.studies import (
    Answered,
    Study,
    answered,
    compared,
    conditions,
    head,
    leaders,
    line,
    metrics,
    per_case,
    recipe_name,
    run_command,
)
from benchmarks.tables import RESULTS
from deploy.errors import UsageError

SHARES = "0.01,0.05,0.1,0.25,1"
SEEDS = "0,1,2"


class CurvePoint(Record):
    """One variant trained on a share of the users."""

    share: float
    users: int = Field(description="users who train and validate")
    test: Metrics


class Curve(Record):
    """A variant at every share it was measured at: a student is absent where its teacher failed the gate."""

    variant: str
    role: Role
    points: list[CurvePoint]


class ShareComparison(Record):
    """The leading teacher against another variant, at one share. `relative` is the difference over what `b` has."""

    share: float
    relative: float | None
    comparison: Comparison


class CurveStudy(Study):
    """`RECIPE.curves.json`."""

    curves: list[Curve]
    comparisons: list[ShareComparison] = Field(description="Holm-corrected over all of them")


@click.command()
@click.argument("recipe")
@click.option("--shares", default=SHARES, show_default=True, help="Shares of the target's users, above 0 and up to 1.")
@click.option("--seeds", default=SEEDS, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.FIELD=VALUE", help="As for `slimrec run`.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[default: runs/RECIPE-curves]")
def main(recipe: str, shares: str, seeds: str, overrides: tuple[str, ...], out: Path | None) -> None:
    """Train RECIPE on shares of the target's users and write the table and the plot."""
    name, wanted = recipe_name(recipe), parse_shares(shares)
    folder = out or Path("runs") / f"{name}-curves"
    runs = {}
    for share in wanted:
        settings = [f"data.domains.target.train_users={share}", f"seeds=[{seeds}]", *overrides]
        runs[share] = answered(recipe, folder / f"{share:g}", settings)
    found = study(name, runs)
    found.write("curves", markdown(found))
    (RESULTS / f"{name}.curves.svg").write_text(plot(found), encoding="utf-8")
    click.echo(markdown(found))


def parse_shares(text: str) -> list[float]:
    """`0.01,0.1,1` -> ascending shares. Raises UsageError."""
    try:
        shares = sorted({float(part) for part in text.split(",")})
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UsageError(f"--shares: numbers above 0 and up to 1, with commas between (got {text!r})")
    return shares


def study(name: str, runs: Mapping[float, Answered]) -> CurveStudy:
    """The runs by share, ascending, as one record."""
    first = next(iter(runs.values()))
    names = {variant: role for run in runs.values() for variant, role in run.variants.items()}
    curves = []
    for variant, role in names.items():
        points = [
            CurvePoint(share=share, users=math.ceil(share * first.result.dataset.users), test=metrics(ranks))
            for share, run in runs.items()
            if (ranks := run.of(variant))
        ]
        curves.append(Curve(variant=variant, role=role, points=points))
    return CurveStudy(**head(name, first.result), curves=curves, comparisons=_comparisons(runs))


def _comparisons(runs: Mapping[float, Answered]) -> list[ShareComparison]:
    best = leaders(list(runs.values()))
    lead = best.get("teacher") or best.get("control")
    others: Sequence[Role] = ("teacher", "control", "student")
    pairs, means, shares = [], [], []
    for share, run in runs.items():
        for variant, role in run.variants.items():
            if lead is not None and variant != lead and role in others:
                own, other = per_case(run.of(lead)), per_case(run.of(variant))
                pairs.append((lead, own, variant, other))
                means.append(float(other.mean()))
                shares.append(share)
    return [
        ShareComparison(share=share, relative=found.difference / mean if mean else None, comparison=found)
        for share, mean, found in zip(shares, means, compared(pairs), strict=True)
    ]


def markdown(found: CurveStudy) -> str:
    """One row per variant, one column per share, then what was compared."""
    columns = {point.share: point.users for curve in found.curves for point in curve.points}
    lines = [
        "Test NDCG@10 of all users, by the share of the target's users who train and validate.",
        "",
        "| model | role | " + " | ".join(f"{share:.0%} ({users})" for share, users in columns.items()) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for curve in found.curves:
        there = {point.share: _cell(point.test) for point in curve.points}
        cells = [curve.variant, curve.role, *(there.get(share, "") for share in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"![learning curves]({found.recipe}.curves.svg)", ""]
    for row in found.comparisons:
        relative = "" if row.relative is None else f" ({row.relative:+.0%})"
        lines.append(f"- {row.share:.0%}: {line(row.comparison)}{relative}")
    return "\n".join([*lines, *conditions(found)]) + "\n"


def _cell(test: Metrics) -> str:
    low, high = test.ndcg_10_ci95 or (0.0, 0.0)
    return f"{test.ndcg_10:.4f} [{low:.4f}, {high:.4f}]"


def plot(found: CurveStudy) -> str:
    """The curves as SVG; baselines, which have no texts and no transfer, stay in the table."""
    lines: dict[str, list[Point]] = {}
    ticks: dict[float, str] = {}
    for curve in found.curves:
        if curve.role == "baseline":
            continue
        lines[curve.variant] = [
            Point(point.share, point.test.ndcg_10 or 0.0, *(point.test.ndcg_10_ci95 or (0.0, 0.0)))
            for point in curve.points
        ]
        ticks |= {point.share: f"{point.share:.0%}" for point in curve.points}
    return line_chart(lines, "share of the target's users", "test NDCG@10", ticks)


if __name__ == "__main__":
    run_command(main)
