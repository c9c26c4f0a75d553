"""`peers-RECIPE.md`: accuracy with its cost, answers with theirs, then what was compared and under which conditions."""

from collections.abc import Iterable, Sequence

from benchmarks.peers.record import PeerRow

SHOWN = (
    *("slimrec", "recbole", "replay-rec", "rectools", "torch-rechub", "torch", "lightning", "openvino"),
    *("onnxruntime", "numpy"),
)
"""Distributions that the lines below the tables name; the JSON file has all."""


def markdown(rows: Sequence[PeerRow]) -> str:
    """The rows as two tables and a line each."""
    lines = [
        "Accuracy on the test cases: full catalogue, seen items excluded, 95 % intervals. Training: of the trial that "
        "validation chose, to its best epoch, on a shared machine; CPU seconds.",
        "",
        "| | model | NDCG@10 | HR@10 | ours - it | epoch | CPU s | ended by |",
        "|" + "---|" * 8,
    ]
    lines += [_cells(row.name, row.what, *_accuracy(row), *_training(row)) for row in rows]
    lines += [
        "",
        "From raw ids to raw ids, one history at a time. Times ours: its time over ours in the same rounds, 95 % "
        "interval. Cold start: process start to first answer.",
        "",
        "| | p50 ms | p95 ms | times ours | RSS MB | cold start s | model MB | environment MB |",
        "|" + "---|" * 8,
    ]
    lines += [_cells(row.name, *_latency(row), *_fresh(row)) for row in rows]
    lines.append("")
    for row in rows:
        lines += [f"- {row.name}, {missing.what} not measured: {missing.why}" for missing in row.not_measured]
    lines += [f"- {row.name}: {_conditions(row)}" for row in rows]
    return "\n".join(lines) + "\n"


def _accuracy(row: PeerRow) -> Iterable[str]:
    if row.test is None or row.test.ndcg_10 is None or row.test.ndcg_10_ci95 is None:
        return "", "", ""
    low, high = row.test.ndcg_10_ci95
    value = f"{row.test.ndcg_10:.4f} [{low:.4f}, {high:.4f}]"
    return value, f"{row.test.recall_10 or 0:.4f}", _gap(row)


def _gap(row: PeerRow) -> str:
    """No verdict over a training that was cut short."""
    if row.comparison is None:
        return ""
    gap = row.comparison.gap
    return f"{gap.rpartition(',')[0]}, cut short" if row.training and row.training.cut_short else gap


def _training(row: PeerRow) -> Iterable[str]:
    found = row.training
    if found is None or found.valid_ndcg_10 is None:
        return "", "", found.ended if found else ""
    return f"{found.epoch} of {found.epochs}", f"{found.cpu_seconds:.0f}", found.ended


def _latency(row: PeerRow) -> Iterable[str]:
    found = row.latency
    if found is None:
        return "", "", ""
    low, high = found.ci95
    return f"{found.p50_ms:.3f}", f"{found.p95_ms:.3f}", f"{found.ratio:.3g} [{low:.3g}, {high:.3g}]"


def _fresh(row: PeerRow) -> Iterable[str]:
    environment = "" if row.environment_mb is None else f"{row.environment_mb:.0f}"
    size = "" if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f}"
    if row.fresh is None:
        return "", "", size, environment
    return f"{row.fresh.rss_mb:.0f}", f"{row.fresh.cold_start_ms / 1000:.2f}", size, environment


def _conditions(row: PeerRow) -> str:
    versions = [f"{name} {row.packages[name]}" for name in SHOWN if name in row.packages]
    said = [f"Python {row.python}, {', '.join(versions)}"] if row.python else []
    if row.training is not None:
        settings = {name: value for name, value in row.training.settings.items() if name != "seed"}
        said.append(", ".join(f"{name} {value}" for name, value in settings.items()))
        said.append(f"{row.training.trials} trials, {row.training.all_cpu_seconds:.0f} CPU s together")
    if row.latency is not None:
        found = row.latency
        said.append(f"history {found.history}, k {found.k}, {found.threads} thread, {found.rounds} rounds")
    return "; ".join([*said, row.where])


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
