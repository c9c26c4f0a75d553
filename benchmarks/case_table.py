"""Tables whose rows are made one case at a time: the cases a plan names, and the file that keeps a row of each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import click
from pydantic import TypeAdapter

from benchmarks.result import Dataset, Machine, Record, Result
from deploy.errors import UsageError


class CaseRow(Record):
    """How a case came out, under its name, and where it was run."""

    name: str
    seeds: list[int]
    dataset: Dataset
    machine: Machine
    commit: str

    @property
    def where(self) -> str:
        """Seeds, machine and commit, as a table's last lines have them."""
        return f"seeds {self.seeds}; {self.machine.cpu}, {self.machine.cores} cores; commit {self.commit}"


def run_facts(result: Result) -> dict[str, Any]:
    """The fields of a `CaseRow` that its run tells."""
    same = {"dataset": result.dataset, "machine": result.machine, "commit": result.commit}
    return {"seeds": result.protocol.seeds, **same}


Case = TypeVar("Case")
Command = Callable[[tuple[str, ...], str, int, Path], None]
Row = TypeVar("Row", bound=CaseRow)


def case_command(out: str) -> Callable[[Command], click.Command]:
    """A command line over cases: their names, `--seeds`, `--jobs` and `--out`, by default the folder `out`."""

    def made(function: Command) -> click.Command:
        for parameter in (
            click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(out)),
            click.option("--jobs", default=1, show_default=True, help="Steps of a run side by side."),
            click.option("--seeds", default="0,1,2", show_default=True),
            click.argument("cases", nargs=-1, metavar="[CASE]..."),
        ):
            function = parameter(function)
        return click.command()(function)

    return made


def wanted_cases(plan: Mapping[str, Case], parts: Sequence[str], file: Path) -> dict[str, Case]:
    """The cases that a part names, whole or else by holding it; all without any part. Raises UsageError where there are
    none."""
    named = [part for part in parts if part in plan]
    held = [part for part in parts if part not in plan]
    wanted = {
        name: case for name, case in plan.items() if not parts or name in named or any(part in name for part in held)
    }
    if not wanted:
        raise UsageError(f"no case of {file.name} holds {', '.join(parts)}; there are: {'; '.join(plan)}")
    return wanted


@dataclass(frozen=True)
class CaseTable(Generic[Row]):
    """`path` (JSON, a list of rows) and beside it the same as Markdown."""

    path: Path
    rows: TypeAdapter[list[Row]]
    markdown: Callable[[list[Row]], str]

    def read(self) -> list[Row]:
        """The committed rows."""
        return self.rows.validate_json(self.path.read_bytes()) if self.path.is_file() else []

    def save(self, new: Row, plan: Iterable[str]) -> None:
        """Put the row in its place among the others, in the order of the cases; rows of cases that are gone go."""
        rows = {found.name: found for found in self.read()} | {new.name: new}
        ordered = [rows[name] for name in plan if name in rows]
        self.path.write_bytes(self.rows.dump_json(ordered, by_alias=True, indent=1) + b"\n")
        self.path.with_suffix(".md").write_text(self.markdown(ordered), "utf-8")
