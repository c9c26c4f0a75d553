"""Where the server leaves what was shown and what users did with it."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

EventName = Literal["click", "like", "dislike", "purchase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """One item of an answer; `score` is None where recent popularity answered."""

    id: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An answer, best first. `time`: Unix seconds of this device."""

    request_id: str
    user: str | None
    release: str
    items: Sequence[ShownItem]
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a user did with an item of an answer. `ts`: Unix seconds as the client says, `time`: as this device does."""

    request_id: str
    item_id: str
    event: EventName
    ts: float
    time: float


class Feedback(Protocol):
    """A log. Called from several threads."""

    def submit(self, record: Shown | Event) -> "Future[None]":
        """Queue a record without waiting; the future is done when it survives power loss, or has the error.

        Raises UnavailableError where too many wait.
        """
