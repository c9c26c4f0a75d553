"""Where the server leaves what was shown and what users did with it."""

from concurrent.futures import Future
from typing import Protocol

from deploy.feedback.records import Event, Shown


class Feedback(Protocol):
    """`deploy.feedback.FeedbackLog` is one. Called from several threads."""

    def submit(self, record: Shown | Event, *, awaited: bool = True) -> "Future[None]":
        """Queue a record without waiting; the future is done when it survives power loss, or has the error.

        awaited: whether somebody waits for that. Raises UnavailableError where too many wait.
        """
