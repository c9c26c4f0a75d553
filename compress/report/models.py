"""The table of all models: every candidate over its seeds, and every seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.result import TITLES, Ratio, Result
from benchmarks.seeds import Candidate, by_candidate
from compress.report.words import NONE, interval, milliseconds, number, served_path, size, times


@dataclass(frozen=True)
class Cell:
    """`text` with a `note` under it; `value` sorts it, None last. `words`: it is no number."""

    text: str
    note: str = ""
    value: float | None = None
    words: bool = False


@dataclass(frozen=True)
class ModelRow:
    """`group` is the candidate that it is of; `one_seed`: a seed of several, beside the row of them all."""

    name: str
    group: str
    role: str
    precision: str
    about: str
    cells: Sequence[Cell]
    one_seed: bool = False
    ships: bool = False


def columns(result: Result) -> list[tuple[str, str]]:
    """(title, note) of each column after the first."""
    second = "UAUC" if result.metric == "auc" else "recall@10"
    path = served_path(result.models, result.metric)
    numbers = [
        (TITLES[result.metric], "test, 95 %"),
        (second, "test"),
        ("p50 ms", f"{path} path"),
        ("p95 ms", f"{path} path"),
        ("faster than teacher", "cached path"),
        ("faster than teacher", "text path"),
        ("size", "to top-k"),
        ("peak MB", "fresh process"),
        ("load ms", "fresh process"),
    ]
    return [*numbers, ("may ship", "on validation")] if _judged(result) else numbers


def model_rows(result: Result, candidates: Sequence[Candidate]) -> list[ModelRow]:
    """What ships first, then role by role, each candidate followed by its seeds where it has several."""
    order, rows = ["student", "teacher", "control", "baseline"], []
    for one in sorted(candidates, key=lambda one: (one.name != result.selected, order.index(one.role))):
        rows.append(_row(result, one, one.name, one_seed=False))
        if len(one.models) > 1:
            rows += [
                _row(result, seed, one.name, one_seed=True) for model in one.models for seed in by_candidate([model])
            ]
    return rows


def _row(result: Result, one: Candidate, group: str, one_seed: bool) -> ModelRow:
    path = served_path(result.models, result.metric)
    model, row = one.first, one.latency(path) or one.latency()
    second = one.mean(lambda m: m.accuracy.test.uauc if result.metric == "auc" else m.accuracy.test.recall_10)
    ships = any(m.name == result.selected for m in one.models)
    own = "" if row is None or row.path == path else f"{row.path} path"
    about = ["ships"] if ships else []
    about.append(one.role)
    about += [f"mean of {len(one.models)} seeds"] if len(one.models) > 1 else []
    about += [f"seed {model.seed}"] if one_seed else []
    cells = [
        Cell(number(one.test), interval(one.test_ci95), one.test),
        Cell(number(second), "", second),
        Cell(milliseconds(row.p50_ms if row else None), own, row.p50_ms if row else None),
        Cell(milliseconds(row.p95_ms if row else None), own, row.p95_ms if row else None),
        _ratio(row.ratio_to_teacher if row else None),
        _ratio(row.ratio_to_teacher_text if row else None),
        Cell(size(model.size_bytes), "", model.size_bytes),
        Cell(number(model.rss_mb, 0), "", model.rss_mb),
        Cell(number(model.load_ms, 0), "", model.load_ms),
    ]
    cells += [_budget(result, one)] if _judged(result) else []
    return ModelRow(one.name, group, one.role, one.quantizer, ", ".join(about), cells, one_seed, ships)


def _ratio(ratio: Ratio | None) -> Cell:
    if ratio is None:
        return Cell(NONE)
    return Cell(times(ratio.median), f"{times(ratio.low)} to {times(ratio.high)}", ratio.median)


def _judged(result: Result) -> bool:
    """Records of earlier versions do not say what the budget refuses."""
    return result.selection is not None and result.selection.refused is not None


def _budget(result: Result, one: Candidate) -> Cell:
    """Only what may ship is judged: students and controls that were timed."""
    refused = (result.selection.refused if result.selection else None) or {}
    if one.role not in ("student", "control") or not one.first.latency:
        return Cell(NONE, words=True)
    why = refused.get(one.name, [])
    return Cell("no", "; ".join(why), 0.0, words=True) if why else Cell("yes", "", 1.0, words=True)
