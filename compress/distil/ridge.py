"""Rows of a token table fitted to vectors of whole texts by ridge regression, float64 on the CPU and without iteration
over epochs: the same inputs give the same bytes.

Shapes: rows (tokens, dim); wanted (texts, dim); shares, sparse (texts, tokens), times rows are the texts' means.
"""

import torch
from torch import Tensor

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties tried, relative to the mean square of what the fit has to work with."""
TOLERANCE, MOST_STEPS = 1e-5, 200


def fitted(rows: Tensor, shares: Tensor, wanted: Tensor, strengths: tuple[float, float]) -> Tensor:
    """Map all rows by one affine map, then change each; `strengths` of the two penalties -> rows (tokens, dim)."""
    mapped = mapped_rows(rows, shares, wanted, strengths[0])
    left = wanted - torch.sparse.mm(shares, mapped)
    return mapped + own_changes(shares, left, strengths[1])


def chosen_map(rows: Tensor, shares: Tensor, wanted: Tensor, held_out: Tensor) -> float:
    """The strength of the map's penalty that predicts the texts held out, bool (texts,), best."""
    known, others = part(shares, ~held_out), part(shares, held_out)

    def error(strength: float) -> float:
        mapped = mapped_rows(rows, known, wanted[~held_out], strength)
        return float((torch.sparse.mm(others, mapped) - wanted[held_out]).square().mean())

    return min(STRENGTHS, key=error)


def chosen_strengths(rows: Tensor, shares: Tensor, wanted: Tensor, held_out: Tensor) -> tuple[float, float]:
    """The strengths that predict the texts held out best: the map's, then, given it, the changes'."""
    known, others = part(shares, ~held_out), part(shares, held_out)
    first = chosen_map(rows, shares, wanted, held_out)
    mapped = mapped_rows(rows, known, wanted[~held_out], first)
    left = wanted[~held_out] - torch.sparse.mm(known, mapped)

    def error(strength: float) -> float:
        found = mapped + own_changes(known, left, strength)
        return float((torch.sparse.mm(others, found) - wanted[held_out]).square().mean())

    return first, min(STRENGTHS, key=error)


def mapped_rows(rows: Tensor, shares: Tensor, wanted: Tensor, strength: float) -> Tensor:
    """rows @ map + bias, both by ridge regression of `wanted` on the texts' means; the bias is not penalised."""
    means = torch.sparse.mm(shares, rows)
    centre, target = means.mean(0), wanted.mean(0)
    centred = means - centre
    gram = centred.T @ centred
    penalty = strength * gram.diagonal().mean().clamp(min=1e-12)
    linear = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=gram.dtype), centred.T @ (wanted - target))
    mapped: Tensor = (rows - centre) @ linear + target
    return mapped


def own_changes(shares: Tensor, left: Tensor, strength: float) -> Tensor:
    """The d that minimises |shares d - left|² + penalty |d|², by conjugate gradients: memory stays that of the rows.

    Solved for the tokens that some text has: those of no other have d = 0.
    """
    penalty = strength * float(shares.values().square().sum()) / shares.shape[0]
    (text, token), tokens = shares.indices(), shares.shape[1]
    used, column = token.unique(return_inverse=True)
    index = torch.stack([text, column])
    shares = torch.sparse_coo_tensor(
        index, shares.values(), (shares.shape[0], len(used)), check_invariants=True
    ).coalesce()
    back = shares.t().coalesce()
    change = torch.zeros(len(used), left.shape[1], dtype=left.dtype)
    residual = torch.sparse.mm(back, left)
    direction, squares = residual.clone(), residual.square().sum()
    goal = squares * TOLERANCE**2
    for _ in range(MOST_STEPS):
        if squares <= goal:
            break
        product = torch.sparse.mm(back, torch.sparse.mm(shares, direction)) + penalty * direction
        step = squares / (direction * product).sum()
        change += step * direction
        residual -= step * product
        before, squares = squares, residual.square().sum()
        direction = residual + squares / before * direction
    return torch.zeros(tokens, left.shape[1], dtype=left.dtype).index_copy(0, used, change)


def part(shares: Tensor, texts: Tensor) -> Tensor:
    """The rows of `shares` where `texts`, bool (texts,), is true."""
    chosen: Tensor = shares.index_select(0, texts.nonzero()[:, 0]).coalesce()
    return chosen


def principal_axes(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """vectors (n, dim) -> their mean (dim,) and leading directions (dim, count), largest variance first."""
    centre = vectors.mean(0)
    _, axes = torch.linalg.eigh((vectors - centre).T @ (vectors - centre))
    return centre, axes.flip(1)[:, :count]
