"""The README's tables and plots from the committed results: `python -m benchmarks.headline` writes them.

One row per variant in fp32, and what ships and its control in every precision; the whole tables lie beside the results.
The plots, test NDCG@10 against p50, go into `docs/`.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.charts.drawing import legend
from benchmarks.charts.scatter import Spot, trade_off
from benchmarks.result import LatencyRow, Result
from benchmarks.seeds import Candidate, best_baseline, by_candidate, shipped
from benchmarks.tables import RESULTS, times

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SHOWN = {
    "quickstart": "MovieLens-100k, films of romance, drama and comedy; source: action, science fiction, thriller, war",
    "movielens": "MovieLens-100k, the full catalogue, one domain",
}
BLOCK = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- /table -->)", re.DOTALL)
_WIDTH = 760  # pixels of a plot


def main() -> None:
    """Replace the block between the README's table marks, and the plots that it shows."""
    README.write_text(BLOCK.sub(lambda _: block(), README.read_text("utf-8")), "utf-8")
    for path, drawing in plots().items():
        path.write_text(drawing, "utf-8")


def results() -> dict[str, Result]:
    """The committed result of each recipe shown that has one."""
    files = {name: RESULTS / f"{name}.json" for name in SHOWN}
    return {name: Result.model_validate_json(path.read_text("utf-8")) for name, path in files.items() if path.is_file()}


def block() -> str:
    """Everything between the marks."""
    return "\n".join(headline(name, result) for name, result in results().items())


def plots() -> dict[Path, str]:
    """File -> drawing, one per recipe."""
    return {_plot_file(name): plot(result) for name, result in results().items()}


def _plot_file(name: str) -> Path:
    return ROOT / "docs" / f"measured-{name}.svg"


def headline(name: str, result: Result) -> str:
    """One recipe: a title, its plot and table, and what the paired intervals say."""
    data, seeds = result.dataset, result.protocol.seeds
    lines = [
        f"`{name}`: {SHOWN[name]}. {data.users} users, {data.items} items; {result.protocol.split}, full ranking; "
        f"means over {len(seeds)} seed{'s' if len(seeds) > 1 else ''}.",
        "",
        f"![{name}: test NDCG@10 against p50 of students, controls and teachers; the numbers are in the table]"
        f"({_plot_file(name).relative_to(ROOT)})",
        "",
        "| model | NDCG@10, test | MB | p50 ms, one thread | x teacher's cached path | x its text path |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(one, result) for one in _shown(result)]
    lines += ["", *(f"- {one.sentence}" for one in result.comparisons if "int8" not in one.a), _machine(result)]
    return "\n".join(lines) + "\n"


def plot(result: Result) -> str:
    """The table's rows that were timed, and the teachers' text path, as a file of its own."""
    spots = [spot for one in _shown(result) for spot in _spots(one, result)]
    best = best_baseline(_shown(result))
    levels = {} if best is None or best.test is None else {best.name: best.test}
    drawing = trade_off(spots, "p50, ms, one thread", "test NDCG@10", levels=levels)
    kinds = list(dict.fromkeys(spot.kind for spot in spots))
    return replace(drawing, parts=[*drawing.parts, *legend(kinds, 12)]).standalone(_WIDTH)


def _spots(one: Candidate, result: Result) -> Iterator[Spot]:
    for row, suffix in ((one.first.served, ""), (one.latency("text"), ", text path")):
        if row is not None and one.test is not None:
            yield _spot(one, row, suffix, result)


def _spot(one: Candidate, row: LatencyRow, suffix: str, result: Result) -> Spot:
    words = f"{one.name}{suffix}: NDCG@10 {one.test or 0:.4f}, p50 {row.p50_ms:.3f} ms"
    label = f"{one.first.variant}{suffix}" if suffix or (one.chosen and one.quantizer == "fp32") else ""
    ships = any(model.name == result.selected for model in one.models)
    return Spot(one.name, words, one.role, row.p50_ms, one.test or 0.0, one.test_ci95, label, ships, not one.chosen)


def _shown(result: Result) -> list[Candidate]:
    """Every variant in fp32, what ships in every precision; students first, baselines last."""
    candidates = by_candidate(result.models)
    own, order = shipped(result, candidates), ("student", "teacher", "control", "baseline")
    shown = [
        one
        for one in candidates
        if one.first.precision == "fp32" or (own is not None and one.first.variant == own.first.variant)
    ]
    return sorted(shown, key=lambda one: (order.index(one.role), not one.chosen))


def _row(one: Candidate, result: Result) -> str:
    row = one.first.served
    name = one.first.variant if one.role == "baseline" else f"{one.first.variant}, {one.quantizer}"
    cells = [
        f"**{name}**, ships" if any(model.name == result.selected for model in one.models) else name,
        f"{one.mean(lambda model: model.accuracy.test.ndcg_10) or 0.0:.4f}",
        f"{one.first.size_bytes / 1e6:.2f}" if row and one.first.size_bytes else "",
        f"{row.p50_ms:.3f}" if row else "",
        times(row, "ratio_to_teacher"),
        times(row, "ratio_to_teacher_text"),
    ]
    return "| " + " | ".join(cells) + " |"


def _machine(result: Result) -> str:
    ratio = "" if result.transfer_ratio is None else f"; transfer ratio {result.transfer_ratio:.2f}"
    gate = result.gate
    passed = "" if gate is None else f"teacher gate {'passed' if gate.passed else 'failed'} on validation{ratio}; "
    bundle = "" if result.bundle is None else f"bundle {result.bundle.size_bytes / 1e6:.2f} MB with its text encoder; "
    return f"- {passed}{bundle}{result.machine.cpu}, {result.machine.cores} cores, commit {result.commit[:7]}"


if __name__ == "__main__":
    main()
