"""`golden.json`: answers recorded where the bundle was made, asked again where it runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, SerializerFunctionWrapHandler, model_serializer, model_validator

from deploy.errors import GateError
from deploy.manifest import Record, shorten, without_none
from deploy.ranker import Ranker

HEAD = 8


class GoldenAnswer(Record):
    """Item ids best first, and their scores."""

    items: Annotated[list[str], Field(min_length=1, max_length=1000)]
    scores: list[FiniteFloat]

    @model_validator(mode="after")
    def _same_length(self) -> "GoldenAnswer":
        if len(self.items) != len(self.scores):
            raise ValueError(f"items and scores must be equally long (got {len(self.items)}, {len(self.scores)})")
        return self


class GoldenCase(Record):
    """One history (item ids, oldest first) with the answer of each precision."""

    history: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    k: Annotated[int, Field(ge=1, le=1000)]
    answers: dict[str, GoldenAnswer]


class GoldenText(Record):
    """One text with the first eight numbers and the Euclidean norm of its vector."""

    text: str
    vector_head: Annotated[list[FiniteFloat], Field(min_length=1, max_length=HEAD)]
    norm: FiniteFloat


class GoldenLike(Record):
    """One question (a rated history, oldest first, an item, how many items the user was known to like and to dislike)
    with the log-odds of a like that each precision gave."""

    history: Annotated[list[str], Field(max_length=10_000)]
    liked: list[bool]
    item: str
    ratings: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    logits: dict[str, FiniteFloat]

    @model_validator(mode="after")
    def _each_rated(self) -> "GoldenLike":
        if len(self.liked) != len(self.history):
            raise ValueError(f"liked must be as long as history (got {len(self.liked)}, {len(self.history)})")
        return self


class Golden(Record):
    """The whole file. `tolerance` is absolute, in the unit of the scores, logits and of the text vector's numbers."""

    tolerance: Annotated[FiniteFloat, Field(ge=0)]
    cases: Annotated[list[GoldenCase], Field(min_length=1, max_length=1000)]
    text: GoldenText | None = None
    likes: Annotated[list[GoldenLike], Field(min_length=1, max_length=1000)] | None = None

    @model_serializer(mode="wrap")
    def _likes_where_any(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(write(self), "likes")


class LikeAnswers(Protocol):
    """What answers a golden like."""

    def like(self, item: str, history: Sequence[str], liked: Sequence[bool], ratings: tuple[int, int]) -> float:
        """The log-odds of a like."""


def check_likes(golden: Golden, precision: str, model: LikeAnswers) -> None:
    """Ask `model` every like. Raises GateError naming the first that differs, or where none was recorded."""
    if golden.likes is None:
        raise GateError("golden.json: likes: no recorded answer for the like graph")
    for number, case in enumerate(golden.likes):
        where = f"golden.json: likes.{number}: {precision}"
        wanted = case.logits.get(precision)
        if wanted is None:
            raise GateError(f"{where}: no recorded answer for this precision")
        found = model.like(case.item, case.history, case.liked, case.ratings)
        if not abs(found - wanted) <= golden.tolerance:
            raise GateError(
                f"{where}: must be {wanted:.6g} within {golden.tolerance:g} (got {found:.6g}); this machine does not "
                "reproduce the bundle's answers"
            )


class Answers(Protocol):
    """What answers a golden case."""

    def top(self, history: Sequence[str], k: int) -> tuple[list[str], list[float]]:
        """Item ids, best first, and their scores."""


def check_cases(golden: Golden, precision: str, model: Answers) -> None:
    """Ask `model` every case. Raises GateError naming the first case that differs, and how."""
    for number, case in enumerate(golden.cases):
        where = f"golden.json: cases.{number}: {precision}"
        expected = case.answers.get(precision)
        if expected is None:
            raise GateError(f"{where}: no recorded answer for this precision")
        items, scores = model.top(case.history, case.k)
        difference = compare(expected, items, scores, golden.tolerance)
        if difference:
            raise GateError(f"{where}: {difference}; this machine does not reproduce the bundle's answers")


def compare(expected: GoldenAnswer, items: list[str], scores: list[float], tolerance: float) -> str | None:
    """How an answer differs from the recorded one, or None.

    Scores must agree within `tolerance` at every place. Two items may change places where their recorded scores are
    closer than `tolerance`; an item that was not recorded may enter only where it ties with the last place.
    """
    if len(items) != len(expected.items) or len(set(items)) != len(items):
        return f"must be {len(expected.items)} different items (got {len(items)})"
    recorded = dict(zip(expected.items, expected.scores, strict=True))
    last = expected.scores[-1]
    for place, (item, score) in enumerate(zip(items, scores, strict=True)):
        wanted_item, wanted = expected.items[place], expected.scores[place]
        if not abs(score - wanted) <= tolerance:
            return f"place {place + 1} must score {wanted:.6g} within {tolerance:g} (got {score:.6g})"
        if item != wanted_item and not abs(recorded.get(item, last) - wanted) <= tolerance:
            return f"place {place + 1} must be item {shorten(wanted_item)} (got {shorten(item)})"
    return None


def check_text(golden: GoldenText, vector: npt.NDArray[np.float32], tolerance: float) -> None:
    """Compare the text's vector, float32 (dim,), with the recorded one. Raises GateError."""
    head = vector[: len(golden.vector_head)]
    off = (
        float(np.max(np.abs(head - np.array(golden.vector_head)))) if len(head) == len(golden.vector_head) else math.inf
    )
    off = max(off, abs(float(np.linalg.norm(vector)) - golden.norm))
    if not off <= tolerance:
        raise GateError(f"golden.json: text: its vector must agree within {tolerance:g} (got {off:.3g} off)")


def record_text(text: str, vector: npt.NDArray[np.float32]) -> GoldenText:
    """What `check_text` will compare with."""
    head = [float(value) for value in vector[:HEAD]]
    return GoldenText(text=text, vector_head=head, norm=float(np.linalg.norm(vector)))


def record_case(history: Sequence[int], k: int, rankers: Mapping[str, Ranker], ids: Sequence[str]) -> GoldenCase:
    """Ask each precision's ranker for the k best rows and keep the answers.

    history: rows, oldest first, at most the model's `max_history` of them. ids: item id of each row, row 0 included.
    """
    rows = np.array([history], np.int64)
    answers = {}
    for precision, ranker in rankers.items():
        scores, items = ranker.rank(rows, rows, k)
        kept = np.isfinite(scores[0])
        answers[precision] = GoldenAnswer(
            items=[ids[row] for row in items[0][kept].tolist()], scores=scores[0][kept].tolist()
        )
    return GoldenCase(history=[ids[row] for row in history], k=k, answers=answers)
