"""One training loop for teachers, students, controls and recovery after pruning."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from compress.stage import Entry, RunOptions
from compress.training.augment import Augmentation
from compress.training.checkpoint import Checkpoints, Progress, moving, put
from compress.training.engine import accelerator, precision
from compress.training.softmax import FullSoftmax, Softmax
from compress.training.windows import windows

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
OptimizerOf = Callable[[list[dict[str, object]]], torch.optim.Optimizer]
"""Parameter groups, each with its learning rate, -> what steps."""


class Training(Entry):
    """How long and how fast: AdamW, linear warm-up, cosine decay to a tenth, early stopping on validation NDCG@10."""

    epochs: NonNegativeInt = 30
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.05
    label_smoothing: Share = 0.0
    softmax: Softmax = FullSoftmax()
    by_length: bool = False  # batches of windows of like length: less padding where histories are short
    augment: tuple[Augmentation, ...] = ()
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: mixed precision, weights and sums stay fp32
    warmup_epochs: NonNegativeInt = 2
    validate_every: PositiveInt = 2
    patience: PositiveInt = 10  # validations without a better one; stopping before the decay costs accuracy


@dataclass(frozen=True)
class Fit:
    """What training came to: the best validation NDCG@10, its epoch, and the curve (epoch, loss, NDCG@10)."""

    best: float
    best_epoch: int
    curve: tuple[tuple[int, float, float], ...]


def batches(
    sequences: Sequence[NDArray[np.int32]], length: int, training: Training, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch of training windows: inputs, targets and positions (windows, up to `length`) int64, in batches."""
    cut = windows(sequences, length, rng)
    for change in training.augment:
        cut = change(cut, rng)
    for index in cut.batches(training.batch_size, rng, training.by_length):
        yield cut.batch(index)


def fit(
    module: nn.Module,
    groups: Sequence[tuple[Sequence[nn.Parameter], float]],
    training: Training,
    epoch: Callable[[int], Iterator[Tensor]],
    validate: Callable[[int], float],
    options: RunOptions,
    what: str,
    start_competes: bool = False,
    rng: np.random.Generator | None = None,
    metric: str = "NDCG@10",
    optimizer_of: OptimizerOf | None = None,
    most_norm: float = 1.0,
) -> Fit:
    """Train and leave `module` in the state that validated best. `epoch(number)` yields one epoch's losses,
    `validate(number)` gives `metric` after it (0: before the first).

    `groups` pairs parameters with the factor on the learning rate. With `start_competes` the state before the first
    epoch may win: for a module that is trained already, so that a recovery that only hurts changes nothing. Killed
    training goes on after its last checkpoint where `rng` is all that `epoch` draws from beside torch, and all that it
    changes is in the module's state; without `rng` there are no checkpoints. `optimizer_of` stands in for AdamW;
    gradients of all parameters together are cut to the norm `most_norm`.
    """
    engine = accelerator(options)
    made = [{"params": list(p), "lr": training.learning_rate * scale, "scale": scale} for p, scale in groups]
    optimizer = optimizer_of(made) if optimizer_of else torch.optim.AdamW(made, weight_decay=training.weight_decay)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    checkpoints = None
    if rng is not None:
        settings = f"{what} {training.model_dump_json()} {start_competes}"
        checkpoints = Checkpoints(module, optimizer, rng, options, settings)
    progress = None if checkpoints is None else checkpoints.restore()
    if progress is None:
        first = validate(0)
        competes = start_competes or not training.epochs
        progress = Progress(first if competes else -math.inf, _copy(module, optimizer), [(0, math.nan, first)])
    left = range(progress.epoch + 1, training.epochs + 1)
    for number in options.progress(left, what, len(left)):
        if progress.stale >= training.patience:
            break
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * group["scale"] * _schedule(number, training)
        module.train()
        losses = []
        for loss in _computed(epoch(number), engine, training):
            optimizer.zero_grad()
            engine.backward(loss)
            engine.clip_grad_norm_(parameters, most_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
        progress.epoch = number
        if not number % training.validate_every or number == training.epochs:
            value = validate(number)
            progress.curve.append((number, float(np.mean(losses)), value))
            progress.stale += 1
            if value > progress.best:
                progress.best, progress.best_epoch, progress.stale = value, number, 0
                progress.state = _copy(module, optimizer)
        if checkpoints is not None:
            checkpoints.offer(progress)
    put(module, progress.state)
    module.eval()
    options.log(f"{what}: validation {metric} {progress.best:.4f} at epoch {progress.best_epoch}")
    return Fit(progress.best, progress.best_epoch, tuple(progress.curve))


def seed_everything(seed: int, options: RunOptions) -> np.random.Generator:
    """Seed torch, set its threads, and return the numpy generator of this stage."""
    torch.manual_seed(seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    return np.random.default_rng(seed)


def _computed(losses: Iterator[Tensor], engine: Accelerator, training: Training) -> Iterator[Tensor]:
    """The same losses, each computed in the precision asked for; backward passes follow the forward's."""
    mixed = precision(engine, training.precision)
    while True:
        with engine.autocast(mixed):
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


def _schedule(epoch: int, training: Training) -> float:
    warm = min(1.0, epoch / (training.warmup_epochs + 1))
    return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / training.epochs)))


def _copy(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in moving(module, optimizer).items()}
