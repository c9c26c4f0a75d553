"""One training loop for teachers, students, controls and recovery after pruning."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from compress.stage import Entry, RunOptions
from compress.training.softmax import FullSoftmax, Softmax

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Training(Entry):
    """How long and how fast: AdamW, linear warm-up, cosine decay to a tenth, early stopping on validation NDCG@10."""

    epochs: NonNegativeInt = 30
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.05
    label_smoothing: Share = 0.0
    softmax: Softmax = FullSoftmax()
    warmup_epochs: NonNegativeInt = 2
    validate_every: PositiveInt = 2
    patience: PositiveInt = 10  # validations without a better one; stopping before the decay costs accuracy


@dataclass(frozen=True)
class Fit:
    """What training came to: the best validation NDCG@10, its epoch, and the curve (epoch, loss, NDCG@10)."""

    best: float
    best_epoch: int
    curve: tuple[tuple[int, float, float], ...]


def fit(
    module: nn.Module,
    groups: Sequence[tuple[Sequence[nn.Parameter], float]],
    training: Training,
    epoch: Callable[[int], Iterator[Tensor]],
    validate: Callable[[int], float],
    options: RunOptions,
    what: str,
    start_competes: bool = False,
) -> Fit:
    """Train and leave `module` in the state that validated best. `epoch(number)` yields one epoch's losses,
    `validate(number)` gives NDCG@10 after it (0: before the first).

    `groups` pairs parameters with the factor on the learning rate. With `start_competes` the state before the first
    epoch may win: for a module that is trained already, so that a recovery that only hurts changes nothing.
    """
    optimizer = torch.optim.AdamW(
        [{"params": list(p), "lr": training.learning_rate * scale, "scale": scale} for p, scale in groups],
        weight_decay=training.weight_decay,
    )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    best, best_epoch, state = validate(0), 0, _copy(module)
    curve, stale = [(0, math.nan, best)], 0
    if not start_competes and training.epochs:
        best = -math.inf
    for number in options.progress(range(1, training.epochs + 1), what, training.epochs):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * group["scale"] * _schedule(number, training)
        module.train()
        losses = []
        for loss in epoch(number):
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        if number % training.validate_every and number != training.epochs:
            continue
        value = validate(number)
        curve.append((number, float(np.mean(losses)), value))
        if value > best:
            best, best_epoch, state, stale = value, number, _copy(module), 0
        else:
            stale += 1
        if stale >= training.patience:
            break
    module.load_state_dict(state)
    module.eval()
    options.log(f"{what}: validation NDCG@10 {best:.4f} at epoch {best_epoch}")
    return Fit(best, best_epoch, tuple(curve))


def seed_everything(seed: int, options: RunOptions) -> np.random.Generator:
    """Seed torch, set its threads, and return the numpy generator of this stage."""
    torch.manual_seed(seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    return np.random.default_rng(seed)


def _schedule(epoch: int, training: Training) -> float:
    warm = min(1.0, epoch / (training.warmup_epochs + 1))
    return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / training.epochs)))


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
