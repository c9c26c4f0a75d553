"""Does a graph say what the model said? fp32 graphs must; how far quantized ones are off is recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.models.encoder import ItemEncoder
from compress.models.mix import Scorer
from deploy.ranker import Ranker
from deploy.text import TextEncoder

TOLERANCE = 1e-3  # relative to the largest score or vector entry


class ParityError(RuntimeError):
    """An exported fp32 graph does not reproduce its torch model: a defect of the export, not of the recipe."""


@torch.no_grad()
def history_parity(model: Scorer, graph: Path, histories: NDArray[np.int64], exact: bool) -> dict[str, float]:
    """Largest relative difference of the first 10 scores, and the share of the first 10 items both name.

    histories: (cases, length) int64. Raises ParityError where `exact` and the difference is above TOLERANCE.
    """
    rows = torch.from_numpy(histories)
    k = min(10, model.n_items)
    reference = model.scores(rows)
    reference[:, 0] = -torch.inf
    reference.scatter_(1, rows, -torch.inf)
    best = reference.topk(k)
    scores, items = Ranker(graph).rank(histories, np.zeros((len(rows), 1), np.int64), k)
    expected = best.values.numpy()
    wanted, named = np.isfinite(expected), np.isfinite(scores)  # in a small catalogue fewer than k items are left
    both = wanted & named
    difference = _relative(scores[both], expected[both])
    pairs = zip(items, named, best.indices.numpy(), wanted, strict=True)
    overlap = np.mean([len({*a[m]} & {*b[w]}) / max(1, w.sum()) for a, m, b, w in pairs])
    if exact and difference > TOLERANCE:
        raise ParityError(f"{graph.name}: scores differ from torch by {difference:.2e} of the largest")
    return {"relative_difference": difference, "top10_overlap": float(overlap), "cases": len(histories)}


def text_parity(
    encoder: ItemEncoder, graph: Path, tokenizer: Path, texts: Sequence[str], exact: bool
) -> dict[str, float]:
    """Largest relative difference of item vectors, and the mean cosine after the common mean is taken out.

    Plain cosine hides ruin: vectors of one LM share a large common part. Raises ParityError as `history_parity`.
    """
    expected = encoder.encode(texts)
    vectors = TextEncoder(graph, tokenizer, encoder.max_tokens).encode(texts)
    difference = _relative(vectors, expected)
    if exact and difference > TOLERANCE:
        raise ParityError(f"{graph.name}: vectors differ from torch by {difference:.2e} of the largest")
    return {
        "relative_difference": difference,
        "centred_cosine": centred_cosine(vectors, expected),
        "texts": len(texts),
    }


def _relative(found: NDArray[np.floating[Any]], expected: NDArray[np.floating[Any]]) -> float:
    """Largest difference over the largest entry; over 1 where all entries are 0: items of which nothing is known."""
    return float(np.abs(found - expected).max(initial=0.0) / (np.abs(expected).max(initial=0.0) or 1.0))


def centred_cosine(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """Mean cosine of rows of a and b, (n, dim) each, after subtracting b's mean row."""
    a, b = a - b.mean(0), b - b.mean(0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(1) / np.maximum(norms, 1e-12)))
