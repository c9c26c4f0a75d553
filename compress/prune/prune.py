"""Stage `prune`: remove layers, heads, neurons and vocabulary rows, then recover by a short re-distillation."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from compress.data.dataset import Dataset
from compress.distil.distil import catalogue_texts, teacher_text, write_student, write_text
from compress.distil.lists import ListwiseKL
from compress.distil.losses import SequenceLosses, wanted_of_teachers
from compress.distil.sequence import distillation, resumed_student, student_loss, train_student
from compress.distil.step import Teaching
from compress.distil.text import TextDistillation, TextTraining, train_text
from compress.distil.text_losses import TextLosses, VectorMSE
from compress.models.folder import load_array, load_item_encoder, load_mix, load_sequence, read_json
from compress.models.sequence import SequenceEncoder, SequenceModel
from compress.models.static import StaticEncoder
from compress.models.text import TextEncoder
from compress.prune.criteria import Criterion, FirstOrder, Losses, keep_best
from compress.prune.layers import check_encoder, prune_layers, prune_widths
from compress.prune.vocabulary import prune_vocabulary
from compress.stage import Entry, Inputs, RunOptions, Shorthand, Skip, StageConfig, without_default
from compress.store import link_tree
from compress.task import task_of
from compress.training import Training, seed_everything, windows
from deploy.errors import UsageError

Kept = Annotated[float, Field(gt=0.0, le=1.0)]
CALIBRATION_BATCHES = 8


class Structured(Entry):
    """Which share of each kind of part stays; shapes really shrink. Criterion scores decide which, per layer."""

    name: Literal["structured"] = "structured"
    criterion: Criterion = FirstOrder()
    keep_layers: PositiveInt | None = None
    keep_heads: Kept = 1.0
    keep_neurons: Kept = 0.5


class StructuredSequence(Structured):
    """The sequence encoder's, and its re-distillation afterwards."""

    recovery: Training = Training(epochs=6, learning_rate=5e-4)


class StructuredText(Structured):
    """The text encoder's; `vocabulary` drops the word rows that no item text of the data uses."""

    keep_heads: Kept = 0.5
    vocabulary: bool = True
    loss: TextLosses = (VectorMSE(),)
    recovery: TextTraining = TextTraining(epochs=6)

    @model_serializer(mode="wrap")
    def _only_what_differs(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return without_default(write(self), self, "loss")


class PruneConfig(StageConfig):
    """What is removed from each part a model has."""

    skipped: ClassVar = {"sequence": "none", "text": "none"}
    sequence: Annotated[StructuredSequence | Skip, Field(discriminator="name"), Shorthand] = StructuredSequence()
    text: Annotated[StructuredText | Skip, Field(discriminator="name"), Shorthand] = StructuredText()
    loss: SequenceLosses = (ListwiseKL(),)
    domain: str = "target"

    @property
    def wants(self) -> Mapping[str, str]:
        return {} if isinstance(self.sequence, Skip) else wanted_of_teachers(self.loss)


def prune(config: PruneConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, mix, distil -> the pruned model's folder, shapes shrunk and recovered."""
    sequence, text = load_sequence(inputs["distil"]), load_item_encoder(inputs["distil"])
    if load_mix(inputs["distil"]) is not None and not (
        isinstance(config.sequence, Skip) and isinstance(config.text, Skip)
    ):
        raise UsageError("prune: a teacher that is a mix is served whole; give its variant prune: none")
    if sequence is not None and not isinstance(config.sequence, Skip) and task_of(inputs["data"]) == "likes":
        raise UsageError("prune: like/dislike models are not pruned yet; give their variants prune: none")
    rng = seed_everything(config.seed, options)
    if sequence is not None and isinstance(config.sequence, StructuredSequence):
        _prune_sequence(sequence, config.sequence, config, inputs, rng, out, options)
    elif isinstance(text, StaticEncoder) and isinstance(config.text, StructuredText):
        _prune_static(text, config.text, inputs, out, options)
    elif isinstance(text, TextEncoder) and isinstance(config.text, StructuredText):
        _prune_text(text, config.text, inputs, rng, out, options)
    else:
        link_tree(inputs["distil"], out)


def _prune_sequence(
    model: SequenceModel,
    structured: StructuredSequence,
    config: PruneConfig,
    inputs: Inputs,
    rng: np.random.Generator,
    out: Path,
    options: RunOptions,
) -> None:
    dataset, teaching = Dataset.open(inputs["data"], config.domain), Teaching(inputs["mix"])
    text_map = load_array(inputs["distil"], "text_map")
    student = resumed_student(model, text_map, dataset, teaching)
    taught = distillation(student, teaching, config.loss)
    cut = windows(dataset.train_sequences(), model.shape.max_history)
    calibration = np.array_split(rng.permutation(len(cut.inputs)), -(-len(cut.inputs) // 64))[:CALIBRATION_BATCHES]

    def losses() -> Iterator[Tensor]:
        return (student_loss(student, cut.batch(index), taught, structured.recovery) for index in calibration)

    _cut(student.encoder, structured, losses)
    student.shape = student.encoder.shape
    train_student(
        student, dataset, teaching, config.loss, structured.recovery, rng, options, "recover", start_competes=True
    )
    write_student(out, student, dataset, inputs["mix"])


def _prune_text(
    encoder: TextEncoder,
    structured: StructuredText,
    inputs: Inputs,
    rng: np.random.Generator,
    out: Path,
    options: RunOptions,
) -> None:
    check_encoder(encoder)
    texts = catalogue_texts(inputs["data"])
    if structured.vocabulary:
        report = prune_vocabulary(encoder, texts)
        options.log(f"prune: vocabulary {report.before} -> {report.after} rows")
    taught = TextDistillation(structured.loss, encoder, teacher_text(inputs["mix"]), texts)
    tokens = encoder.tokenize(texts)

    def losses() -> Iterator[Tensor]:
        every = taught.epoch(encoder, tokens, 64, np.random.default_rng(0))
        return itertools.islice(every, CALIBRATION_BATCHES)

    _cut(encoder, structured, losses)
    error = train_text(encoder, taught, structured.recovery, rng, options, "recover text")
    write_text(out, encoder, error, inputs["mix"])


def _prune_static(
    encoder: StaticEncoder, structured: StructuredText, inputs: Inputs, out: Path, options: RunOptions
) -> None:
    """A token table has rows to lose and nothing else. The item texts keep their vectors, so nothing is to recover."""
    if structured.vocabulary:
        report = prune_vocabulary(encoder, catalogue_texts(inputs["data"]))
        options.log(f"prune: vocabulary {report.before} -> {report.after} rows")
    error = read_json(inputs["distil"] / "metrics.json")["unexplained_variance"]
    write_text(out, encoder, error, inputs["mix"])


def _cut(model: SequenceEncoder | TextEncoder, structured: Structured, losses: Losses) -> None:
    scores = structured.criterion(model, losses)
    keep = keep_best(scores, structured.keep_heads, structured.keep_neurons, structured.keep_layers)
    prune_widths(model, keep.widths)
    prune_layers(model, keep.layers)
