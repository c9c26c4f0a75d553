"""Stage `select`: the most accurate candidate inside the budget, and why; the Pareto front is kept."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat

from benchmarks.result import TITLES
from compress.models.folder import read_json, write_json
from compress.segment_gate import Broken, broken_segments
from compress.stage import Inputs, RunOptions, StageConfig
from compress.task import leading, valid_value

Row = Mapping[str, Any]


class SelectConfig(StageConfig):
    """The budget: size of the history -> top-k part, p95 on this machine's CPU, NDCG@10 lost against the own fp32, and
    what a segment of users may lose (`segment_gate.py`)."""

    max_size_mb: PositiveFloat | None = None
    max_p95_ms: PositiveFloat | None = None
    max_ndcg_drop: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01  # relative, on validation
    max_segment_drop: Annotated[float, Field(ge=0.0, le=1.0)] | None = 0.05  # the same of a segment; null: any


def select(config: SelectConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """bench -> `choice.json`: {selected, reason, budget, front, nearest}."""
    measured = read_json(inputs["bench"] / "measurements.json")["models"]
    rows = candidates(measured)
    choice = choose(config, rows, broken_in(config, rows, inputs["bench"]))
    options.log(choice["reason"])
    write_json(out / "choice.json", choice)


def candidates(measured: Sequence[Row]) -> list[Row]:
    """The measured rows that may be selected."""
    return [row for row in measured if row["role"] in ("student", "control") and row["latency"]]


def refusals(config: SelectConfig, rows: Sequence[Row], bench: Path) -> dict[str, list[str]]:
    """By candidate, in words, what of the budget it breaks, and whether it is slower than its own fp32."""
    broken = broken_in(config, rows, bench)
    found = {row["name"]: list(_excess(config, row, rows, broken.get(row["name"], ()))) for row in rows}
    for row in rows:
        fp32 = _fp32(row, rows)
        if fp32 is not None and _slower(row, fp32):
            found[row["name"]].append(f"slower than {fp32['name']}")
    return {name: why for name, why in found.items() if why}


def broken_in(config: SelectConfig, rows: Sequence[Row], bench: Path) -> dict[str, list[Broken]]:
    """Nothing where no segments were kept: like/dislike data has none."""
    if config.max_segment_drop is None or not (bench / "segments.npz").exists():
        return {}
    with np.load(bench / "segments.npz") as segments, np.load(bench / "ranks.npz") as ranks:
        return broken_segments(rows, ranks, segments, config.max_segment_drop)


def choose(
    config: SelectConfig, rows: Sequence[Row], broken: Mapping[str, Sequence[Broken]] | None = None
) -> dict[str, Any]:
    """The variant that validates best in fp32 among those with a precision inside the budget; of its precisions
    inside, the smallest that is not slower than its fp32."""
    budget = config.model_dump(exclude={"seed"}, exclude_none=True)
    refused = broken or {}
    excess = {row["name"]: _excess(config, row, rows, refused.get(row["name"], ())) for row in rows}
    inside = [row for row in rows if not excess[row["name"]]]
    common = {"budget": budget, "front": front(rows)}
    if not inside:
        nearest = sorted(rows, key=lambda row: sum(excess[row["name"]].values()))[:3]
        misses = "; ".join(f"{row['name']}: {', '.join(excess[row['name']])}" for row in nearest)
        reason = f"no candidate is inside the budget; nearest: {misses or 'there are no candidates'}"
        return {"selected": None, "reason": reason, "nearest": [row["name"] for row in nearest], **common}
    best = max(inside, key=lambda row: valid_value(_fp32(row, rows) or row))
    own = [row for row in inside if (row["variant"], row["seed"]) == (best["variant"], best["seed"])]
    fp32 = _fp32(best, rows)
    fast = [row for row in own if fp32 not in own or fp32 is None or not _slower(row, fp32)]
    chosen = min(fast, key=lambda row: (row["size_bytes"], row["name"]))
    metric = TITLES[leading(chosen)[0]]
    reason = (
        f"{chosen['name']}: best validation {metric} inside the budget ({valid_value(chosen):.4f}), "
        f"{chosen['size_bytes'] / 1e6:.3f} MB, p95 {_cpu(chosen)['p95_ms']:.3f} ms"
    )
    left = [row["name"] for row in own if row not in fast]
    if left:
        reason += f"; slower than fp32 here, so not chosen: {', '.join(left)}"
    for name, segments in refused.items():
        reason += f"; refused: {name} {', '.join(map(str, segments))}"
    return {"selected": chosen["name"], "reason": reason, "nearest": [], **common}


def front(rows: Sequence[Row]) -> list[str]:
    """Names of the candidates that no other beats in validation NDCG@10, p95 and bytes at once."""

    def costs(row: Row) -> tuple[float, float, float]:
        return -valid_value(row), _cpu(row)["p95_ms"], row["size_bytes"]

    def beaten(row: Row) -> bool:
        own = costs(row)
        return any(costs(o) != own and all(a <= b for a, b in zip(costs(o), own, strict=True)) for o in rows)

    return [row["name"] for row in rows if not beaten(row)]


def _excess(config: SelectConfig, row: Row, rows: Sequence[Row], broken: Sequence[Broken]) -> dict[str, float]:
    """In words what is exceeded, and by how much, relative to the limit; empty inside the budget."""
    found: dict[str, float] = {}
    fp32 = _fp32(row, rows)
    drop = 1 - valid_value(row) / valid_value(fp32) if fp32 is not None and valid_value(fp32) > 0 else 0.0
    checks: list[tuple[str, float | None, Callable[[], float]]] = [
        ("max_size_mb", config.max_size_mb, lambda: row["size_bytes"] / 1e6),
        ("max_p95_ms", config.max_p95_ms, lambda: float(_cpu(row)["p95_ms"])),
        ("max_ndcg_drop", config.max_ndcg_drop, lambda: drop),
    ]
    for name, limit, value in checks:
        if limit is not None and value() > limit:
            share = (value() - limit) / max(limit, 1e-9)
            found[f"{name} exceeded by {share:.0%}"] = share
    for segment in broken:
        found[str(segment)] = segment.loss / max(config.max_segment_drop or 0.0, 1e-9)
    return found


def _fp32(row: Row, rows: Sequence[Row]) -> Row | None:
    same = (row["variant"], row["seed"], "fp32")
    return next((r for r in rows if (r["variant"], r["seed"], r["precision"]) == same), None)


def _slower(row: Row, fp32: Row) -> bool:
    """Slower than its own fp32 by the median of the rounds, on any of its paths: one disturbed round must not make it
    look as fast."""
    return row is not fp32 and any(timed["ratio_to_fp32"]["median"] < 1.0 for timed in _on_cpu(row))


def _cpu(row: Row) -> Row:
    return next(timed for timed in _on_cpu(row) if timed["path"] == "cached")


def _on_cpu(row: Row) -> list[Row]:
    return [timed for timed in row["latency"] if timed["device"] == "cpu" and timed["runtime"] == "onnxruntime"]
