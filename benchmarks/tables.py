"""`make bench`: run recipes with three seeds and write their numbers as small tables with machine, versions and commit.

`python -m benchmarks.tables RECIPE...` starts `slimrec run` for each and writes `benchmarks/results/RECIPE.{json,md}`.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from benchmarks.result import LatencyRow, Result, TextEncoderRow
from benchmarks.runs import run_recipe
from benchmarks.seeds import Candidate, by_candidate

RESULTS = Path(__file__).parent / "results"
SEEDS = "seeds=[0,1,2]"


def main(recipes: list[str]) -> None:
    """Run each recipe (resumable as any run) and write its table."""
    for recipe in recipes:
        out = Path("runs") / f"{recipe}-seeds"
        run_recipe(recipe, out, [SEEDS])
        result = Result.model_validate_json((out / "result.json").read_text("utf-8"))
        write_tables(recipe, result)


def write_tables(recipe: str, result: Result) -> None:
    """The whole result as JSON, and the table that the README shows."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{recipe}.json").write_text(result.to_json(indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{recipe}.md").write_text(markdown(result), encoding="utf-8")


def markdown(result: Result) -> str:
    """One row per variant and precision: mean over seeds, latency of the first seed, then what was compared."""
    lines = [
        "| model | role | NDCG@10 valid | test | cold items | top-10 as fp32 | MB | p50 ms "
        "| x teacher cached | x text |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(one, result) for one in by_candidate(result.models)]
    if result.text_encoders:
        lines += ["", *_text_encoders(result)]
    lines += ["", *_notes(result)]
    return "\n".join(lines) + "\n"


def _text_encoders(result: Result) -> list[str]:
    """One row per text encoder and precision: means over seeds, times of the first seed."""
    lines = [
        "| text encoder | MB | ms a text | x teacher's | cold items | with the teacher's vectors |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[TextEncoderRow]] = defaultdict(list)
    for row in result.text_encoders:
        groups[f"{row.variant} {row.name.rpartition('-')[2]}"].append(row)
    for name, rows in groups.items():
        first = rows[0]
        ratio = first.ratio_to_teacher
        cells = [
            name,
            f"{first.size_bytes / 1e6:.2f}",
            "" if first.p50_ms is None else f"{first.p50_ms:.3f}",
            "" if ratio is None else f"{ratio.median:.3g}",
            _mean([row.cold_items.ndcg_10 if row.cold_items else None for row in rows], 4),
            _mean([row.cold_items_of_teacher.ndcg_10 if row.cold_items_of_teacher else None for row in rows], 4),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _row(one: Candidate, result: Result) -> str:
    models, first, row = one.models, one.first, one.first.served
    shipped = any(model.name == result.selected for model in models)
    name = first.variant if first.role == "baseline" else f"{first.variant} {one.quantizer}"
    cells = [
        f"**{name}** (ships)" if shipped else name,
        first.role + (" *" if first.chosen else ""),
        f"{fmean(model.accuracy.valid.ndcg_10 or 0.0 for model in models):.4f}",
        f"{fmean(model.accuracy.test.ndcg_10 or 0.0 for model in models):.4f}",
        _mean([model.accuracy.segments.cold_items.ndcg_10 for model in models], 4),
        _mean([model.top10_overlap for model in models], 3),
        f"{first.size_bytes / 1e6:.2f}" if row and first.size_bytes else "",
        f"{row.p50_ms:.3f}" if row else "",
        times(row, "ratio_to_teacher"),
        times(row, "ratio_to_teacher_text"),
    ]
    return "| " + " | ".join(cells) + " |"


def _mean(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.{digits}f}" if known else ""


def times(row: LatencyRow | None, name: str) -> str:
    """How many times faster than what the field `name` compares with; empty where it was not measured."""
    ratio = getattr(row, name) if row else None
    if ratio is None:
        return ""
    return f"{ratio.median:.0f}" if ratio.median >= 100 else f"{ratio.median:.3g}"


def _notes(result: Result) -> list[str]:
    machine, data = result.machine, result.dataset
    notes = [
        f"{data.name}: {data.users} users, {data.items} items, {data.interactions} interactions; "
        f"{result.protocol.split}, full ranking, seen items excluded; means over seeds {result.protocol.seeds}; "
        "* chosen by validation among its role.",
    ]
    notes += [f"- {found.a} - {found.b}: {found.gap}" for found in result.comparisons]
    if result.gate:
        word = "passed" if result.gate.passed else "failed"
        notes.append(
            f"- teacher gate {word}: {result.gate.teacher_valid:.4f} against the control's "
            f"{result.gate.control_valid:.4f} on validation"
        )
    if result.transfer_ratio is not None:
        lead = next((c for c in result.comparisons if c.a.startswith("teacher") and c.b.startswith("control")), None)
        tie = lead is not None and lead.verdict == "tie"
        caveat = "; the teacher's own lead is a tie, so it says little" if tie else ""
        notes.append(f"- transfer ratio {result.transfer_ratio:.2f}{caveat}")
    if result.bundle:
        size, text = result.bundle.size_bytes / 1e6, result.bundle.text_encoder_bytes / 1e6
        notes.append(f"- bundle {size:.2f} MB, of it the text encoder {text:.2f} MB")
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    notes.append(f"- {machine.cpu}, {machine.cores} cores; {versions}; commit {result.commit}")
    return notes


if __name__ == "__main__":
    main(sys.argv[1:])
