"""What teachers are asked to reach, and what they reach: `python -m benchmarks.teacher [CASE...]`.

Each case of `teacher.yaml` is a run of a shipped recipe, all on one store, resumable as any run. A case's row goes into
`benchmarks/results/teacher.{json,md}` as soon as it is run; the rows of cases that were not asked for stay as they are.
"""

from pathlib import Path
from typing import Any, Literal

import click
from pydantic import Field, RootModel, TypeAdapter

from benchmarks.case_table import CaseRow, CaseTable, case_command, run_facts, wanted_cases
from benchmarks.intervals import bootstrap_ci
from benchmarks.result import Ci95, Comparison, Record, Result
from benchmarks.studies import Answered, answered, compared, line, per_case, read_plan, run_command, without
from benchmarks.tables import RESULTS
from deploy.errors import UsageError

CASES = Path(__file__).parent / "teacher.yaml"
TABLE = RESULTS / "teacher.json"
SETS = {"test": "test", "cold_items": "cold"}


class Case(Record):
    """One question: variant `a` of a recipe, alone or beside `b`, on all test users or on those whose item is cold."""

    recipe: str
    leave: list[str] = Field(default=[], description="variants that the case does not need")
    changes: list[str] = Field(default=[], description="as for slimrec run --set")
    segment: Literal["test", "cold_items"] = "test"
    a: str
    b: str | None = None
    least: float | None = Field(default=None, description="of a's NDCG@10")
    times: float | None = Field(default=None, description="a's mean over b's")


class Cases(RootModel[dict[str, Case]]):
    """`teacher.yaml`: cases by name."""


class Side(Record):
    """One variant's mean over seeds and users, and what a seed's training took, from `pretrain` to `prune`."""

    variant: str
    ndcg_10: float = Field(alias="ndcg@10")
    ci95: Ci95
    seconds: float
    peak_rss_mb: float | None


class Row(CaseRow):
    """A case as it came out. `met`: None where nothing was asked but to report."""

    case: Case
    a: Side
    b: Side | None
    comparison: Comparison | None
    met: bool | None


@case_command("runs/teacher")
def main(cases: tuple[str, ...], seeds: str, jobs: int, out: Path) -> None:
    """Run the cases whose names hold a CASE (all without one) and write their rows."""
    plan = read_plan(CASES, Cases).root
    runs: dict[str, Answered] = {}
    for name, case in wanted_cases(plan, cases, CASES).items():
        key = "-".join([case.recipe, *case.leave, *case.changes]).replace("/", "_")
        if key not in runs:
            folder = out / key
            recipe = without(case.recipe, case.leave, folder, CASES)
            runs[key] = answered(recipe, folder, [f"seeds=[{seeds}]", *case.changes], ["--jobs", str(jobs)])
        table().save(row(name, case, runs[key]), plan)
    click.echo(markdown(table().read()))


def table() -> CaseTable[Row]:
    """The committed rows."""
    return CaseTable(TABLE, TypeAdapter(list[Row]), markdown)


def row(name: str, case: Case, run: Answered) -> Row:
    """A run's answer to its question. Raises UsageError where the run measured no such variant or no cold item."""
    comparison = None
    a, of_a = _side(case.a, case, run)
    b, of_b = (None, None) if case.b is None else _side(case.b, case, run)
    if b is not None and of_b is not None:
        (comparison,) = compared([(a.variant, of_a, b.variant, of_b)])
        if case.segment == "cold_items":
            comparison = comparison.model_copy(update={"segment": "cold_items"})
    return Row(
        name=name,
        case=case,
        a=a,
        b=b,
        comparison=comparison,
        met=_met(case, a, b, comparison),
        **run_facts(run.result),
    )


def _side(variant: str, case: Case, run: Answered) -> tuple[Side, Any]:
    ranks = run.of(variant, SETS[case.segment])
    if not ranks:
        raise UsageError(f"{case.recipe}: measured no {variant} on {case.segment}")
    values = per_case(ranks)
    seconds, peak = _cost(run.result, variant)
    side = {"variant": variant, "ndcg@10": float(values.mean()), "ci95": bootstrap_ci(values)}
    return Side.model_validate(side | {"seconds": seconds, "peak_rss_mb": peak}), values


def _cost(result: Result, variant: str) -> tuple[float, float | None]:
    """Seconds a seed from pretrain to prune, and the highest memory of these steps."""
    steps = [s for s in result.stages if (s.variant or "").partition("@")[0] == variant and s.name != "quantize"]
    peaks = [s.peak_rss_mb for s in steps if s.peak_rss_mb is not None]
    return sum(s.seconds for s in steps) / len(result.protocol.seeds), max(peaks, default=None)


def _met(case: Case, a: Side, b: Side | None, comparison: Comparison | None) -> bool | None:
    """A threshold is met by the mean; what is asked of a difference, only where its interval excludes zero."""
    asked = []
    if case.least is not None:
        asked.append(a.ndcg_10 >= case.least)
    if b is not None and comparison is not None and case.times is not None:
        asked.append(a.ndcg_10 >= case.times * b.ndcg_10 and comparison.verdict == "better")
    return all(asked) if asked else None


def markdown(rows: list[Row]) -> str:
    """A line per case, then what was compared and where it ran."""
    lines = [
        "NDCG@10, full catalogue, means over seeds and users, 95 % intervals; seconds and peak memory of one seed's "
        "training, from `pretrain` to `prune`.",
        "",
        "| case | model | NDCG@10 | s | MB | beside | NDCG@10 | s | MB | ratio | asked | met |",
        "|" + "---|" * 12,
    ]
    for found in rows:
        ratio = found.a.ndcg_10 / found.b.ndcg_10 if found.b and found.b.ndcg_10 else None
        cells = [
            found.name,
            *_cells(found.a),
            *(["", "", "", ""] if found.b is None else _cells(found.b)),
            "" if ratio is None else f"{ratio:.2f}",
            _asked(found.case),
            {None: "", True: "yes", False: "no"}[found.met],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for found in rows:
        said = [line(found.comparison)] if found.comparison else []
        cases = f", {found.comparison.users} cases" if found.comparison else ""
        data = f"{found.dataset.name}: {found.dataset.users} users, {found.dataset.items} items{cases}"
        changes = [f"`{change}`" for change in found.case.changes]
        lines.append(f"- {found.name}: " + "; ".join([*said, f"`{found.case.recipe}`", *changes, data, found.where]))
    return "\n".join(lines) + "\n"


def _cells(side: Side) -> list[str]:
    low, high = side.ci95
    peak = "" if side.peak_rss_mb is None else f"{side.peak_rss_mb:.0f}"
    return [side.variant, f"{side.ndcg_10:.4f} [{low:.4f}, {high:.4f}]", f"{side.seconds:.0f}", peak]


def _asked(case: Case) -> str:
    asked = [] if case.least is None else [f"at least {case.least:g}"]
    asked += [] if case.times is None else [f"{case.times:g} times"]
    return ", ".join(asked)


if __name__ == "__main__":
    run_command(main)
