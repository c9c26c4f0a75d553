"""The text student: some of the teacher LM's layers, trained to give the teacher's item vectors."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from compress.distil.text_losses import TextLoss, TextLosses, TextStep, VectorMSE
from compress.distil.texts import ItemTexts, TextReader
from compress.models.encoder import ItemEncoder
from compress.models.states import text_states
from compress.models.text import TextEncoder
from compress.models.tokens import batches
from compress.stage import Entry, RunOptions, without_default
from compress.training.checkpoint import epochs_left
from compress.training.engine import accelerator


class TextTraining(Entry):
    """How the text student is trained: AdamW, linear decay to zero."""

    epochs: Annotated[int, Field(ge=0)] = 3
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 5e-4


class TextStudent(TextReader):
    """The first `layers` layers of the teacher's LM with a head of its own."""

    name: Literal["text"] = "text"
    layers: PositiveInt = 2
    loss: TextLosses = (VectorMSE(),)
    training: TextTraining = TextTraining()

    @model_serializer(mode="wrap")
    def _only_what_differs(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_default(write(self), self, "loss")


class TextDistillation(nn.Module):
    """Losses of one text student, their `heads`, and the teacher with its item vectors of `texts`, made once.

    The states inside the teacher are computed anew at every step that needs them: they are as many numbers as all
    texts have tokens, layers and dimensions.
    """

    def __init__(
        self,
        losses: Sequence[TextLoss],
        student: ItemEncoder,
        teacher: TextEncoder,
        texts: ItemTexts,
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        """`vectors`: the teacher's of `texts.learned`, then of those held out, where somebody has them already. Raises
        UsageError where a loss does not fit the two."""
        super().__init__()
        self.losses = tuple(losses)
        self._teacher = [teacher.requires_grad_(False)]  # in a list: no part of what is trained, saved or moved
        self.renew_heads(student)
        self.texts = texts.learned
        if vectors is None:
            vectors = teacher.encode([*texts.learned, *texts.held_out])
        self.wanted, held_out = np.split(vectors, [len(self.texts)])
        # where nothing is held out, what was read measures
        self.unread = texts.held_out or texts.read
        self.unread_wanted = held_out if texts.held_out else self.wanted[: len(texts.read)]
        of_items = np.concatenate([self.wanted[: len(texts.read)], held_out])
        self.variance = float(torch.from_numpy(of_items).var(0, unbiased=False).mean())
        self.needs_states = any(loss.needs_states for loss in losses)

    def renew_heads(self, student: ItemEncoder) -> None:
        """Start the losses' heads anew: the student may have got another hidden width."""
        self.heads = nn.ModuleList(loss.head(student, self._teacher[0]) for loss in self.losses)

    def unexplained(self, student: ItemEncoder) -> float:
        """1 - explained variance of the teacher's item vectors, on the texts held out."""
        return float(np.square(student.encode(self.unread) - self.unread_wanted).mean() / self.variance)

    def epoch(
        self, student: ItemEncoder, tokens: tuple[Tensor, Tensor], batch_size: int, rng: np.random.Generator
    ) -> Iterator[Tensor]:
        """The losses of one epoch over shuffled texts; `tokens` are the student's ids and mask of all of them."""
        ids, mask = tokens
        (teacher,), wanted = self._teacher, torch.from_numpy(self.wanted)
        # a student with fewer words has other ids for the same tokens
        their_ids = teacher.tokenize(self.texts)[0] if self.needs_states else ids
        if self.needs_states:
            teacher.to(ids.device)
        order = rng.permutation(len(ids))
        for part in batches(len(order), batch_size):
            index = torch.from_numpy(order[part])
            used = int(mask[index].sum(1).max())
            some, there = ids[index, :used], mask[index, :used]
            target = wanted[index].to(ids.device)
            if self.needs_states and isinstance(student, TextEncoder):
                ours = text_states(student, some, there)
                with torch.no_grad():
                    theirs = text_states(teacher, their_ids[index, :used].to(ids.device), there)
                step = TextStep(ours.vectors, target, self.variance, there, ours, theirs)
            else:
                step = TextStep(student(some, there), target, self.variance, there)
            parts = [loss.weight * loss(step, head) for loss, head in zip(self.losses, self.heads, strict=True)]
            yield torch.stack(parts).sum()


def train_text(
    student: ItemEncoder,
    taught: TextDistillation,
    training: TextTraining,
    rng: np.random.Generator,
    options: RunOptions,
    what: str,
    start_competes: bool = False,
) -> float:
    """Fit a student to its teacher's item vectors; returns 1 - explained variance on texts held out, after training.

    With `start_competes` the weights from before stay where training left more unexplained.
    """
    engine = accelerator(options)
    both = nn.ModuleList([student, taught]).to(engine.device)
    ids, mask = (t.to(engine.device) for t in student.tokenize(taught.texts))
    start, started = (deepcopy(student.state_dict()), taught.unexplained(student)) if start_competes else (None, 0.0)
    student.requires_grad_(False)
    trained = [*student.distilled(), *taught.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=training.learning_rate)
    per_epoch = -(-len(taught.texts) // training.batch_size)
    student.train()
    for number in epochs_left(both, optimizer, training.epochs, rng, options, what, training.model_dump_json()):
        epoch = taught.epoch(student, (ids, mask), training.batch_size, rng)
        for step, value in enumerate(epoch, start=(number - 1) * per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * (1 - step / (training.epochs * per_epoch))
            optimizer.zero_grad()
            engine.backward(value)
            engine.clip_grad_norm_(trained, 1.0)
            optimizer.step()
    student.eval()
    error = taught.unexplained(student)
    if start is not None and started <= error:
        options.log(f"{what}: training left {error:.4f} unexplained, the weights from before stay")
        student.load_state_dict(start)
        error = started
    options.log(f"{what}: unexplained variance of the teacher's item vectors {error:.4f} on texts held out")
    return error
