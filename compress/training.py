"""One training loop for teachers, students, controls and recovery after pruning."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from benchmarks.accuracy import ndcg, ranks_of, top_rows
from compress.data.dataset import Cases, Dataset
from compress.models.mix import Scorer
from compress.stage import Entry, RunOptions

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Training(Entry):
    """How long and how fast: AdamW, linear warm-up, cosine decay to a tenth, early stopping on validation NDCG@10."""

    epochs: NonNegativeInt = 30
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.05
    label_smoothing: Share = 0.0
    warmup_epochs: NonNegativeInt = 2
    validate_every: PositiveInt = 2
    patience: PositiveInt = 10  # validations without a better one; stopping before the decay costs accuracy


@dataclass(frozen=True)
class Fit:
    """What training came to: the best validation NDCG@10, its epoch, and the curve (epoch, loss, NDCG@10)."""

    best: float
    best_epoch: int
    curve: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Windows:
    """Training windows: `inputs`, `targets` (windows, length) int64 rows padded on the right, and `positions`,
    the index of each target among all training positions (-1: not a target here)."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]

    def batch(self, index: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        used = int((self.inputs[index] > 0).any(0).sum())
        return tuple(torch.from_numpy(a[index, :used]) for a in (self.inputs, self.targets, self.positions))  # type: ignore[return-value]


def windows(sequences: Sequence[NDArray[np.int32]], length: int, shift: np.random.Generator | None = None) -> Windows:
    """Cut each user's events into windows so that every event but the first is a target exactly once.

    Without `shift` the cuts count back from the newest event, so that the newest targets see full windows; with it the
    cuts move at random, so that over the epochs a target is seen under contexts of every length.
    """
    inputs, targets, positions = [], [], []
    first = 0
    for events in sequences:
        n = len(events) - 1
        if n < 1:
            continue
        ends = list(range(n, 0, -length))
        if shift is not None and n > length:
            ends = [n, *range(n - int(shift.integers(1, length + 1)), 0, -length)]
        for end, previous in zip(ends, [*ends[1:], 0], strict=True):
            start = max(0, end - length)
            padding = (0, length - (end - start))
            fresh = np.arange(start, end) >= previous
            inputs.append(np.pad(events[start:end], padding))
            targets.append(np.pad(np.where(fresh, events[start + 1 : end + 1], 0), padding))
            positions.append(np.pad(np.where(fresh, first + np.arange(start, end), -1), padding, constant_values=-1))
        first += n
    shape = (len(inputs), length)
    return Windows(*(np.array(a, np.int64).reshape(shape) for a in (inputs, targets, positions)))


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


@torch.no_grad()
def top_of_cases(model: Scorer, cases: Cases, depth: int, chunk: int = 512) -> NDArray[np.int32]:
    """The model's answers to `cases`, seen items excluded, whole catalogue ranked: (cases, depth) int32 rows."""
    model.eval()
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
