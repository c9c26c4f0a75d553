"""Our metrics beside torchmetrics', an independent implementation, on cases drawn at random."""

import numpy as np
import pytest
import torch

from benchmarks import accuracy

library = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dev`)").functional

CASES, ITEMS, DEPTH = 200, 60, 60


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    """(cases, n + 1), no two alike in a case, above 0 (torchmetrics has nothing else found); row 0 is padding."""
    return np.random.default_rng(3).permuted(np.tile(np.arange(1, ITEMS + 2, dtype=np.float32), (CASES, 1)), axis=1)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_ranking_metrics(scores: np.ndarray, k: int) -> None:
    """Items seen score below all others there; the target is one of the rest."""
    rng = np.random.default_rng(k)
    seen = [rng.choice(ITEMS, rng.integers(0, 20), replace=False) + 1 for _ in range(CASES)]
    targets = np.array([rng.choice(np.setdiff1d(np.arange(1, ITEMS + 1), rows)) for rows in seen])
    ranks = accuracy.ranks_of(accuracy.top_rows(scores, seen, DEPTH), targets)
    assert (ranks > 0).all()
    ours = {
        "retrieval_normalized_dcg": accuracy.ndcg(ranks, k),
        "retrieval_recall": accuracy.recall(ranks, k),
        "retrieval_hit_rate": accuracy.recall(ranks, k),
        "retrieval_precision": accuracy.precision(ranks, k),
    }
    for case in range(CASES):
        told, wanted = torch.from_numpy(scores[case].copy()), torch.zeros(ITEMS + 1, dtype=torch.bool)
        told[0], wanted[int(targets[case])] = 0, True
        told[torch.from_numpy(seen[case])] = 0
        for name, values in ours.items():
            theirs = getattr(library.retrieval, name)(told, wanted, top_k=k)
            assert values[case] == pytest.approx(float(theirs), abs=1e-6), name
        reciprocal = float(library.retrieval.retrieval_reciprocal_rank(told, wanted))
        assert accuracy.mrr(ranks)[case] == pytest.approx(reciprocal, abs=1e-6)
        precision, recall = accuracy.precision(ranks, k)[case], accuracy.recall(ranks, k)[case]
        harmonic = 2 * precision * recall / (precision + recall) if recall else 0.0
        assert accuracy.f1(ranks, k)[case] == pytest.approx(harmonic)


def test_areas_under_the_curve() -> None:
    """With ties, over all rows and over each user's own."""
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 12, 2000) / 12, rng.random(2000) < 0.3
    users = rng.integers(0, 40, 2000)

    def theirs(rows: np.ndarray) -> float:
        return float(
            library.classification.binary_auroc(torch.from_numpy(scores[rows]), torch.from_numpy(labels[rows]))
        )

    assert accuracy.auc(scores, labels) == pytest.approx(theirs(np.arange(2000)), abs=1e-6)
    own = [theirs(np.flatnonzero(users == user)) for user in range(40)]
    assert accuracy.user_aucs(scores, labels, users) == pytest.approx(own, abs=1e-6)
    assert accuracy.uauc(scores, labels, users) == pytest.approx(np.mean(own), abs=1e-6)
