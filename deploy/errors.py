"""The two ways slimrec says no: a user's mistake (exit 2) and a gate that failed (exit 3)."""

from collections.abc import Iterable


class SlimrecError(Exception):
    """An expected failure. `lines` holds one line per mistake: `where: what (got value)`."""

    exit_code = 1

    def __init__(self, *lines: str | Iterable[str]) -> None:
        flat = [line for item in lines for line in ([item] if isinstance(item, str) else item)]
        self.lines: tuple[str, ...] = tuple(" ".join(line.split()) for line in flat)
        super().__init__("\n".join(self.lines))


class UsageError(SlimrecError):
    """Bad usage, recipe, data or port, or an unreadable or malformed bundle."""

    exit_code = 2


class GateError(SlimrecError):
    """Well-formed, but refused: accuracy, latency, size, digest, signature or golden answer."""

    exit_code = 3


class ConflictError(UsageError):
    """What was asked contradicts what is there."""


class UnavailableError(SlimrecError):
    """Cannot be done now; may be tried again."""
