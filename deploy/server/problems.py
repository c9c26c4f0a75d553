"""Requests in, problem documents (RFC 9457) out: bodies are bounded in bytes and seconds, and checked."""

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deploy.errors import ConflictError, SlimrecError, UsageError
from deploy.manifest import shorten
from deploy.server.messages import FieldError, Problem

M = TypeVar("M", bound=BaseModel)

RETRY_AFTER_S = 1
BODY_SECONDS = 10.0
_CLOSE = {"Connection": "close"}  # what is left of a body that was not read must not be taken for a request


class RequestError(Exception):
    """A request that is refused with this problem document."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        errors: list[FieldError] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(title=title, status=status, detail=detail, errors=errors or [])
        self.headers = headers


async def read_body(request: Request, most_bytes: int, seconds: float = BODY_SECONDS) -> bytes:
    """The body. Raises RequestError (413, 408)."""
    too_large = RequestError(413, "Content Too Large", f"the body must be at most {most_bytes} bytes", headers=_CLOSE)
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise too_large
    except TimeoutError:
        detail = f"the body must arrive within {seconds:g} s"
        raise RequestError(408, "Request Timeout", detail, headers=_CLOSE) from None
    return bytes(body)


def parse(model: type[M], body: bytes) -> M:
    """A checked message. Raises RequestError: 400 where it is no JSON, 422 with every mistake else."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    if mistakes[0]["type"] == "json_invalid":
        raise RequestError(400, "Malformed JSON", mistakes[0]["msg"])
    errors = [
        FieldError(
            field=".".join(map(str, mistake["loc"])) or "body",
            detail=mistake["msg"] + ("" if mistake["type"] == "missing" else f" (got {shorten(mistake['input'])})"),
        )
        for mistake in mistakes[:20]
    ]
    raise RequestError(422, "Invalid request", f"{errors[0].field}: {errors[0].detail}", errors)


def invalid(field: str, detail: str, status: int = 422, title: str = "Invalid request") -> RequestError:
    """One mistake in one field."""
    return RequestError(status, title, f"{field}: {detail}", [FieldError(field=field, detail=detail)])


def answer(message: BaseModel, status: int = 200) -> Response:
    """A message as JSON."""
    return Response(message.model_dump_json(), status, media_type="application/json")


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """A problem document."""
    return Response(problem.model_dump_json(), problem.status, headers, media_type="application/problem+json")


def refused(_: Request, error: Exception) -> Response:
    """Starlette's handler of RequestError."""
    assert isinstance(error, RequestError)
    return problem_response(error.problem, error.headers)


def not_possible(_: Request, error: Exception) -> Response:
    """Starlette's handler of what the runtime refuses: `field: what (got value)`."""
    assert isinstance(error, SlimrecError)
    line = error.lines[0]
    if isinstance(error, UsageError):
        field, detail = line.split(": ", 1) if ": " in line else ("body", line)
        status, title = (409, "Conflict") if isinstance(error, ConflictError) else (422, "Invalid request")
        return problem_response(invalid(field, detail, status, title).problem)
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return problem_response(Problem(title="Service Unavailable", status=503, detail=line), headers)


def gone(_: Request, __: Exception) -> Response:
    """Starlette's handler of a caller who left with the body half sent: it is counted, not read."""
    return Response(status_code=499)


def failed(_: Request, __: Exception) -> Response:
    """Starlette's handler of a defect; `Guard` logs it."""
    return problem_response(
        Problem(title="Internal Server Error", status=500, detail="the server's log has the reason")
    )


def http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own refusals: no such path, no such method."""
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}"
    headers = dict(error.headers) if error.headers else None
    return problem_response(Problem(title=error.detail, status=error.status_code, detail=detail), headers)
