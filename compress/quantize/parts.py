"""What a quantizer is given: a model's part with examples of what it will read, from the training part of the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.data.dataset import Dataset
from compress.likes.model import LikesModel
from compress.likes.ratings import ratings_before
from compress.likes.rows import LikeData, Rows
from compress.likes.training_rows import training_rows
from compress.models.encoder import ItemEncoder
from compress.models.mix import Mix
from compress.models.sequence import SequenceModel
from compress.models.text import TextEncoder
from compress.models.tokens import batches
from compress.quantize.graph import history_graph
from compress.quantize.like_graph import like_graph
from compress.quantize.surgery import Feed
from compress.quantize.tables import Table
from deploy.errors import UsageError

EXAMPLES, BATCH = 256, 32


@dataclass(frozen=True)
class HistoryPart:
    """A ranker, and histories int64 (cases, max_history) of training events, oldest first, left-padded with 0."""

    model: SequenceModel | Mix
    histories: NDArray[np.int64]

    @classmethod
    def of(cls, model: SequenceModel | Mix, dataset: Dataset) -> "HistoryPart":
        known = [events for events in dataset.train_sequences() if len(events)]
        histories = np.zeros((min(EXAMPLES, len(known)), model.max_history), np.int64)
        for row, user in zip(histories, spread(len(known), EXAMPLES), strict=True):
            newest = known[user][-model.max_history :]
            row[len(row) - len(newest) :] = newest
        return cls(model, histories)

    @property
    def answer(self) -> str:
        """The tensor that quantized graphs are compared by."""
        return "all_scores"

    def graph(self, table: Table = "fp32", products: bool = False) -> onnx.ModelProto:
        """See `history_graph`."""
        return history_graph(self.model, table, products=products)

    @property
    def feeds(self) -> list[Feed]:
        """The histories in batches of one length, as the history graph takes them."""
        parts = [self.histories[index] for index in batches(len(self.histories), BATCH)]
        return [{"history": p, "exclude": np.zeros((len(p), 1), np.int64), "k": np.ones(1, np.int64)} for p in parts]


@dataclass(frozen=True)
class LikePart:
    """A like/dislike model, and training rows as its graph asks them, in batches."""

    model: LikesModel
    feeds: Sequence[Feed]
    answer = "logits"

    @classmethod
    def of(cls, model: LikesModel, data: LikeData, seed: int) -> "LikePart":
        rows = training_rows(data)
        index = np.array(spread(len(rows), EXAMPLES), np.int64)
        known = ratings_before(data, rows, seed)["train"][index]
        asked = like_questions(rows.take(index), known, model.sequence.max_history)
        return cls(model, [{k: v[part] for k, v in asked.items()} for part in batches(len(index), BATCH)])

    def graph(self, table: Table = "fp32", products: bool = False) -> onnx.ModelProto:
        """See `like_graph`."""
        return like_graph(self.model, table, products)


def like_questions(rows: Rows, ratings: NDArray[np.int64], max_history: int) -> dict[str, NDArray[Any]]:
    """Rows as a like graph takes them: history, liked, items, ratings."""
    history, likes = rows.newest(max_history)
    return {"history": history, "liked": likes > 0, "items": rows.items.astype(np.int64), "ratings": ratings}


ScorePart = HistoryPart | LikePart
"""What a history quantizer is given: both graphs are an item table and an encoder."""


@dataclass(frozen=True)
class TextPart:
    """A text encoder, its exported fp32 graph, and texts of items with training events."""

    encoder: ItemEncoder
    fp32: Path
    texts: Sequence[str]

    @classmethod
    def of(cls, encoder: ItemEncoder, fp32: Path, dataset: Dataset) -> "TextPart":
        warm = np.flatnonzero(dataset.popularity[1:])
        return cls(encoder, fp32, [dataset.texts[warm[index]] for index in spread(len(warm), EXAMPLES)])

    def language_model(self, asker: str) -> TextEncoder:
        """The encoder, for what changes the LM inside. Raises UsageError where it is a token table."""
        if not isinstance(self.encoder, TextEncoder):
            raise UsageError(f"quantize.text: {asker} needs a language model (got a static text encoder)")
        return self.encoder

    @property
    def graph(self) -> onnx.ModelProto:
        """The fp32 graph, read anew: whoever asks may change it."""
        return onnx.load(self.fp32)

    @cached_property
    def feeds(self) -> list[Feed]:
        """The texts in batches padded to one length, as the text graph takes them."""
        ids, mask = (tensor.numpy() for tensor in self.encoder.tokenize(self.texts))
        return [{"input_ids": ids[index], "attention_mask": mask[index]} for index in batches(len(self.texts), BATCH)]


def spread(n: int, most: int) -> list[int]:
    """At most `most` of n indices, ascending and evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist() if n else []
