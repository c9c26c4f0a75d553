"""One recipe run several times with `slimrec run --set`, and what its models answered put side by side.

Every run is resumed from the artifact store, so that a study that was stopped goes on where it was.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from benchmarks.accuracy import f1, holm, mrr, ndcg, precision, recall
from benchmarks.intervals import bootstrap_ci, paired_tests
from benchmarks.result import Comparison, Dataset, Machine, Metrics, Record, Result, Role
from benchmarks.runs import run_recipe
from benchmarks.tables import RESULTS
from deploy.errors import SlimrecError, UsageError

BRIEF = ("bench.min_runs=20", "bench.min_seconds=0.1", "bench.rounds=1")
"""A study compares accuracy; its runs measure latency as briefly as a run can."""

Ranks = NDArray[np.int32]


@dataclass(frozen=True)
class Answered:
    """A finished run: its result, and `<model>/<set>` -> the place of every case's target, (cases,) int32."""

    result: Result
    ranks: Mapping[str, Ranks]

    @classmethod
    def read(cls, out: Path) -> "Answered":
        """What `slimrec run --out` left."""
        result = Result.model_validate_json((out / "result.json").read_text("utf-8"))
        with np.load(out / "ranks.npz", allow_pickle=False) as file:
            return cls(result, {name: file[name] for name in file.files})

    @property
    def variants(self) -> dict[str, Role]:
        """The variants measured in fp32, in the order of the result."""
        return {m.variant: m.role for m in self.result.models if m.precision == "fp32"}

    def of(self, variant: str, cases: str = "test") -> list[Ranks]:
        """Ranks of a variant's fp32 models, one array per seed."""
        models = [m.name for m in self.result.models if (m.variant, m.precision) == (variant, "fp32")]
        return [self.ranks[f"{name}/{cases}"] for name in models if f"{name}/{cases}" in self.ranks]


class Study(Record):
    """What every study's record says first."""

    version: Literal[1] = Field(default=1, alias="schema")
    recipe: str
    commit: str
    machine: Machine
    dataset: Dataset
    seeds: list[int]

    def write(self, kind: str, markdown: str) -> None:
        """`benchmarks/results/RECIPE.<kind>.{json,md}`."""
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.recipe}.{kind}.json").write_text(self.to_json(indent=1) + "\n", encoding="utf-8")
        (RESULTS / f"{self.recipe}.{kind}.md").write_text(markdown, encoding="utf-8")


def head(name: str, result: Result) -> dict[str, Any]:
    """The first fields of a `Study`, from one of its runs."""
    same = {"commit": result.commit, "machine": result.machine, "dataset": result.dataset}
    return {"recipe": name, "seeds": result.protocol.seeds, **same}


def answered(recipe: str, out: Path, overrides: Iterable[str], arguments: Sequence[str] = ()) -> Answered:
    """Run the recipe and read what it left. Raises UsageError for data whose answers are not ranked."""
    run_recipe(recipe, out, [*BRIEF, *overrides], arguments)
    found = Answered.read(out)
    if not any(found.of(variant) for variant in found.variants):
        raise UsageError(f"{recipe}: a study compares ranked catalogues; this recipe's data has none to rank")
    return found


def without(recipe: str, leave: Sequence[str], folder: Path, plan: Path) -> str:
    """The recipe with the variants `leave` gone, as a file in the run's folder; itself where none is to go. Raises
    UsageError, in the name of the `plan` that asks, where it has no such variant."""
    if not leave:
        return recipe
    from compress.commands import find_recipe  # what measures loads without what trains

    content: dict[str, Any] = yaml.safe_load(find_recipe(Path(recipe)).read_text("utf-8"))
    if unknown := set(leave) - set(content["variants"]):
        raise UsageError(f"{plan.name}: {recipe} has no variant {', '.join(sorted(unknown))} to leave out")
    content["variants"] = {name: v for name, v in content["variants"].items() if name not in leave}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(recipe).stem}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return str(path)


def pooled(runs: Sequence[Answered], variant: str, cases: str = "test") -> list[Ranks] | None:
    """A variant's ranks over the cases of all runs, one array per seed; None where a run lacks it."""
    parts = [run.of(variant, cases) for run in runs]
    if not all(parts) or len({len(part) for part in parts}) > 1:
        return None
    return [np.concatenate(seed) for seed in zip(*parts, strict=True)]


def per_case(ranks: Sequence[Ranks]) -> NDArray[np.float64]:
    """NDCG@10 of every case, the mean over seeds: (cases,)."""
    return np.asarray(np.mean([ndcg(seed, 10) for seed in ranks], axis=0), np.float64)


def metrics(ranks: Sequence[Ranks]) -> Metrics:
    """Means over seeds and cases, with the interval of NDCG@10 over users."""
    means = {"ndcg@10": ndcg, "recall@10": recall, "precision@10": precision, "f1@10": f1, "mrr": mrr}
    values = {name: float(np.mean([measure(seed) for seed in ranks])) for name, measure in means.items()}
    return Metrics.model_validate(values | {"ndcg@10_ci95": bootstrap_ci(per_case(ranks)), "cases": len(ranks[0])})


def leaders(runs: Sequence[Answered]) -> dict[Role, str]:
    """Per role the variant that validates best over all runs, among those measured in all of them."""
    best: dict[Role, tuple[float, str]] = {}
    for variant, role in runs[0].variants.items():
        found = pooled(runs, variant, "valid")
        if found is not None:
            best[role] = max(best.get(role, (-1.0, "")), (float(per_case(found).mean()), variant))
    return {role: variant for role, (_, variant) in best.items()}


def compared(pairs: Sequence[tuple[str, NDArray[np.float64], str, NDArray[np.float64]]]) -> list[Comparison]:
    """Paired differences (name, values, name, values) over the same users, Holm-corrected together."""
    tests = paired_tests([(first, second) for _, first, _, second in pairs])
    return [
        Comparison(a=a, b=b, metric="ndcg@10", users=len(first), p_holm=adjusted, **vars(test))
        for (a, first, b, _), test, adjusted in zip(pairs, tests, holm([test.p for test in tests]), strict=True)
    ]


def line(comparison: Comparison) -> str:
    """What was compared, and how it ended."""
    return f"{comparison.a} - {comparison.b}: {comparison.gap}"


def conditions(study: Study) -> list[str]:
    """Data, seeds, machine and commit, as the tables' last lines."""
    data, machine = study.dataset, study.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [
        f"- {data.name}: {data.users} users, {data.items} items, {data.interactions} interactions; full ranking, seen "
        f"items excluded; means over seeds {study.seeds}; 95 % intervals by paired bootstrap over users",
        f"- {machine.cpu}, {machine.cores} cores; {versions}; commit {study.commit}",
    ]


Plan = TypeVar("Plan", bound=BaseModel)


def read_plan(path: Path, form: type[Plan]) -> Plan:
    """What a study is to run, from a YAML file. Raises UsageError where it is missing or not of this form."""
    try:
        return form.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise UsageError(f"{path}: cannot read it: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        lines = (f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise UsageError(dict.fromkeys(lines)) from error


def recipe_name(recipe: str) -> str:
    """What a recipe's tables are called."""
    return Path(recipe).stem


def run_command(command: Callable[[], object]) -> None:
    """Run a command line as `slimrec` runs its own: mistakes on one line each, its exit codes."""
    try:
        command()
    except SlimrecError as error:
        print("\n".join(error.lines), file=sys.stderr)
        sys.exit(error.exit_code)
