"""A model's answers to cases, the whole catalogue ranked, and what training looks at: validation NDCG@10."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy import at_once, ndcg, ranks_of, top_rows
from compress.data.dataset import Cases, Dataset
from compress.models.mix import Scorer


@torch.no_grad()
def top_of_cases(model: Scorer, cases: Cases, depth: int, chunk: int | None = None) -> NDArray[np.int32]:
    """The model's answers to `cases`, seen items excluded, whole catalogue ranked: (cases, depth) int32 rows.

    `chunk` histories are scored at once; by default as many as memory bears.
    """
    model.eval()
    chunk = chunk or at_once(model.n_items)
    histories = cases.histories(model.max_history)
    parts = []
    for start in range(0, len(cases), chunk):
        some = torch.from_numpy(histories[start : start + chunk]).to(model.device)
        scores = model.scores(some).float().cpu().numpy()
        parts.append(top_rows(scores, cases.seen[start : start + chunk], depth))
    return np.concatenate(parts) if parts else np.zeros((0, depth), np.int32)


def validation_ranks(model: Scorer, dataset: Dataset) -> NDArray[np.int32]:
    """Ranks of the validation targets among the first 1,000 answers, (cases,) int32; 0: not among them."""
    cases = dataset.cases("valid")
    return ranks_of(top_of_cases(model, cases, min(dataset.n_items, 1000)), cases.targets)


def validation_ndcg(model: Scorer, dataset: Dataset) -> float:
    return float(ndcg(validation_ranks(model, dataset), 10).mean())


def warm_items(dataset: Dataset) -> Tensor:
    """(n_items + 1,) bool: which rows have training events."""
    return torch.from_numpy(dataset.popularity > 0)
