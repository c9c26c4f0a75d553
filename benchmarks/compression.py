"""What compressed models are asked to be, and what they are: `python -m benchmarks.compression [CASE...]`.

Each case of `compression.yaml` is a run of a shipped recipe, all on one store, resumable as any run. A case's findings
go into `benchmarks/results/compression.{json,md}` as soon as it is run; those of other cases stay as they are.
"""

from collections.abc import Mapping
from pathlib import Path

import click
from pydantic import Field, TypeAdapter

from benchmarks.case_table import CaseRow, CaseTable, case_command, run_facts, wanted_cases
from benchmarks.compressed import MEASURES, Measured
from benchmarks.result import Record
from benchmarks.runs import run_recipe
from benchmarks.studies import read_plan, run_command, without
from benchmarks.tables import RESULTS
from deploy.errors import UsageError

CASES = Path(__file__).parent / "compression.yaml"
TABLE = RESULTS / "compression.json"


class Case(Record):
    """A recipe without the variants `leave`, and what is asked of it alone."""

    recipe: str
    leave: list[str] = Field(default=[], description="variants that the case does not need")
    asked: dict[str, float] = Field(default={}, description="beside what is asked of all")


class Plan(Record):
    """`compression.yaml`: what is asked of every measure, by its name, and the cases."""

    asked: dict[str, float]
    cases: dict[str, Case] = Field(min_length=1)


class Finding(Record):
    """One measure of one case. `met`: None where nothing is asked of it."""

    measure: str
    got: float
    detail: str
    asked: float | None
    met: bool | None


class Row(CaseRow):
    """A case as it came out; measures that its data cannot tell are absent."""

    recipe: str
    findings: list[Finding]


@case_command("runs/compression")
def main(cases: tuple[str, ...], seeds: str, jobs: int, out: Path) -> None:
    """Run the cases whose names hold a CASE (all without one) and write their findings."""
    plan = read_plan(CASES, Plan)
    unknown = set(plan.asked).union(*(case.asked for case in plan.cases.values())) - set(MEASURES)
    if unknown:
        raise UsageError(
            f"{CASES.name}: no such measure: {', '.join(sorted(unknown))}; there are: {'; '.join(MEASURES)}"
        )
    for name, case in wanted_cases(plan.cases, cases, CASES).items():
        folder = out / Path(case.recipe).stem
        recipe = without(case.recipe, case.leave, folder, CASES)
        run_recipe(recipe, folder, [f"seeds=[{seeds}]"], ["--jobs", str(jobs)])
        table().save(row(name, case, plan.asked | case.asked, Measured.read(folder)), plan.cases)
    click.echo(markdown(table().read()))


def table() -> CaseTable[Row]:
    """The committed rows."""
    return CaseTable(TABLE, TypeAdapter(list[Row]), markdown)


def row(name: str, case: Case, asked: Mapping[str, float], run: Measured) -> Row:
    """All measures that the run can tell, in the order of `MEASURES`."""
    findings = []
    for measure, how in MEASURES.items():
        got, wanted = how.read(run), asked.get(measure)
        if got is not None:
            met = None if wanted is None else how.met(got, wanted)
            findings.append(Finding(measure=measure, got=got.value, detail=got.detail, asked=wanted, met=met))
    return Row(
        name=name,
        recipe=case.recipe,
        findings=findings,
        **run_facts(run.result),
    )


def markdown(rows: list[Row]) -> str:
    """A line per case and measure, then where each case ran."""
    lines = [
        "Means over seeds and test users, read once; 95 % intervals by paired bootstrap over users; times as medians "
        "of interleaved rounds, one thread. Met: the value, and where a lead is asked its interval too.",
        "",
        "| case | measure | got | asked | met | from |",
        "|---|---|---|---|---|---|",
    ]
    for found in rows:
        for one in found.findings:
            cells = [
                found.name,
                one.measure,
                f"{one.got:.4g}" if one.got < 100 else f"{one.got:.0f}",
                _asked(one),
                {None: "", True: "yes", False: "**no**"}[one.met],
                one.detail,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for found in rows:
        data = f"{found.dataset.name}: {found.dataset.users} users, {found.dataset.items} items"
        lines.append(f"- {found.name}: `{found.recipe}`; {data}; {found.where}")
    return "\n".join(lines) + "\n"


def _asked(finding: Finding) -> str:
    if finding.asked is None:
        return ""
    return f"at {'most' if MEASURES[finding.measure].at_most else 'least'} {finding.asked:g}"


if __name__ == "__main__":
    run_command(main)
