"""The entry `given_lists`: ranked lists with scores, from any model, a hosted one included."""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator

from compress.data.dataset import Dataset
from compress.stage import Entry, RunOptions
from compress.teacher.cache import CachedScores
from compress.teacher.given.answers import GivenAnswers, OnUnknown, report_unknown
from compress.teacher.given.list_files import RankedList, read_lists
from compress.teacher.given.vector_files import digests
from compress.teacher.given.vectors import File, in_unit_scale, read_item_vectors
from deploy.errors import UsageError


class GivenLists(Entry):
    """Cached top-K lists. A row with a `position` holds after that many of the user's events (in time order, as the
    data stage keeps them); a row without one holds wherever the user has no other. Positions without a list
    have no teacher: students learn the observed item there. Item vectors may come along, for students that read them.
    """

    name: Literal["given_lists"] = "given_lists"
    lists: File
    list_separator: str = Field(default=" ", min_length=1, max_length=8)
    score: Literal["logit", "probability"] = "logit"  # a probability's logarithm is its logit
    score_scale: PositiveFloat = 1.0  # cosines and the like are too close together for a softmax
    vectors: File | None = None
    ids: File | None = None
    on_unknown: OnUnknown = "drop"

    @model_validator(mode="after")
    def _ids_beside_npy(self) -> Self:
        if self.vectors is not None and self.vectors.endswith(".npy") and self.ids is None:
            raise ValueError(f"an .npy file needs ids, a text file with the id of each row (got {self.vectors})")
        return self

    @property
    def teaches(self) -> bool:
        return True

    def digests(self) -> dict[str, str]:
        vectors = digests("target.method.vectors", self.vectors, self.ids)
        return digests("target.method.lists", self.lists) | vectors

    def __call__(self, dataset: Dataset, wanted: CachedScores, seed: int, out: Path, options: RunOptions) -> None:  # noqa: ARG002
        vectors = None
        if self.vectors is not None:
            items, _ = read_item_vectors(self.vectors, self.ids, self.on_unknown, dataset, options)
            vectors = in_unit_scale(items)
        answers = GivenAnswers(dataset, wanted.only_lists("a teacher given as lists"))
        row_of = {item: row for row, item in enumerate(dataset.item_ids, 1)}
        user_of = {user: number for number, user in enumerate(dataset.users)}
        case_of = {
            name: {int(stop): case for case, stop in enumerate(cases.stops)}
            for name, (cases, _, _) in answers.held_out.items()
        }
        whole: list[tuple[int, RankedList]] = []
        own = np.zeros(len(dataset.items) + 1, bool)  # events with a list of their own
        unknown, nowhere = _Counted(), _Counted()
        for ranked in read_lists(Path(self.lists), self.list_separator):
            user = user_of.get(ranked.user)
            if user is None:
                unknown.add(ranked.user)
            elif ranked.position is None:
                whole.append((user, ranked))
            elif ranked.position >= dataset.offsets[user + 1] - dataset.offsets[user]:
                nowhere.add(f"{ranked.user}, position {ranked.position}")
            else:
                event = int(dataset.offsets[user]) + ranked.position
                own[event] = True
                self._file(answers, event, self._rows(ranked, row_of, unknown), case_of)
        for user, ranked in whole:
            rows = self._rows(ranked, row_of, unknown)
            for event in range(int(dataset.offsets[user]), int(dataset.offsets[user + 1])):
                if not own[event]:
                    self._file(answers, event, rows, case_of)
        where = "target.method.lists"
        report_unknown(where, unknown.count, unknown.first, self.on_unknown, options)
        if nowhere.count:
            options.log(f"{where}: {nowhere.count} lists for positions beyond the data (first {nowhere.first!r})")
        answers.write(out, options, vectors)

    def _rows(
        self, ranked: RankedList, row_of: dict[str, int], unknown: "_Counted"
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        rows = np.array([row_of.get(item, 0) for item in ranked.items], np.int64)
        for place in np.flatnonzero(rows == 0):
            unknown.add(ranked.items[int(place)])
        scores = np.array(ranked.scores, np.float64)
        if self.score == "probability":
            if scores[-1] < 0 or scores[0] > 1:
                raise UsageError(
                    f"{self.lists}, {ranked.where}, column scores: probabilities lie in 0..1 "
                    f"(got {scores[-1]:g}..{scores[0]:g})"
                )
            scores = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
        return rows[rows > 0], scores[rows > 0] * self.score_scale

    def _file(
        self,
        answers: GivenAnswers,
        event: int,
        given: tuple[NDArray[np.int64], NDArray[np.float64]],
        case_of: dict[Literal["valid", "test", "cold"], dict[int, int]],
    ) -> None:
        rows, scores = given
        if answers.numbers[event] >= 0:
            answers.teach(int(answers.numbers[event]), rows, scores)
        for name, cases in case_of.items():
            if event in cases:
                answers.answer(name, cases[event], rows)


class _Counted:
    """How many, and the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first: str | None = None

    def add(self, name: str) -> None:
        self.count += 1
        self.first = self.first or name
