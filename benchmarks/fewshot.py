"""Adaptation to K interactions: `python -m benchmarks.fewshot RECIPE`.

Each K and seed is a run of the recipe with `data.domains.target.few_shot.events`; the seed draws which interactions are
known, too. A smaller K is a part of a larger one, and the cases are the same everywhere. Writes
`benchmarks/results/RECIPE.fewshot.{json,md}`.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import click
from pydantic import Field

from benchmarks.accuracy import ndcg
from benchmarks.result import Comparison, Metrics, Record, Role
from benchmarks.studies import (
    Answered,
    Ranks,
    Study,
    answered,
    compared,
    conditions,
    head,
    line,
    metrics,
    per_case,
    recipe_name,
    run_command,
)
from deploy.errors import UsageError

SHOTS = "5,10,20,50"
SEEDS = "0,1,2"


class Shot(Record):
    """One variant that knows `events` interactions of the domain."""

    events: int
    test: Metrics = Field(description="means over draws and users; the interval is over users")
    per_draw: list[float] = Field(description="test NDCG@10 of each draw of the interactions")


class Adapted(Record):
    """A variant at every K it was measured at."""

    variant: str
    role: Role
    shots: list[Shot]


class ShotComparison(Record):
    """Two teachers at one K."""

    events: int
    comparison: Comparison


class FewShotStudy(Study):
    """`RECIPE.fewshot.json`."""

    variants: list[Adapted]
    comparisons: list[ShotComparison] = Field(description="all pairs of teachers, Holm-corrected over all of them")


@click.command()
@click.argument("recipe")
@click.option("--events", "shots", default=SHOTS, show_default=True, help="K: interactions known of the target.")
@click.option("--seeds", default=SEEDS, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.FIELD=VALUE", help="As for `slimrec run`.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[default: runs/RECIPE-fewshot]")
def main(recipe: str, shots: str, seeds: str, overrides: tuple[str, ...], out: Path | None) -> None:
    """Adapt RECIPE's teachers to K interactions of its target and write the table."""
    name, events, drawn = recipe_name(recipe), whole_numbers("--events", shots, 2), whole_numbers("--seeds", seeds, 0)
    folder = out or Path("runs") / f"{name}-fewshot"
    runs: dict[int, list[Answered]] = {}
    for k in events:
        for seed in drawn:
            settings = [f"data.domains.target.few_shot.events={k}", f"data.seed={seed}", f"seeds=[{seed}]", *overrides]
            runs.setdefault(k, []).append(answered(recipe, folder / f"{k}-{seed}", settings))
    found = study(name, runs, drawn)
    found.write("fewshot", markdown(found))
    click.echo(markdown(found))


def whole_numbers(option: str, text: str, least: int) -> list[int]:
    """`5,10` -> ascending numbers of at least `least`. Raises UsageError."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < least:
        raise UsageError(f"{option}: whole numbers from {least}, with commas between (got {text!r})")
    return numbers


def study(name: str, runs: Mapping[int, Sequence[Answered]], seeds: Sequence[int]) -> FewShotStudy:
    """The runs by K, ascending, one per seed, as one record."""
    first = next(iter(runs.values()))[0]
    names = {variant: role for drawn in runs.values() for run in drawn for variant, role in run.variants.items()}
    variants = []
    for variant, role in names.items():
        shots = [
            Shot(events=k, test=metrics(ranks), per_draw=[float(ndcg(draw, 10).mean()) for draw in ranks])
            for k, drawn in runs.items()
            if (ranks := _of_all(drawn, variant))
        ]
        variants.append(Adapted(variant=variant, role=role, shots=shots))
    fields = head(name, first.result) | {"seeds": list(seeds)}
    return FewShotStudy(**fields, variants=variants, comparisons=_comparisons(runs, names))


def _of_all(drawn: Sequence[Answered], variant: str) -> list[Ranks]:
    """A variant's test ranks, one array per draw; none where a draw lacks it."""
    found = [run.of(variant) for run in drawn]
    return [ranks for draw in found for ranks in draw] if all(found) else []


def _comparisons(runs: Mapping[int, Sequence[Answered]], roles: Mapping[str, Role]) -> list[ShotComparison]:
    teachers = [variant for variant, role in roles.items() if role == "teacher"]
    pairs, events = [], []
    for k, drawn in runs.items():
        for one, two in combinations(teachers, 2):
            if (first := _of_all(drawn, one)) and (second := _of_all(drawn, two)):
                pairs.append((one, per_case(first), two, per_case(second)))
                events.append(k)
    return [ShotComparison(events=k, comparison=found) for k, found in zip(events, compared(pairs), strict=True)]


def markdown(found: FewShotStudy) -> str:
    """One row per variant, one column per K, then every pair of teachers."""
    columns = sorted({shot.events for variant in found.variants for shot in variant.shots})
    lines = [
        "Test NDCG@10 of all users after K interactions of the domain are known (lowest to highest of the draws).",
        "",
        "| model | role | " + " | ".join(f"K = {k}" for k in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for variant in found.variants:
        there = {shot.events: _cell(shot) for shot in variant.shots}
        lines.append("| " + " | ".join([variant.variant, variant.role, *(there.get(k, "") for k in columns)]) + " |")
    lines += ["", *(_line(row) for row in found.comparisons)]
    return "\n".join([*lines, *conditions(found)]) + "\n"


def _line(row: ShotComparison) -> str:
    corrected = "" if row.comparison.p_holm is None else f"; p {row.comparison.p_holm:.3f} after Holm's correction"
    return f"- K = {row.events}: {line(row.comparison)}{corrected}"


def _cell(shot: Shot) -> str:
    low, high = shot.test.ndcg_10_ci95 or (0.0, 0.0)
    draws = f" ({min(shot.per_draw):.4f} to {max(shot.per_draw):.4f})" if len(shot.per_draw) > 1 else ""
    return f"{shot.test.ndcg_10:.4f} [{low:.4f}, {high:.4f}]{draws}"


if __name__ == "__main__":
    run_command(main)
