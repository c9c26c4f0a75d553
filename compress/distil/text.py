"""The text student: some of the teacher LM's layers, trained to give the teacher's item vectors."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from compress.distil.losses import VectorMSE
from compress.models.text import TextEncoder
from compress.models.tokens import batches
from compress.stage import Entry, RunOptions
from compress.training.checkpoint import epochs_left
from compress.training.engine import accelerator


class TextTraining(Entry):
    """How the text student is trained: AdamW, linear decay to zero."""

    epochs: Annotated[int, Field(ge=0)] = 3
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 5e-4


class TextStudent(Entry):
    """The first `layers` layers of the teacher's LM with a head of its own."""

    name: Literal["text"] = "text"
    layers: PositiveInt = 2
    training: TextTraining = TextTraining()


def train_text(
    student: TextEncoder,
    texts: Sequence[str],
    wanted: NDArray[np.float32],
    loss: VectorMSE,
    training: TextTraining,
    rng: np.random.Generator,
    options: RunOptions,
    what: str,
) -> float:
    """Fit `student(texts)` (n, dim) to `wanted`; returns 1 - explained variance on the texts, after training.

    The word embeddings stay: a cold item's words that no training text has must keep meaning what the teacher means.
    """
    engine = accelerator(options)
    student.to(engine.device)
    ids, mask, target = (t.to(engine.device) for t in (*student.tokenize(texts), torch.from_numpy(wanted)))
    variance = float(target.var(0, unbiased=False).mean())
    trained = [*student.layers.parameters(), *student.head.parameters()]
    student.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=training.learning_rate)
    per_epoch = -(-len(texts) // training.batch_size)
    student.train()
    for number in epochs_left(student, optimizer, training.epochs, rng, options, what, training.model_dump_json()):
        epoch = text_losses(student, ids, mask, target, variance, loss, training.batch_size, rng)
        for step, value in enumerate(epoch, start=(number - 1) * per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * (1 - step / (training.epochs * per_epoch))
            optimizer.zero_grad()
            engine.backward(value)
            engine.clip_grad_norm_(trained, 1.0)
            optimizer.step()
    student.eval()
    error = float(np.square(student.encode(texts) - wanted).mean() / variance)
    options.log(f"{what}: unexplained variance of the teacher's item vectors {error:.4f}")
    return error


def text_losses(
    student: TextEncoder,
    ids: Tensor,
    mask: Tensor,
    target: Tensor,
    variance: float,
    loss: VectorMSE,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[Tensor]:
    """The losses of one epoch over shuffled texts."""
    order = rng.permutation(len(ids))
    for part in batches(len(order), batch_size):
        index = torch.from_numpy(order[part])
        used = int(mask[index].sum(1).max())
        yield loss(student(ids[index, :used], mask[index, :used]), target[index], variance)
