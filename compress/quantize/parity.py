"""Does a graph say what the model said? fp32 graphs must; how far quantized ones are off is recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg
from compress.data.dataset import Cases
from compress.models.encoder import ItemEncoder
from compress.models.mix import Scorer
from deploy.ranker import Ranker
from deploy.text import TextEncoder

TOLERANCE = 1e-3  # relative to the largest score or vector entry
MOST_SCORES = 2**24  # of catalogues compared in whole: 64 MB of float32


class ParityError(RuntimeError):
    """An exported fp32 graph does not reproduce its torch model: a defect of the export, not of the recipe."""


@dataclass(frozen=True)
class Questions:
    """What history graphs are asked, and the right answers, `targets` int32 (cases,).

    `histories` int64 (cases, length), and what else is excluded, `exclude` int64 (cases, m), are padded with 0.
    """

    histories: NDArray[np.int64]
    exclude: NDArray[np.int64]
    targets: NDArray[np.int32]

    @classmethod
    def of(cls, cases: Cases, max_history: int, most: int) -> "Questions":
        """The first `most` cases, everything seen excluded as when accuracy is measured."""
        seen = cases.seen[:most]
        exclude = np.zeros((len(seen), max((len(items) for items in seen), default=0)), np.int64)
        for row, items in zip(exclude, seen, strict=True):
            row[: len(items)] = items
        return cls(cases.histories(max_history)[:most], exclude, cases.targets[:most])


@torch.no_grad()
def history_parity(model: Scorer, graph: Path, questions: Questions, exact: bool) -> dict[str, float]:
    """How far a graph's answers are from its fp32 model's.

    `relative_difference`: the largest of the first 10 scores; `top10_overlap`: the share of the first 10 items both
    name; `centred_cosine` of scores of the catalogue (see `scores_cosine`); `ndcg@10` of the graph beside
    `fp32_ndcg@10` of the model, on these cases. Raises ParityError where `exact` and the difference is above TOLERANCE.
    """
    histories = questions.histories
    rows = torch.from_numpy(histories)
    k = min(10, model.n_items)
    reference = model.scores(rows)
    for left_out in (torch.zeros_like(rows[:, :1]), rows, torch.from_numpy(questions.exclude)):
        reference.scatter_(1, left_out, -torch.inf)
    best = reference.topk(k)
    ranker = Ranker(graph)
    scores, items = ranker.rank(histories, questions.exclude, k)
    expected = best.values.numpy()
    wanted, named = np.isfinite(expected), np.isfinite(scores)  # in a small catalogue fewer than k items are left
    both = wanted & named
    difference = relative(scores[both], expected[both])
    pairs = zip(items, named, best.indices.numpy(), wanted, strict=True)
    overlap = np.mean([len({*a[m]} & {*b[w]}) / max(1, w.sum()) for a, m, b, w in pairs])
    if exact and difference > TOLERANCE:
        raise ParityError(f"{graph.name}: scores differ from torch by {difference:.2e} of the largest")
    return {
        "relative_difference": difference,
        "top10_overlap": float(overlap),
        "centred_cosine": scores_cosine(ranker, questions, reference.numpy()),
        "ndcg@10": ndcg_of(items, questions.targets),
        "fp32_ndcg@10": ndcg_of(best.indices.numpy(), questions.targets),
        "cases": len(histories),
    }


def scores_cosine(ranker: Ranker, questions: Questions, reference: NDArray[np.float32]) -> float:
    """Centred cosine of a case's scores of all items: what all cases share, such as popularity, is taken out.

    Of the first cases alone where the catalogue is large. reference: (cases, n_items + 1), -inf where excluded.
    """
    n_rows = reference.shape[1]
    cases = min(len(reference), max(2, MOST_SCORES // n_rows))
    reference = reference[:cases]
    scores, items = ranker.rank(questions.histories[:cases], questions.exclude[:cases], n_rows)
    found = np.empty_like(scores)
    np.put_along_axis(found, items, scores, 1)
    asked = np.isfinite(reference)
    mean = np.where(asked, reference, 0.0).sum(0) / np.maximum(asked.sum(0), 1)
    a, b = (
        np.where(asked, values - mean, 0.0) for values in (np.where(asked, found, 0.0), np.where(asked, reference, 0.0))
    )
    return _mean_cosine(a, b)


def ndcg_of(items: NDArray[np.integer[Any]], targets: NDArray[np.int32]) -> float:
    """NDCG@10 of answers (cases, k), best first, to questions with one right answer each."""
    found = items == targets[:, None]
    return float(ndcg(np.where(found.any(1), found.argmax(1) + 1, 0), 10).mean()) if len(targets) else 0.0


def text_parity(
    encoder: ItemEncoder, graph: Path, tokenizer: Path, texts: Sequence[str], exact: bool
) -> dict[str, float]:
    """How far a graph's item vectors are from its fp32 model's.

    `relative_difference`: the largest; `centred_cosine`: the mean after the common mean is taken out, since plain
    cosine hides ruin (vectors of one LM share a large common part); `top10_overlap`: of each text's 10 nearest others;
    `unexplained_variance`, the metric of text encoders, of fp32's vectors. Raises ParityError as `history_parity`.
    """
    expected = encoder.encode(texts)
    vectors = TextEncoder(graph, tokenizer, encoder.max_tokens).encode(texts)
    difference = relative(vectors, expected)
    if exact and difference > TOLERANCE:
        raise ParityError(f"{graph.name}: vectors differ from torch by {difference:.2e} of the largest")
    return {
        "relative_difference": difference,
        "centred_cosine": centred_cosine(vectors, expected),
        "top10_overlap": neighbour_overlap(vectors, expected),
        "unexplained_variance": float(
            ((vectors - expected) ** 2).sum() / max(1e-12, ((expected - expected.mean(0)) ** 2).sum())
        ),
        "texts": len(texts),
    }


def neighbour_overlap(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]], k: int = 10) -> float:
    """The share of each row's k nearest others, by centred cosine, that a and b, (n, dim) each, both name."""
    k = min(k, len(a) - 1)
    if k < 1:
        return 1.0
    nearest = []
    for vectors in (a - b.mean(0), b - b.mean(0)):
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        likeness = unit @ unit.T
        np.fill_diagonal(likeness, -np.inf)
        nearest.append(np.argpartition(-likeness, k - 1, axis=1)[:, :k])
    return float(np.mean([len({*x} & {*y}) / k for x, y in zip(*nearest, strict=True)]))


def relative(found: NDArray[np.floating[Any]], expected: NDArray[np.floating[Any]]) -> float:
    """Largest difference over the largest entry; over 1 where all entries are 0: items of which nothing is known."""
    return float(np.abs(found - expected).max(initial=0.0) / (np.abs(expected).max(initial=0.0) or 1.0))


def centred_cosine(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """Mean cosine of rows of a and b, (n, dim) each, after subtracting b's mean row; (n,) each are one vector."""
    return _mean_cosine(np.atleast_2d(a - b.mean(0)), np.atleast_2d(b - b.mean(0)))


def _mean_cosine(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.maximum(norms, 1e-12)))
