"""Pruning the text encoder, and its recovery afterwards: towards the item vectors of the teacher."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from compress.distil.distil import catalogue_texts, teacher_text, write_text
from compress.distil.text import TextDistillation, TextTraining, train_text
from compress.distil.text_losses import TextLosses, VectorMSE
from compress.models.folder import read_json
from compress.models.static import StaticEncoder
from compress.models.text import TextEncoder
from compress.prune.layers import check_encoder
from compress.prune.schedule import gradually
from compress.prune.structured import CALIBRATION_BATCHES, Kept, Structured, cut
from compress.prune.vocabulary import prune_vocabulary
from compress.stage import Inputs, RunOptions, without_default


class StructuredText(Structured):
    """The text encoder's; `vocabulary` drops the word rows that no item text of the data uses."""

    keep_heads: Kept = 0.5
    vocabulary: bool = True
    loss: TextLosses = (VectorMSE(),)
    recovery: TextTraining = TextTraining(epochs=6)

    @model_serializer(mode="wrap")
    def _only_what_differs(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_default(write(self), self, "loss", "steps")


def prune_text(
    encoder: TextEncoder,
    structured: StructuredText,
    inputs: Inputs,
    rng: np.random.Generator,
    out: Path,
    options: RunOptions,
) -> None:
    """data, mix, and the encoder of distil -> the pruned encoder's folder."""
    check_encoder(encoder)
    texts = catalogue_texts(inputs["data"])
    if structured.vocabulary:
        report = prune_vocabulary(encoder, texts)
        options.log(f"prune: vocabulary {report.before} -> {report.after} rows")
    taught = TextDistillation(structured.loss, encoder, teacher_text(inputs["mix"]), texts)
    tokens = encoder.tokenize(texts)

    def losses() -> Iterator[Tensor]:
        here = next(encoder.parameters()).device
        every = taught.epoch(encoder, (tokens[0].to(here), tokens[1].to(here)), 64, np.random.default_rng(0))
        return itertools.islice(every, CALIBRATION_BATCHES)

    for step, what in gradually(structured, encoder):
        cut(encoder, step, losses)
        error = train_text(encoder, taught, step.recovery, rng, options, f"recover text{what}")
    write_text(out, encoder, error, inputs["mix"])


def prune_static(
    encoder: StaticEncoder, structured: StructuredText, inputs: Inputs, out: Path, options: RunOptions
) -> None:
    """A token table has rows to lose and nothing else. The item texts keep their vectors, so nothing is to recover."""
    if structured.vocabulary:
        report = prune_vocabulary(encoder, catalogue_texts(inputs["data"]))
        options.log(f"prune: vocabulary {report.before} -> {report.after} rows")
    error = read_json(inputs["distil"] / "metrics.json")["unexplained_variance"]
    write_text(out, encoder, error, inputs["mix"])
