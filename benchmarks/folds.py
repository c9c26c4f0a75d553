"""k-fold cross-validation over users: `python -m benchmarks.folds RECIPE --folds 5`.

Each fold is a run of the recipe with `data.split: {name: user_folds, fold: ...}`: the users of one fold are asked and
took no part in training, so over all folds every user is asked once, by models that never saw that user. Writes
`benchmarks/results/RECIPE.folds.{json,md}`.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from pydantic import Field

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
    pooled,
    recipe_name,
    run_command,
)

PAIRS: tuple[tuple[Role, Role], ...] = (
    ("teacher", "control"),
    ("student", "control"),
    ("student", "teacher"),
    ("control", "baseline"),
)


class FoldedVariant(Record):
    """One variant over the folds it was measured in: a student is absent where its teacher failed the gate."""

    variant: str
    role: Role
    folds: list[int]
    by_fold: list[float] = Field(description="test NDCG@10 of each of `folds`")
    test: Metrics = Field(description="over the users of all of `folds`, each asked once")


class FoldStudy(Study):
    """`RECIPE.folds.json`."""

    folds: int
    variants: list[FoldedVariant]
    leaders: dict[Role, str] = Field(description="per role the variant that validates best over all folds")
    comparisons: list[Comparison]


@click.command()
@click.argument("recipe")
@click.option("--folds", type=click.IntRange(3, 100), default=5, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.FIELD=VALUE", help="As for `slimrec run`.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[default: runs/RECIPE-folds]")
def main(recipe: str, folds: int, overrides: tuple[str, ...], out: Path | None) -> None:
    """Cross-validate RECIPE over users and write its table."""
    name = recipe_name(recipe)
    folder = out or Path("runs") / f"{name}-folds"
    runs = []
    for fold in range(folds):
        split = f"data.split={{name: user_folds, folds: {folds}, fold: {fold}}}"
        runs.append(answered(recipe, folder / str(fold), [split, *overrides]))
    found = study(name, runs)
    found.write("folds", markdown(found))
    click.echo(markdown(found))


def study(name: str, runs: Sequence[Answered]) -> FoldStudy:
    """The folds' runs, in order, as one record."""
    best = leaders(runs)
    values = {role: per_case(pooled(runs, variant) or []) for role, variant in best.items()}
    pairs = [(best[a], values[a], best[b], values[b]) for a, b in PAIRS if a in best and b in best]
    names = {variant: role for run in runs for variant, role in run.variants.items()}
    return FoldStudy(
        **head(name, runs[0].result),
        folds=len(runs),
        variants=[_folded(runs, variant, role) for variant, role in names.items()],
        leaders=best,
        comparisons=compared(pairs),
    )


def _folded(runs: Sequence[Answered], variant: str, role: Role) -> FoldedVariant:
    there = [fold for fold, run in enumerate(runs) if run.of(variant)]
    some = [runs[fold] for fold in there]
    ranks = pooled(some, variant)
    assert ranks is not None  # `there` has only runs that measured it, all with the same seeds
    by_fold = [float(per_case(run.of(variant)).mean()) for run in some]
    return FoldedVariant(variant=variant, role=role, folds=there, by_fold=by_fold, test=metrics(ranks))


def markdown(found: FoldStudy) -> str:
    """One row per variant, then what was compared."""
    lines = [
        f"{found.folds}-fold cross-validation over users: a user is asked by models that trained on others alone.",
        "",
        "| model | role | NDCG@10 | 95 % | over folds | recall@10 | precision@10 | F1@10 | MRR | users |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found.variants:
        test, chosen = row.test, found.leaders.get(row.role) == row.variant
        low, high = test.ndcg_10_ci95 or (0.0, 0.0)
        spread = f"{min(row.by_fold):.4f} to {max(row.by_fold):.4f}, sd {np.std(row.by_fold):.4f}"
        if len(row.folds) < found.folds:
            spread += f" ({len(row.folds)} of {found.folds} folds)"
        means = (test.recall_10, test.precision_10, test.f1_10, test.mrr)
        cells = [row.variant, row.role + (" *" if chosen else ""), f"{test.ndcg_10:.4f}", f"{low:.4f} to {high:.4f}"]
        cells += [spread, *(f"{value:.4f}" for value in means), str(test.cases)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "* validates best of its role over all folds.", ""]
    lines += [f"- {line(comparison)}" for comparison in found.comparisons]
    return "\n".join([*lines, *conditions(found)]) + "\n"


if __name__ == "__main__":
    run_command(main)
