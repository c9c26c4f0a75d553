"""Accuracy of a bundle on a team's own interactions: what `slimrec evaluate` measures. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import at_once, ranks_of, summarise
from benchmarks.bundle_info import bundle_info
from benchmarks.result import Dataset, EvaluateResult, LeftOut, Metrics, PrecisionAccuracy
from deploy.bundle import open_bundle
from deploy.errors import UsageError
from deploy.ranker import Ranker
from deploy.runtime import Recommender
from deploy.tables import Interactions, find_tables, read_interactions

DEPTH = 1000  # ranks below it count as not found, as in the recipe's own measurements

_BATCH = 128


@dataclass(frozen=True)
class Cases:
    """Leave-one-out cases in catalogue rows. `histories`: ragged, oldest first; `targets` int32 (cases,)."""

    histories: list[NDArray[np.int64]]
    targets: NDArray[np.int32]
    events: int
    items: int
    left_out: LeftOut


def evaluate_bundle(
    path: Path,
    data: Path,
    columns: Mapping[str, str] | None = None,
    precisions: Sequence[str] | None = None,
    threads: int = 1,
) -> EvaluateResult:
    """Leave-one-out, full catalogue, seen items excluded, for `precisions` (None: all of the bundle).

    `data`: a folder or interactions file that `deploy.tables` reads; `columns` maps its roles to column names.
    The target is each user's last event of an item the bundle knows, the history all such events before it.
    Raises UsageError or GateError.
    """
    bundle = open_bundle(path)
    interactions = read_interactions(find_tables(data).interactions, columns)
    names = sorted(bundle.manifest.model.precisions) if precisions is None else list(precisions)
    found: list[PrecisionAccuracy] = []
    cases: Cases | None = None
    for precision in names:
        recommender = Recommender(bundle, precision=precision, threads=threads)
        recommender.self_test()
        cases = cases or leave_one_out(interactions, recommender.rows_of(interactions.items))
        if not len(cases.targets):
            raise UsageError(f"{data}: no user has two events of items that the bundle knows")
        limit, n_items = recommender.bundle.manifest.model.max_history, len(recommender.catalogue)
        top = answer(recommender.ranker, cases.histories, limit, n_items)
        ranks = ranks_of(top, cases.targets)
        metrics = Metrics.model_validate(summarise(ranks, top, len(recommender.catalogue)))
        found.append(PrecisionAccuracy.model_validate({"precision": precision, "test": metrics}))
    if cases is None:
        raise UsageError("precision: at least one is needed")
    return EvaluateResult(
        bundle=bundle_info(path, bundle),
        dataset=Dataset(name=data.stem, users=len(cases.targets), items=cases.items, interactions=cases.events),
        accuracy=found,
        left_out=cases.left_out,
    )


def leave_one_out(interactions: Interactions, rows: Sequence[int]) -> Cases:
    """Cases of users with at least two known events. `rows`: catalogue row of each of the data's items, 0 unknown."""
    row_of = np.array(rows, dtype=np.int64)
    histories: list[NDArray[np.int64]] = []
    targets: list[int] = []
    short = events = again = 0
    seen: set[int] = set()
    for start, stop in zip(interactions.offsets[:-1], interactions.offsets[1:], strict=True):
        known = row_of[interactions.item_index[start:stop]]
        known = known[known > 0]
        if len(known) < 2:
            short += 1
            continue
        events += len(known)
        seen.update(known.tolist())
        histories.append(known[:-1])
        targets.append(int(known[-1]))
        again += int(known[-1] in known[:-1])
    unknown = int((row_of[interactions.item_index] == 0).sum())
    left_out = LeftOut(events_of_unknown_items=unknown, users_with_too_few_events=short, targets_seen_before=again)
    return Cases(histories, np.array(targets, dtype=np.int32), events, len(seen), left_out)


def answer(ranker: Ranker, histories: Sequence[NDArray[np.int64]], limit: int, n_items: int) -> NDArray[np.int32]:
    """`top` int32 (cases, min(n, DEPTH)) of histories of catalogue rows, 0 where nothing may be shown.

    The model reads the `limit` most recent of a history; memory is bounded whatever the catalogue's size.
    """
    depth = min(n_items, DEPTH)
    top = np.zeros((len(histories), depth), dtype=np.int32)
    step = at_once(n_items, _BATCH)
    for start in range(0, len(histories), step):
        part = histories[start : start + step]
        scores, rows = ranker.rank(_pad([rows[-limit:] for rows in part]), _pad(part), depth)
        top[start : start + len(part)] = np.where(np.isfinite(scores), rows, 0)
    return top


def _pad(lists: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    table = np.zeros((len(lists), max(map(len, lists))), dtype=np.int64)
    for line, rows in zip(table, lists, strict=True):
        line[len(line) - len(rows) :] = rows
    return table
