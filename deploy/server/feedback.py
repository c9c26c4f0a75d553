"""Where the server leaves what was shown and what users did with it."""

from dataclasses import dataclass
from typing import Literal, Protocol

EventName = Literal["click", "like", "dislike", "purchase"]


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer: its items with their scores (None: recent popularity), best first. `ts`: seconds since 1970."""

    request_id: str
    user: str | None
    release: str
    items: tuple[tuple[str, float | None], ...]
    ts: float


@dataclass(frozen=True, slots=True)
class Event:
    """What a user did with an item that was shown."""

    request_id: str
    item_id: str
    event: EventName
    ts: float


class Feedback(Protocol):
    """A log. `append` is called from several threads; an Event is durable when it returns, a Shown need not be.

    Raises UnavailableError where it cannot be kept.
    """

    def append(self, record: Shown | Event) -> None:
        """Keep one record."""
