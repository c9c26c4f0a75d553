"""The README's tables from the committed results: `python -m benchmarks.headline` writes them into it.

One row per variant in fp32, and what ships and its control in every precision; the whole tables lie beside the results.
"""

import re
from pathlib import Path
from statistics import fmean

from benchmarks.result import Model, Result
from benchmarks.tables import RESULTS, times

README = Path(__file__).parents[1] / "README.md"
SHOWN = {
    "quickstart": "MovieLens-100k, films of romance, drama and comedy; source: action, science fiction, thriller, war",
    "movielens": "MovieLens-100k, the full catalogue, one domain",
}
BLOCK = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- /table -->)", re.DOTALL)


def main() -> None:
    """Replace the block between the README's table marks."""
    README.write_text(BLOCK.sub(lambda _: block(), README.read_text("utf-8")), "utf-8")


def block() -> str:
    """Everything between the marks, for each recipe shown that has a committed result."""
    results = {name: RESULTS / f"{name}.json" for name in SHOWN}
    parts = [
        headline(name, Result.model_validate_json(path.read_text("utf-8")))
        for name, path in results.items()
        if path.is_file()
    ]
    return "\n".join(parts)


def headline(name: str, result: Result) -> str:
    """One recipe: a title, its table, and what the paired intervals say."""
    data, seeds = result.dataset, result.protocol.seeds
    lines = [
        f"`{name}`: {SHOWN[name]}. {data.users} users, {data.items} items; {result.protocol.split}, full ranking; "
        f"means over {len(seeds)} seed{'s' if len(seeds) > 1 else ''}.",
        "",
        "| model | NDCG@10, test | MB | p50 ms, one thread | x teacher's cached path | x its text path |",
        "|---|---|---|---|---|---|",
    ]
    shipped = next((model for model in result.models if model.name == result.selected), None)
    for models in _by_variant(result):
        first = models[0]
        own = shipped is not None and first.variant == shipped.variant
        if first.precision == "fp32" or own:
            lines.append(_row(models, result))
    lines += ["", *(f"- {one.sentence}" for one in result.comparisons if "int8" not in one.a), _machine(result)]
    return "\n".join(lines) + "\n"


def _by_variant(result: Result) -> list[list[Model]]:
    """The models of all seeds by variant and precision, students first, baselines last."""
    groups: dict[tuple[str, str], list[Model]] = {}
    for model in result.models:
        groups.setdefault((model.variant, model.name.rpartition("-")[2]), []).append(model)
    order = ("student", "teacher", "control", "baseline")
    return sorted(groups.values(), key=lambda models: (order.index(models[0].role), not models[0].chosen))


def _row(models: list[Model], result: Result) -> str:
    first = models[0]
    row = first.served
    quantizer = first.name.rpartition("-")[2]
    name = first.variant if first.role == "baseline" else f"{first.variant}, {quantizer}"
    cells = [
        f"**{name}**, ships" if any(model.name == result.selected for model in models) else name,
        f"{fmean(model.accuracy.test.ndcg_10 or 0.0 for model in models):.4f}",
        f"{first.size_bytes / 1e6:.2f}" if row and first.size_bytes else "",
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
