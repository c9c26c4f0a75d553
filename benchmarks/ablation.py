"""One change at a time: run a recipe once per row of a file of changes and write one table of validation accuracy.

`python -m benchmarks.ablation [FILE]` starts `slimrec run` for each row, all on one store, so that what a change does
not touch is built once, and writes `benchmarks/results/FILE.{json,md}`. A row is a list of `--set` overrides.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.compressed import best_int8
from benchmarks.result import Model, Record, Result
from benchmarks.runs import run_recipe
from benchmarks.studies import read_plan, run_command, without
from benchmarks.tables import RESULTS, times

REGULARISATION = Path(__file__).parent / "ablation.yaml"


class Ablation(BaseModel):
    """What is run: `recipe` by name or path without the variants `leave`, `always` set, and each row's changes by the
    row's name. The first row is what the others are compared with. `int8` adds the INT8 models, sizes and speed;
    `show` names the variants that are kept, all by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    recipe: str
    leave: list[str] = []
    int8: bool = False
    show: list[str] = []
    always: list[str] = []
    rows: dict[str, list[str]] = Field(min_length=1)


class Row(Record):
    """One row's outcome: per variant its fp32 model of each seed; under `VARIANT int8` those of the INT8 quantizer that
    validates best."""

    name: str
    changes: list[str]
    models: dict[str, list[Model]]


class Table(Record):
    """All of it, with where and how it was run."""

    recipe: str
    always: list[str]
    rows: list[Row]
    commit: str | None
    cpu: str
    seeds: list[int]


def run_row(ablation: Ablation, plan: Path, changes: list[str], out: Path, arguments: list[str]) -> Result:
    """One `slimrec run`, resumable as any. A run that nothing inside the budget comes out of counts too."""
    recipe = without(ablation.recipe, ablation.leave, out, plan)
    run_recipe(recipe, out, [*ablation.always, *changes], arguments)
    return Result.model_validate_json((out / "result.json").read_text("utf-8"))


def tabulate(ablation: Ablation, results: dict[str, Result]) -> Table:
    rows = []
    for name, result in results.items():
        rows.append(Row(name=name, changes=ablation.rows[name], models=_models(result, ablation)))
    first = next(iter(results.values()))
    return Table(
        recipe=ablation.recipe,
        always=ablation.always,
        rows=rows,
        commit=first.commit,
        cpu=first.machine.cpu,
        seeds=first.protocol.seeds,
    )


def _models(result: Result, ablation: Ablation) -> dict[str, list[Model]]:
    models: dict[str, list[Model]] = defaultdict(list)
    for model in result.models:
        shown = model.variant in ablation.show if ablation.show else model.role != "baseline"
        if model.precision == "fp32" and shown:
            models[model.variant].append(model)
    for variant in list(models) if ablation.int8 else ():
        if quantized := best_int8(m for m in result.models if m.variant == variant):
            models[f"{variant} int8"] = quantized
    return models


def markdown(table: Table) -> str:
    """A line per row: per variant the mean validation NDCG@10, its difference from the first row, then cold items."""
    variants = list(dict.fromkeys(variant for row in table.rows for variant in row.models))
    cold = [v for v in variants if any(_cold(model) for row in table.rows for model in row.models.get(v, []))]
    sized = variants if any(variant.endswith(" int8") for variant in variants) else []
    head = ["change", *variants, *(f"{variant}, cold items" for variant in cold)]
    head += [f"{variant}, {what}" for variant in sized for what in ("kB", "x teacher")]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table.rows:
        cells = [row.name]
        cells += [_cell(row, table.rows[0], variant, _valid) for variant in variants]
        cells += [_cell(row, table.rows[0], variant, _cold) for variant in cold]
        cells += [cell for variant in sized for cell in _size_and_speed(row.models.get(variant, []))]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = f"means over seeds {table.seeds}" if len(table.seeds) > 1 else f"seed {table.seeds[0]}"
    lines += [
        "",
        f"{table.recipe}: NDCG@10 on validation and the difference from the first row, fp32 where nothing is said, "
        f"{seeds}. Cold items are reported; nothing is chosen by them."
        + (" Bytes, and times faster than the teacher's cached path, are those of the first seed." if sized else ""),
        "",
        *(
            f"- {row.name}: {', '.join(f'`{change}`' for change in row.changes) or 'the recipe as it is'}"
            for row in table.rows
        ),
        f"- in every row: {', '.join(f'`{change}`' for change in table.always) or 'nothing else'}",
        f"- {table.cpu}; commit {table.commit}",
    ]
    return "\n".join(lines) + "\n"


def _size_and_speed(models: list[Model]) -> list[str]:
    if not models:
        return ["", ""]
    size, served = models[0].size_bytes, models[0].served
    return ["" if size is None else f"{size / 1e3:.0f}", times(served, "ratio_to_teacher")]


def _valid(model: Model) -> float | None:
    return model.accuracy.valid.ndcg_10


def _cold(model: Model) -> float | None:
    return model.accuracy.segments.cold_items.ndcg_10


def _cell(row: Row, first: Row, variant: str, read: Callable[[Model], float | None]) -> str:
    mean, reference = (_mean([read(model) for model in r.models.get(variant, [])]) for r in (row, first))
    if mean is None:
        return ""
    return f"{mean:.4f}" if row is first or reference is None else f"{mean:.4f} ({mean - reference:+.4f})"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def main(arguments: list[str]) -> None:
    """`[FILE] [further arguments of slimrec run]`."""
    given = bool(arguments) and not arguments[0].startswith("-")
    path, rest = (Path(arguments[0]), arguments[1:]) if given else (REGULARISATION, arguments)
    ablation = read_plan(path, Ablation)
    results = {
        name: run_row(ablation, path, changes, Path("runs") / path.stem / name.replace(" ", "-"), rest)
        for name, changes in ablation.rows.items()
    }
    table = tabulate(ablation, results)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{path.stem}.json").write_text(table.to_json(indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{path.stem}.md").write_text(markdown(table), encoding="utf-8")


if __name__ == "__main__":
    run_command(partial(main, sys.argv[1:]))
