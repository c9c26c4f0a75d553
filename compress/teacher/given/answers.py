"""What a teacher without a graph leaves: its best items per training position, its answers to the held-out cases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg, ranks_of
from compress.accuracy import DEPTH
from compress.data.dataset import Cases, CaseSet, Dataset
from compress.models.folder import write_model
from compress.stage import RunOptions
from compress.teacher.cache import training_positions
from deploy.errors import UsageError

OnUnknown = Literal["drop", "error"]
LOWEST = -60_000.0
"""The score of places that nothing fills: as good as minus infinity for a softmax, and a float16."""


class GivenAnswers:
    """Ranked rows with scores, filed under training positions and held-out cases as they come."""

    def __init__(self, dataset: Dataset, top: int) -> None:
        self.dataset = dataset
        self.numbers = training_positions(dataset)
        n = int(self.numbers.max(initial=-1)) + 1
        self.warm = dataset.popularity > 0
        top = min(top, int(self.warm.sum()))
        self.items, self.scores = np.zeros((n, top), np.int32), np.full((n, top), LOWEST, np.float16)
        self.held_out: dict[CaseSet, tuple[Cases, NDArray[np.int32], NDArray[np.bool_]]] = {}
        for name in ("valid", "test"):
            cases = dataset.cases(name)
            depth = min(DEPTH, dataset.n_items)
            self.held_out[name] = (cases, np.zeros((len(cases), depth), np.int32), np.zeros(len(cases), bool))

    def teach(self, number: int, rows: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """A training position's list, best first. Logits are kept relative to the first: a softmax asks no more."""
        warm = self.warm[rows]
        rows, scores = rows[warm][: self.items.shape[1]], scores[warm][: self.items.shape[1]]
        if len(rows):
            self.items[number, : len(rows)] = rows
            self.scores[number, : len(rows)] = np.maximum(scores - scores[0], LOWEST)

    def answer(self, name: CaseSet, case: int, rows: NDArray[np.int64]) -> None:
        """A held-out case's list, best first; what the user had already is no answer."""
        cases, top, judged = self.held_out[name]
        rows = rows[~np.isin(rows, cases.items[cases.starts[case] : cases.stops[case]])][: top.shape[1]]
        top[case, : len(rows)] = rows
        judged[case] = True

    def write(self, out: Path, options: RunOptions, item_vectors: NDArray[np.float32] | None) -> None:
        """A model folder without parts: `score_items`, `scores`, `valid_ranks`, `valid_judged`, `answers.npz`.

        Row 0 fills what no list says; a position whose first row is 0 has no teacher. Raises UsageError without
        any answer.
        """
        covered = self.items[:, 0] > 0
        judged = {name: judged for name, (_, _, judged) in self.held_out.items()}
        if not covered.any() and not any(mask.any() for mask in judged.values()):
            raise UsageError("target.method: no list or user vector belongs to a user of the data (got 0)")
        cases, top, known = self.held_out["valid"]
        ranks = ranks_of(top, cases.targets)
        arrays: dict[str, NDArray[Any]] = {"score_items": self.items, "scores": self.scores, "valid_ranks": ranks}
        arrays["valid_judged"] = known
        if item_vectors is not None:
            arrays["item_vectors"] = item_vectors
        whole = {f"{name}_top": top for name, (_, top, _) in self.held_out.items() if len(top) and judged[name].all()}
        metrics = {name: {"judged": int(mask.sum()), "cases": len(mask)} for name, mask in judged.items()}
        taught = {"positions": len(covered), "taught": int(covered.sum())}
        value = float(ndcg(ranks[known], 10).mean()) if known.any() else None
        write_model(out, arrays=arrays, metrics={"valid_ndcg@10": value, "coverage": {"train": taught, **metrics}})
        np.savez(out / "answers.npz", **whole)  # type: ignore[arg-type]
        options.log(
            f"given: {covered.sum()} of {len(covered)} training positions, {known.sum()} of {len(known)} validation "
            f"and {judged['test'].sum()} of {len(judged['test'])} test cases have a list"
            + (f"; validation NDCG@10 {value:.4f}" if value is not None else "")
        )


def report_unknown(where: str, count: int, first: str | None, on_unknown: OnUnknown, options: RunOptions) -> None:
    """Ids that the data has not: counted in the log, or a UsageError where the recipe wants that."""
    if not count:
        return
    told = f"{count} ids that the data has not (first {str(first)[:60]!r})"
    if on_unknown == "error":
        raise UsageError(f"{where}: {told}; add them to the data or set on_unknown: drop")
    options.log(f"{where}: left out {told}")


def report_missing(where: str, names: Sequence[str], found: NDArray[np.bool_], options: RunOptions) -> None:
    """What the file does not hold, by name. Raises UsageError where it holds nothing."""
    missing = [name for name, there in zip(names, found, strict=True) if not there]
    if len(missing) == len(names):
        raise UsageError(
            f"{where}: none of its ids is in the data, which has {names[0][:60]!r} (got 0 of {len(names)})"
        )
    if missing:
        some = ", ".join(repr(name[:60]) for name in missing[:5])
        options.log(f"{where}: no vector for {len(missing)} of {len(names)}: {some}{', ...' if missing[5:] else ''}")
