"""Pruning the text encoder, and its recovery afterwards: towards the item vectors of the teacher."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from compress.distil.distil import teacher_text, write_text
from compress.distil.text import TextDistillation, TextTraining, train_text
from compress.distil.text_losses import TextLosses, VectorMSE
from compress.distil.texts import TextReader, item_texts, words_of
from compress.models.folder import model_facts, read_json
from compress.models.static import StaticEncoder
from compress.models.text import TextEncoder
from compress.prune.embedding import factorize_embedding
from compress.prune.hidden import hidden_width, prune_hidden
from compress.prune.schedule import gradually
from compress.prune.structured import CALIBRATION_BATCHES, Kept, Structured, cut
from compress.prune.vocabulary import prune_vocabulary
from compress.stage import Inputs, RunOptions

CALIBRATION_TEXTS = 2048


class StructuredText(Structured):
    """The text encoder's. `vocabulary` drops the word rows that no item text of the data uses; `keep_hidden` is the
    share of the hidden states' directions that stays (`hidden.py`); `embedding_rank` puts the word rows in two factors
    (`embedding.py`). In this order, heads, neurons and layers after the first; a decoder's heads go in groups that
    share keys and values."""

    later: ClassVar = (*Structured.later, "loss", "keep_hidden", "embedding_rank")
    keep_heads: Kept = 0.5
    keep_hidden: Kept = 1.0
    embedding_rank: PositiveInt | None = None
    vocabulary: bool = True
    loss: TextLosses = (VectorMSE(),)
    recovery: TextTraining = TextTraining(epochs=6)


def prune_text(
    encoder: TextEncoder,
    structured: StructuredText,
    inputs: Inputs,
    rng: np.random.Generator,
    out: Path,
    options: RunOptions,
) -> None:
    """data, mix, and the encoder of distil -> the pruned encoder's folder."""
    reader = _reader(inputs)
    texts = item_texts(inputs["data"], reader, words_of(encoder.tokenizer))
    if structured.vocabulary:
        report = prune_vocabulary(encoder, texts.items)
        options.log(f"prune: vocabulary {report.before} -> {report.after} rows")
    taught = TextDistillation(structured.loss, encoder, teacher_text(inputs["mix"]), texts)
    tokens = encoder.tokenize(texts.learned)

    def losses() -> Iterator[Tensor]:
        here = next(encoder.parameters()).device
        every = taught.epoch(encoder, (tokens[0].to(here), tokens[1].to(here)), 64, np.random.default_rng(0))
        return itertools.islice(every, CALIBRATION_BATCHES)

    steps = list(gradually(structured, encoder))
    for number, (step, what) in enumerate(steps, start=1):
        cut(encoder, step, losses)
        near = number == len(steps) and _narrow(encoder, structured, tokens, options)
        if near:
            taught.renew_heads(encoder)
        error = train_text(encoder, taught, step.recovery, rng, options, f"recover text{what}", start_competes=near)
    write_text(out, encoder, error, inputs["mix"], reader)


def _reader(inputs: Inputs) -> TextReader:
    """What the student that is pruned has read; a teacher's LM has read all."""
    return TextReader.model_validate(model_facts(inputs["distil"]).get("read", {"texts": "all"}))


def _narrow(
    encoder: TextEncoder, structured: StructuredText, tokens: tuple[Tensor, Tensor], options: RunOptions
) -> bool:
    """Cut the hidden width and the words' rank, where asked to; returns whether it was: such an encoder starts so near
    to what it was that training may leave it for worse."""
    wide, rank = encoder.hidden_size, structured.embedding_rank
    width = hidden_width(encoder, structured.keep_hidden)
    if width < wide:
        some = torch.linspace(0, len(tokens[0]) - 1, min(len(tokens[0]), CALIBRATION_TEXTS)).long()
        lost = prune_hidden(encoder, width, (tokens[0][some], tokens[1][some]))
        options.log(f"prune: hidden width {wide} -> {width}, {lost:.2%} of the states' variance is lost")
    if rank is not None:
        lost = factorize_embedding(encoder, rank, tokens)
        options.log(f"prune: word embeddings of rank {rank}, {lost:.2%} of their squares is lost")
    return width < wide or rank is not None


def prune_static(
    encoder: StaticEncoder, structured: StructuredText, inputs: Inputs, out: Path, options: RunOptions
) -> None:
    """A token table has rows to lose and nothing else. The item texts keep their vectors, so nothing is to recover."""
    reader = _reader(inputs)
    if structured.vocabulary:
        report = prune_vocabulary(encoder, item_texts(inputs["data"], reader, words_of(encoder.tokenizer)).items)
        options.log(f"prune: vocabulary {report.before} -> {report.after} rows")
    error = read_json(inputs["distil"] / "metrics.json")["unexplained_variance"]
    write_text(out, encoder, error, inputs["mix"], reader)
