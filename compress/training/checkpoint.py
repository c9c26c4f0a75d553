"""Checkpoints inside a stage: training that was killed goes on where it was, and ends in the same bytes.

The file holds tensors and plain text, is replaced in one step and read without unpickling objects. Its name is a digest
of the state training started from, so that only the same training, started anew, finds it.
"""

import hashlib
import json
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from compress.stage import RunOptions

MOST_OF_TIME = 0.02
"""The share of the time that saving may take: a slow disk gets fewer checkpoints."""


@dataclass
class Progress:
    """Where training is: epochs done, the state that validated best, validations since then, and the curve so far."""

    best: float
    state: dict[str, Tensor]
    curve: list[tuple[int, float, float]]
    epoch: int = 0
    best_epoch: int = 0
    stale: int = 0


@dataclass
class Checkpoints:
    """Saves and finds the progress of one training in `options.scratch`; without a folder it does neither."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    options: RunOptions
    settings: str  # what else decides how training goes, as text
    _saved: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    def __post_init__(self) -> None:
        folder = self.options.scratch
        self.path = None if folder is None else folder / f"{self._start()[:32]}.checkpoint"

    def _start(self) -> str:
        digest = hashlib.sha256(self.settings.encode())
        digest.update(_numpy_state(self.rng).encode())
        digest.update(torch.get_rng_state().numpy().tobytes())
        for name, tensor in self.module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def restore(self) -> Progress | None:
        """Bring module, optimizer and random states to the last checkpoint; None, and nothing moved, without one."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            self.options.log(f"checkpoint not readable, training starts over: {error}")
            return None
        put(self.module, found["module"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.rng.bit_generator.state = json.loads(found["numpy"])
        torch.set_rng_state(found["torch"])
        if found["cuda"]:
            torch.cuda.set_rng_state_all(found["cuda"])
        plain = json.loads(found["progress"])
        curve = [(int(epoch), float(loss), float(value)) for epoch, loss, value in plain.pop("curve")]
        progress = Progress(**plain, curve=curve, state=found["best"])
        self.options.log(f"goes on after epoch {progress.epoch}")
        return progress

    def offer(self, progress: Progress) -> None:
        """Save if the last time is long enough ago; with `checkpoint_seconds` 0 always."""
        seconds = self.options.checkpoint_seconds
        pause = max(seconds, self._cost / MOST_OF_TIME) if seconds else 0.0
        if self.path is None or time.monotonic() - self._saved < pause:
            return
        start = time.monotonic()
        plain = {name: value for name, value in vars(progress).items() if name != "state"}
        content = {
            "module": moving(self.module, self.optimizer),
            "optimizer": self.optimizer.state_dict(),
            "numpy": _numpy_state(self.rng),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "progress": json.dumps(plain),
            "best": progress.state,
        }
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        self._saved = time.monotonic()
        self._cost = self._saved - start


def epochs_left(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    rng: np.random.Generator,
    options: RunOptions,
    what: str,
    settings: str,
) -> Iterator[int]:
    """The epochs, from 1, of a training that keeps its last state: one that was killed has fewer left.

    As in `fit`, `rng` and torch's generator must be all that an epoch draws from.
    """
    checkpoints = Checkpoints(module, optimizer, rng, options, f"{what} {settings}")
    progress = checkpoints.restore() or Progress(0.0, {}, [])
    left = range(progress.epoch + 1, epochs + 1)
    for number in options.progress(left, what, len(left)):
        yield number
        progress.epoch = number
        checkpoints.offer(progress)


def moving(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of the state that training changes: what the optimizer holds, and buffers. Not copied."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    still = {name for name, parameter in module.named_parameters() if id(parameter) not in held}
    return {name: tensor.detach() for name, tensor in module.state_dict().items() if name not in still}


def put(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `moving` gave; all else stays."""
    module.load_state_dict({**module.state_dict(), **state})


def _numpy_state(rng: np.random.Generator) -> str:
    return json.dumps(rng.bit_generator.state, sort_keys=True)
