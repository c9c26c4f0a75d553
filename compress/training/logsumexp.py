"""Means over positions of what a softmax over items needs, without all its scores: piece by piece, gradients in the
same pass.

A full softmax is bound by memory traffic: positions x items numbers are written and read again by every step of a
loss. A piece of them that stays in the cache is scored, normalised and turned into gradients at once, as in the fused
linear cross-entropy of Liger Kernel (Hsu et al. 2024). Memory grows with piece x items, never with positions x items.
"""

from typing import Any

import torch
from torch import Tensor

PIECE = {"cpu": 64, "cuda": 4096}
"""Positions a piece: few enough for a core's cache, enough to fill a GPU."""


class _MeanLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, vectors: Tensor, out: Tensor) -> Tensor:
        user_grads, vector_grads = torch.empty_like(users), torch.zeros_like(vectors)
        total, n = users.new_zeros(()), len(users)
        beside = torch.zeros_like(out, dtype=users.dtype).masked_fill(out, -1e4)
        for part, grads in zip(_pieces(users), _pieces(user_grads), strict=True):
            scores = torch.addmm(beside, part, vectors.T)
            most = scores.amax(1, keepdim=True)
            shares = scores.sub_(most).exp_()
            sums = shares.sum(1, keepdim=True)
            total += (most + sums.log()).sum()
            shares.div_(sums * n)
            torch.mm(shares, vectors, out=grads)
            vector_grads.addmm_(shares.T, part)
        ctx.save_for_backward(user_grads, vector_grads)
        return total / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        user_grads, vector_grads = ctx.saved_tensors
        return grad * user_grads, grad * vector_grads, None


class _MeanKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, vectors: Tensor, theirs: Tensor, their_vectors: Tensor, out: Tensor) -> Tensor:
        user_grads, vector_grads = torch.empty_like(users), torch.zeros_like(vectors)
        total, n = users.new_zeros(()), len(users)
        beside = torch.zeros_like(out, dtype=users.dtype).masked_fill(out, -1e4)
        for part, their_part, grads in zip(_pieces(users), _pieces(theirs), _pieces(user_grads), strict=True):
            log_q = torch.addmm(beside, part, vectors.T).log_softmax(1)
            log_p = torch.addmm(beside, their_part, their_vectors.T).log_softmax(1)
            p = log_p.exp()
            total += (p * (log_p - log_q)).sum()
            change = log_q.exp_().sub_(p).div_(n)
            torch.mm(change, vectors, out=grads)
            vector_grads.addmm_(change.T, part)
        ctx.save_for_backward(user_grads, vector_grads)
        return total / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        user_grads, vector_grads = ctx.saved_tensors
        return grad * user_grads, grad * vector_grads, None, None, None


def mean_logsumexp(users: Tensor, vectors: Tensor, out: Tensor) -> Tensor:
    """users (positions, dim), vectors (rows, dim), out (rows,) bool: rows that do not count -> a scalar, in nats.

    Differentiable once, in users and vectors. Computed in fp32 inside mixed precision too.
    """
    with torch.autocast(users.device.type, enabled=False):
        mean: Tensor = _MeanLogSumExp.apply(users.float(), vectors.float(), out)  # type: ignore[no-untyped-call]
    return mean


def mean_kl(
    teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor], out: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL(teacher || student) of the softmaxes over all items at a temperature, mean over positions, in nats.

    Either side is users (positions, dim) and item vectors (rows, dim), each with a dim of its own; `out` as above.
    Differentiable once, in the student's.
    """
    (theirs, their_vectors), (users, vectors) = teacher, student
    with torch.autocast(users.device.type, enabled=False):
        mean: Tensor = _MeanKL.apply(  # type: ignore[no-untyped-call]
            users.float() / temperature, vectors.float(), theirs.float() / temperature, their_vectors.float(), out
        )
    return mean


def _pieces(positions: Tensor) -> tuple[Tensor, ...]:
    return torch.split(positions, PIECE.get(positions.device.type, PIECE["cuda"]))
