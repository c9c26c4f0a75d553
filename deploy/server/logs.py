"""What the server says on stderr: lines of text, or one JSON object a line.

Neither holds what a user sent: no ids, no query, no address, no message of an exception (which may quote a request).
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

LogForm = Literal["text", "json"]
logger = logging.getLogger("slimrec.server")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line | _failure(record), separators=(",", ":"))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {**getattr(record, "fields", {}), **_failure(record)}
        return " ".join(
            [f"{record.levelname.lower()}: {record.getMessage()}", *(f"{k}={v}" for k, v in fields.items())]
        )


def _failure(record: logging.LogRecord) -> dict[str, Any]:
    if record.exc_info is None or record.exc_info[1] is None:
        return {}
    error = record.exc_info[1]
    frames = traceback.extract_tb(error.__traceback__)
    return {"exception": type(error).__name__, "at": [f"{f.filename}:{f.lineno} {f.name}" for f in frames]}


def set_up(form: LogForm) -> None:
    """`json` says every request, `text` only what went wrong. uvicorn's own lines take the same form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    for name in ("slimrec", "uvicorn"):
        found = logging.getLogger(name)
        found.handlers, found.propagate = [handler], False
        found.setLevel(logging.INFO if form == "json" and name == "slimrec" else logging.WARNING)


def say(level: int, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
    """One line. `fields` must not be a user's."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields}, exc_info=error)
