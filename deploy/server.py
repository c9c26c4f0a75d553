"""HTTP around one Recommender. Errors are RFC 9457 problem documents; bodies are bounded."""

import errno
import os
import signal
import socket
import sys
import uuid
from functools import partial
from importlib.resources import files
from types import FrameType
from typing import NoReturn

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from deploy.api import (
    MAX_BODY_BYTES,
    FieldError,
    FoundItem,
    Item,
    ItemsResponse,
    Problem,
    RecommendRequest,
    RecommendResponse,
    Status,
    openapi,
)
from deploy.errors import UsageError
from deploy.manifest import shorten
from deploy.runtime import Recommender

# The page is one file that fetches from this server only.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class RequestError(Exception):
    """A request that is refused with this problem document."""

    def __init__(self, status: int, title: str, detail: str, errors: list[FieldError] | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(title=title, status=status, detail=detail, errors=errors or [])


def create_app(recommender: Recommender) -> Starlette:
    """The ASGI application; `recommender` has passed its self-test."""
    page = files("deploy").joinpath("page.html").read_text("utf-8")
    document = openapi()

    async def recommend(request: Request) -> Response:
        wanted = _parse(RecommendRequest, await _read_body(request))
        try:
            answer = await run_in_threadpool(
                recommender.recommend, wanted.history, wanted.k, wanted.exclude, wanted.filter
            )
        except UsageError as error:
            field, _, detail = error.lines[0].partition(": ")
            raise RequestError(422, "Invalid request", error.lines[0], [_field_error(field, detail)]) from None
        return _answer(
            RecommendResponse(
                items=[Item(id=item.id, score=item.score, title=item.title) for item in answer.items],
                unknown=answer.unknown,
                source="model" if answer.source == "model" else "popularity",
                request_id=uuid.uuid4().hex,
                release=recommender.release,
            )
        )

    async def items(request: Request) -> Response:
        query = request.query_params.get("query", "")
        if not 1 <= len(query) <= 200:
            raise _invalid("query", f"must have 1 to 200 characters (got {len(query)})")
        limit = request.query_params.get("limit", "20")
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= 100):
            raise _invalid("limit", f"must be a number from 1 to 100 (got {shorten(limit)})")
        catalogue = recommender.catalogue
        rows = await run_in_threadpool(catalogue.search, query, int(limit))
        found = [FoundItem(id=catalogue.ids[row], title=catalogue.titles[row]) for row in rows]
        return _answer(ItemsResponse(items=found))

    async def health(_: Request) -> Response:
        return _answer(Status(status="ok", release=recommender.release))

    async def ready(_: Request) -> Response:
        return _answer(Status(status="ready", release=recommender.release))

    async def schema(_: Request) -> Response:
        return JSONResponse(document)

    async def index(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})

    return Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/openapi.json", schema),
            Route("/v1/items", items),
            Route("/v1/recommend", recommend, methods=["POST"]),
        ],
        exception_handlers={
            RequestError: _refused,
            HTTPException: _http_error,
            Exception: _failed,
        },
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UsageError where the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        # asyncio turns Nagle's algorithm off only where the protocol is named; left on, an answer waits 40 ms.
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            line = f"serve: port {port} is in use on {host} ({reason}); choose another with --port"
        else:
            line = f"serve: cannot listen on port {port} of {host} ({reason})"
        raise UsageError(line) from None


def serve(recommender: Recommender, listener: socket.socket) -> None:
    """Answer on `listener` until SIGINT or SIGTERM; requests under way are finished first (at most 5 s)."""
    config = uvicorn.Config(
        create_app(recommender),
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])


def exit_on_sigterm() -> None:
    """SIGTERM ends the process with status 0, also before the server runs and when uvicorn raises it again."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)


async def _read_body(request: Request) -> bytes:
    too_large = partial(RequestError, 413, "Content Too Large", f"the body must be at most {MAX_BODY_BYTES} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large()
    return bytes(body)


def _parse(model: type[RecommendRequest], body: bytes) -> RecommendRequest:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    if mistakes[0]["type"] == "json_invalid":
        raise RequestError(400, "Malformed JSON", mistakes[0]["msg"])
    errors = [
        _field_error(
            ".".join(str(part) for part in mistake["loc"]) or "body",
            mistake["msg"] + ("" if mistake["type"] == "missing" else f" (got {shorten(mistake['input'])})"),
        )
        for mistake in mistakes[:20]
    ]
    raise RequestError(422, "Invalid request", f"{errors[0].field}: {errors[0].detail}", errors)


def _invalid(field: str, detail: str) -> RequestError:
    return RequestError(422, "Invalid request", f"{field}: {detail}", [_field_error(field, detail)])


def _field_error(field: str, detail: str) -> FieldError:
    return FieldError(field=field, detail=detail)


def _answer(message: BaseModel) -> Response:
    return Response(message.model_dump_json(), media_type="application/json")


def _problem(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    body = problem.model_dump_json()
    return Response(body, problem.status, headers, media_type="application/problem+json")


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _problem(error.problem)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}"
    headers = dict(error.headers) if error.headers else None
    return _problem(Problem(title=error.detail, status=error.status_code, detail=detail), headers)


def _failed(_: Request, __: Exception) -> Response:
    return _problem(Problem(title="Internal Server Error", status=500, detail="the server's log has the reason"))
