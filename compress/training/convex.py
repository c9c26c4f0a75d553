"""A few numbers of highest likelihood: what weighs the members of a mix."""

from collections.abc import Callable

import torch
from torch import Tensor


def minimise(start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Where a smooth `loss` of a vector is least, by L-BFGS with strong Wolfe line search from `start`."""
    free = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss(free)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(step)  # type: ignore[no-untyped-call]
    return free.detach()
