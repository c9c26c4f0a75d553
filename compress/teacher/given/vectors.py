"""The entry `given_vectors`: item vectors from files, with user vectors or with an encoder trained over them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from benchmarks.accuracy import ndcg, top_rows
from compress.accuracy import DEPTH
from compress.data.dataset import Dataset
from compress.distil.sequence import FoldedTable, StudentInTraining, train_student
from compress.distil.step import Teaching
from compress.models.folder import write_model
from compress.models.sequence import EncoderSizes
from compress.stage import Entry, RunOptions, Shorthand, Skip
from compress.teacher.cache import CachedScores, cached_scores
from compress.teacher.given.answers import GivenAnswers, OnUnknown, report_missing, report_unknown
from compress.teacher.given.vector_files import digests, read_vectors
from compress.training import Training, seed_everything, validation_ranks, warm_items
from deploy.errors import UsageError

File = Annotated[str, Field(min_length=1, max_length=4096)]


class GivenEncoder(EncoderSizes):
    """A sequence encoder over the given item vectors: a linear map of each and, for warm items, a free vector."""

    name: Literal["sequence"] = "sequence"
    dim: PositiveInt = 128
    heads: PositiveInt = 4
    neurons: PositiveInt = 256
    id_vectors: bool = True
    training: Training = Training(epochs=20)


class GivenVectors(Entry):
    """Item vectors of any model. With user vectors too, the teacher's score is their dot product; else an encoder is
    trained over the item vectors (the two-level teacher without its LM), or `encoder: none` leaves the vectors alone.

    A user's vector is for the user as such: it must not know the user's validation and test events.
    """

    name: Literal["given_vectors"] = "given_vectors"
    vectors: File
    ids: File | None = None
    user_vectors: File | None = None
    user_ids: File | None = None
    encoder: Annotated[GivenEncoder | Skip, Field(discriminator="name"), Shorthand] = GivenEncoder()
    on_unknown: OnUnknown = "drop"

    @model_validator(mode="after")
    def _ids_beside_npy(self) -> Self:
        for vectors, ids, name in ((self.vectors, self.ids, "ids"), (self.user_vectors, self.user_ids, "user_ids")):
            if vectors is not None and vectors.endswith(".npy") and ids is None:
                raise ValueError(f"an .npy file needs {name}, a text file with the id of each row (got {vectors})")
        return self

    @property
    def teaches(self) -> bool:
        return self.user_vectors is not None or isinstance(self.encoder, GivenEncoder)

    def digests(self) -> dict[str, str]:
        users = digests("target.method.user_vectors", self.user_vectors, self.user_ids)
        return digests("target.method.vectors", self.vectors, self.ids) | users

    def __call__(self, dataset: Dataset, wanted: CachedScores, seed: int, out: Path, options: RunOptions) -> None:
        items, found = read_item_vectors(self.vectors, self.ids, self.on_unknown, dataset, options)
        if self.user_vectors is not None:
            top = wanted.only_lists("a teacher given with one vector per user")
            answers = self._from_user_vectors(items, found, dataset, top, options)
            answers.write(out, options, in_unit_scale(items))
        elif isinstance(self.encoder, GivenEncoder):
            _train_encoder(self.encoder, in_unit_scale(items), dataset, wanted, seed, out, options)
        else:
            write_model(out, arrays={"item_vectors": in_unit_scale(items)})

    def _from_user_vectors(
        self, items: NDArray[np.float32], found: NDArray[np.bool_], dataset: Dataset, top: int, options: RunOptions
    ) -> GivenAnswers:
        where = "target.method.user_vectors"
        assert self.user_vectors is not None
        ids = None if self.user_ids is None else Path(self.user_ids)
        users = read_vectors(Path(self.user_vectors), ids, "user_id", dataset.users)
        if users.values.shape[1] != items.shape[1]:
            raise UsageError(
                f"{where}: a score is a dot product, so users have as many numbers as items, {items.shape[1]} "
                f"(got {users.values.shape[1]})"
            )
        report_missing(where, dataset.users, users.found, options)
        report_unknown(where, users.unknown, users.first_unknown, self.on_unknown, options)
        answers = GivenAnswers(dataset, top)
        barred = np.flatnonzero(~found)
        untaught = np.union1d(barred, np.flatnonzero(~answers.warm))
        for user in np.flatnonzero(users.found):
            scores = users.values[user] @ items.T
            best = top_rows(scores[None], [untaught], top)[0].astype(np.int64)
            best = best[best > 0]
            for number in answers.numbers[dataset.offsets[user] : dataset.offsets[user + 1]]:
                if number >= 0:
                    answers.teach(int(number), best, scores[best].astype(np.float64))
        for name, (cases, _, _) in answers.held_out.items():
            for case in np.flatnonzero(users.found[cases.users]):
                scores = users.values[cases.users[case]] @ items.T
                exclude = np.concatenate([barred, cases.items[cases.starts[case] : cases.stops[case]]])
                best = top_rows(scores[None], [exclude], DEPTH)[0].astype(np.int64)
                answers.answer(name, int(case), best[best > 0])
        return answers


def read_item_vectors(
    vectors: str, ids: str | None, on_unknown: OnUnknown, dataset: Dataset, options: RunOptions
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(n_items + 1, dim) in catalogue order, row 0 and items without a vector zero, and which rows have one."""
    where = "target.method.vectors"
    read = read_vectors(Path(vectors), None if ids is None else Path(ids), "item_id", dataset.item_ids)
    report_missing(where, dataset.item_ids, read.found, options)
    report_unknown(where, read.unknown, read.first_unknown, on_unknown, options)
    return np.pad(read.values, ((1, 0), (0, 0))), np.pad(read.found, (1, 0))


def in_unit_scale(items: NDArray[np.float32]) -> NDArray[np.float32]:
    """All vectors divided by one number, their root mean square length: students start from any model's scale alike."""
    lengths = np.square(items, dtype=np.float64).sum(1)
    scale = float(np.sqrt(lengths[lengths > 0].mean())) if lengths.any() else 1.0
    return np.asarray(items / scale, np.float32)


def _train_encoder(
    config: GivenEncoder,
    items: NDArray[np.float32],
    dataset: Dataset,
    wanted: CachedScores,
    seed: int,
    out: Path,
    options: RunOptions,
) -> None:
    rng = seed_everything(seed, options)
    generator = torch.Generator().manual_seed(seed)
    table = FoldedTable(dataset.n_items, config.dim, warm_items(dataset), torch.from_numpy(items), generator)
    if not config.id_vectors:
        table.free.requires_grad_(False).zero_()
    model = StudentInTraining(config.shape(dataset.n_items), table)
    fitted = train_student(model, dataset, Teaching(out), (), config.training, rng, options, "target")
    folded = model.folded()
    ranks = validation_ranks(folded, dataset)
    arrays: dict[str, NDArray[Any]] = {"item_vectors": items, "valid_ranks": ranks}
    arrays |= cached_scores(folded, dataset, wanted, options)
    metrics = {"valid_ndcg@10": float(ndcg(ranks, 10).mean()), "best_epoch": fitted.best_epoch}
    write_model(out, sequence=folded, arrays=arrays, metrics=metrics)
