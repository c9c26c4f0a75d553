"""Stage `distil`."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from benchmarks.accuracy import ndcg
from compress.data.dataset import Dataset
from compress.distil.contextual import ContextualStudent, distil_contextual
from compress.distil.lists import ListwiseKL
from compress.distil.losses import SequenceLosses, wanted_of_teachers
from compress.distil.sequence import (
    SequenceStudent,
    StudentInTraining,
    new_student,
    train_student,
)
from compress.distil.static import StaticStudent, distil_static
from compress.distil.step import Teaching
from compress.distil.text import TextDistillation, TextStudent, train_text
from compress.distil.texts import TextReader, item_texts, words_of
from compress.models.encoder import ItemEncoder
from compress.models.folder import load_text, write_model
from compress.models.text import TextEncoder
from compress.stage import Inputs, RunOptions, Shorthand, Skip, StageConfig
from compress.store import file_sha256, link_tree
from compress.task import task_of
from compress.training import Training, seed_everything, validation_ranks
from deploy.errors import UsageError

Student = Annotated[
    SequenceStudent | TextStudent | StaticStudent | ContextualStudent | Skip, Field(discriminator="name"), Shorthand
]


class DistilConfig(StageConfig):
    """Which student, what it minimises beside the observed items, and how it is trained."""

    skipped: ClassVar = {"student": "none"}
    student: Student = SequenceStudent()
    loss: SequenceLosses = (ListwiseKL(),)
    training: Training = Training()
    domain: str = "target"

    @property
    def wants(self) -> Mapping[str, str]:
        return wanted_of_teachers(self.loss) if isinstance(self.student, SequenceStudent) else {}


def distil(config: DistilConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, mix -> a student's model folder; with student `none` the teacher's own."""
    teacher = inputs["mix"]
    rng = seed_everything(config.seed, options)
    if isinstance(config.student, Skip):
        link_tree(teacher, out)
    elif isinstance(config.student, TextReader):
        encoder, error = distil_text(config.student, teacher_text(teacher), inputs["data"], rng, options)
        write_text(out, encoder, error, teacher, config.student)
    elif task_of(inputs["data"]) == "likes":
        if config.student.nested or config.student.table_dim or not config.student.id_vectors:
            raise UsageError("distil.student: not for like/dislike rows: nested, table_dim, id_vectors: false")
        # imported here: the like/dislike head is trained with the students of this package
        from compress.likes.stages import train_likes_student

        train_likes_student(
            config.student,
            config.loss,
            config.training,
            config.domain,
            config.seed,
            inputs["data"],
            teacher,
            out,
            options,
        )
    elif config.student.rated:
        raise UsageError("distil.student.rated: only like/dislike rows have likes and dislikes to count (got true)")
    else:
        dataset, teaching = Dataset.open(inputs["data"], config.domain), Teaching(teacher)
        student = new_student(config.student, dataset, teaching, config.seed)
        train_student(student, dataset, teaching, config.loss, config.training, rng, options, "distil")
        write_student(out, student, dataset, teacher)


def distil_text(
    student: TextReader, teacher: TextEncoder, data: Path, rng: np.random.Generator, options: RunOptions
) -> tuple[ItemEncoder, float]:
    """A text encoder of the kind that `student` names, and its unexplained variance on the texts held out."""
    texts = item_texts(data, student, words_of(teacher.tokenizer))
    if isinstance(student, TextStudent):
        encoder = cut_layers(deepcopy(teacher), student.layers)
        taught = TextDistillation(student.loss, encoder, teacher, texts)
        return encoder, train_text(encoder, taught, student.training, rng, options, "distil text")
    if isinstance(student, ContextualStudent):
        return distil_contextual(student, teacher, texts, rng, options)
    assert isinstance(student, StaticStudent)
    return distil_static(student, teacher, texts, options)


def write_student(out: Path, student: StudentInTraining, dataset: Dataset, teacher: Path) -> None:
    """A sequence student's model folder, with its validation ranks and the map from text vectors to its item space."""
    model = student.folded()
    ranks = validation_ranks(model, dataset)
    arrays: dict[str, NDArray[Any]] = {"valid_ranks": ranks}
    if student.text_map is not None:
        arrays["text_map"] = student.text_map
    metrics = {"valid_ndcg@10": float(ndcg(ranks, 10).mean())}
    space = text_space(teacher) if student.text_map is not None else None
    facts: dict[str, Any] = {} if student.table.free.requires_grad else {"id_vectors": False}
    write_model(out, sequence=model, arrays=arrays, metrics=metrics, text_space=space, **facts)


def write_text(out: Path, encoder: ItemEncoder, error: float, teacher: Path, reader: TextReader) -> None:
    """A text encoder's model folder; what it read is among its facts, for the stages that train it further."""
    metrics = {"unexplained_variance": error}
    read = TextReader(texts=reader.texts, held_out=reader.held_out, made=reader.made).model_dump()
    write_model(out, text=encoder, metrics=metrics, text_space=text_space(teacher), read=read)


def text_space(teacher: Path) -> str | None:
    """Names the space of the teacher's item vectors: text encoders and students meet only where it is the same."""
    vectors = teacher / "item_vectors.npy"
    return file_sha256(vectors) if vectors.exists() else None


def teacher_text(teacher: Path) -> TextEncoder:
    encoder = load_text(teacher)
    if encoder is None:
        raise UsageError("distil.student: a text student needs a teacher with a text part; give the variant a backbone")
    return encoder


def cut_layers(encoder: TextEncoder, layers: int) -> TextEncoder:
    """Keep the first `layers` layers: the start of a text student."""
    encoder.keep_layers(range(min(layers, len(encoder.layers))))
    return encoder
