"""Tables of like/dislike recipes: AUC, UAUC and the decision, with machine, versions and commit.

`python -m benchmarks.like_tables collm-ml1m tallrec-book:16 tallrec-book:64` runs each recipe with three seeds (with
`:N` on three draws of N training rows) and writes `benchmarks/results/RECIPE[-N].{json,md}`.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.result import Ci95, Model, Result
from benchmarks.runs import run_recipe
from benchmarks.tables import RESULTS, SEEDS

DRAWS = (0, 1, 2)


def main(wanted: Sequence[str]) -> None:
    """Run each (resumable as any run) and write its table."""
    for name in wanted:
        recipe, _, shots = name.partition(":")
        label = f"{recipe}-{shots}" if shots else recipe
        draws = [[f"data.split.shots={shots}", f"data.seed={seed}"] for seed in DRAWS] if shots else [[SEEDS]]
        results = []
        for number, overrides in enumerate(draws):
            out = Path("runs") / f"{label}-{number}"
            run_recipe(recipe, out, overrides)
            results.append(Result.model_validate_json((out / "result.json").read_text("utf-8")))
        RESULTS.mkdir(exist_ok=True)
        whole = [json.loads(result.to_json()) for result in results]
        (RESULTS / f"{label}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        (RESULTS / f"{label}.md").write_text(markdown(results), encoding="utf-8")


def markdown(results: Sequence[Result]) -> str:
    """One row per variant and precision: means over seeds or draws, of intervals' ends too; comparisons are those of
    the first."""
    first = results[0]
    lines = [
        "| model | role | AUC valid | test | 95 % | UAUC test | 95 % | accuracy | F1 | MB | p50 ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[Model]] = defaultdict(list)
    for result in results:
        for model in result.models:
            groups[model.role, model.variant, model.name.rsplit("-", 1)[-1]].append(model)
    lines += [_row(variant, role, models, first) for (role, variant, _), models in groups.items()]
    users = next((m.accuracy.test.uauc_users for m in first.models), None)
    data, machine = first.dataset, first.machine
    what = (
        f"means over {len(results)} draws of the training rows"
        if len(results) > 1
        else (f"means over seeds {first.protocol.seeds}")
    )
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    lines += [
        "",
        f"{data.name}: {data.users} users, {data.items} items, {data.interactions} rows; the published split; {what}, "
        f"of the ends of the 95 % intervals over users too; UAUC over the {users or 0} test users with likes and "
        "dislikes; decisions at the threshold that validation chose; what ships, * (chosen by validation among its "
        f"role), the comparisons and the gate are those of {'the first draw' if len(results) > 1 else 'all seeds'}.",
        *_comparisons(first),
        f"- {machine.cpu}, {machine.cores} cores; {versions}; commit {first.commit}",
    ]
    return "\n".join(lines) + "\n"


def _row(variant: str, role: str, models: Sequence[Model], first: Result) -> str:
    lead = models[0]
    ships = any(model.name == first.selected for model in models)
    tests = [model.accuracy.test for model in models]
    timed = lead.served
    name = variant if lead.precision == "fp32" else f"{variant} {lead.precision.upper()}"
    cells = [
        f"**{name}** (ships)" if ships else name,
        role + (" *" if lead.chosen else ""),
        _mean([model.accuracy.valid.auc for model in models]),
        _mean([test.auc for test in tests]),
        _interval([test.auc_ci95 for test in tests]),
        _mean([test.uauc for test in tests]),
        _interval([test.uauc_ci95 for test in tests]),
        _mean([test.accuracy for test in tests]),
        _mean([test.f1 for test in tests]),
        f"{lead.size_bytes / 1e6:.2f}" if timed and lead.size_bytes else "",
        f"{timed.p50_ms:.3f}" if timed else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _comparisons(result: Result) -> list[str]:
    lines = [f"- {found.a} - {found.b}, {found.metric.upper()}: {found.gap}" for found in result.comparisons]
    if result.gate:
        word = "passed" if result.gate.passed else "failed"
        lines.append(
            f"- teacher gate {word}: AUC {result.gate.teacher_valid:.4f} against the control's "
            f"{result.gate.control_valid:.4f} on validation"
        )
    return lines


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.4f}" if known else ""


def _interval(intervals: Sequence[Ci95 | None]) -> str:
    known = [ci95 for ci95 in intervals if ci95 is not None]
    return f"{fmean(low for low, _ in known):.3f}-{fmean(high for _, high in known):.3f}" if known else ""


if __name__ == "__main__":
    main(sys.argv[1:])
