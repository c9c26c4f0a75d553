"""The contextual student: a token table in which the tokens of a text see one another.

It stands between the static student and the language model. It starts as a static one does, each row the teacher's
vector of the token alone through one affine map; then rows and blocks learn together, from the item texts and from
texts made of them.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveInt

from compress.distil.ridge import chosen_map, mapped_rows
from compress.distil.static import Weighting, Zipf, fill, started
from compress.distil.text import TextDistillation, TextTraining, train_text
from compress.distil.text_losses import VectorMSE
from compress.distil.texts import ItemTexts, TextReader
from compress.models.sequence import BlockShape
from compress.models.static import StaticEncoder, StaticShape
from compress.models.text import TextEncoder
from compress.stage import RunOptions
from compress.training import Share
from deploy.errors import UsageError


class ContextualStudent(TextReader):
    """`blocks` of attention and feed-forward, as wide as the teacher's item vectors, over a token table.

    With as few texts as a catalogue has, blocks learn them by heart: hence the texts made of them.
    """

    name: Literal["contextual"] = "contextual"
    blocks: PositiveInt = 1
    heads: PositiveInt = 4
    neurons: PositiveInt = 256
    dropout: Share = 0.1
    weighting: Weighting = Zipf()
    training: TextTraining = TextTraining(epochs=6, learning_rate=1e-3)
    made: NonNegativeFloat = 3.0

    def shape(self, vocabulary: int, teacher: TextEncoder) -> StaticShape:
        return StaticShape(
            vocabulary=vocabulary,
            dim=teacher.dim,
            max_tokens=teacher.max_tokens,
            blocks=(BlockShape(heads=self.heads, neurons=self.neurons),) * self.blocks,
            head_dim=teacher.dim // self.heads,
            dropout=self.dropout,
        )


def distil_contextual(
    student: ContextualStudent, teacher: TextEncoder, texts: ItemTexts, rng: np.random.Generator, options: RunOptions
) -> tuple[StaticEncoder, float]:
    """As `distil_static`. Raises ValueError for fewer than two texts, UsageError where `heads` do not divide the
    teacher's dimensions."""
    if teacher.dim % student.heads:
        raise UsageError(
            f"distil.student.heads: must divide the teacher's {teacher.dim} dimensions (got {student.heads})"
        )
    start = started(lambda tokens: student.shape(tokens, teacher), student.weighting, teacher, texts, options)
    shares, wanted = start.read()
    strength = chosen_map(start.rows, start.shares, start.wanted, start.held_out)
    fill(start.encoder, mapped_rows(start.rows, shares, wanted, strength), shares)
    with torch.no_grad():
        start.encoder.scale.copy_(start.encoder.table.std())
    vectors = start.wanted.float().numpy()
    taught = TextDistillation((VectorMSE(),), start.encoder, teacher, texts, vectors)
    return start.encoder, train_text(start.encoder, taught, student.training, rng, options, "distil contextual")
