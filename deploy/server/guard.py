"""Around every request: who may ask, the headers that every answer has, what is counted and what is logged."""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.errors import UsageError
from deploy.server.logs import say
from deploy.server.messages import Problem
from deploy.server.metrics import ServerMetrics
from deploy.server.problems import problem_response

OPEN_PATHS = frozenset({"/", "/page.css", "/page.js", "/healthz", "/readyz", "/openapi.json"})
"""What is answered without a token: what says nothing of users or items."""
MIN_TOKEN, MAX_TOKEN = 16, 4096


@dataclass
class Life:
    """Whether the server is on its way out: it answers what it has, and says on each connection that it closes."""

    draining: bool = False


def read_token(path: Path) -> bytes:
    """SHA-256 of the token in a file, white space around it dropped. Raises UsageError, never showing the token."""
    try:
        with path.open("rb") as stream:
            token = stream.read(MAX_TOKEN + 2).strip()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not token.isascii() or len(token.split()) != 1:
        raise UsageError(
            f"{path}: a token is one word of {MIN_TOKEN} to {MAX_TOKEN} ASCII characters, such as "
            f"`openssl rand -hex 32` makes (got {len(token)} bytes)"
        )
    return hashlib.sha256(token).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host in ("localhost", ""):
        return host == "localhost"
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def _is_here(host: bytes) -> bool:
    """Whether a Host header names this machine."""
    try:
        return is_loopback((urlsplit(b"//" + host).hostname or b"").decode())
    except ValueError:  # nothing that names a host
        return False


_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_CLOSE = ((b"connection", b"close"),)


class Guard:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        path_of: Callable[[Scope], str],
        metrics: ServerMetrics,
        token: bytes | None,
        local: bool,
        life: Life,
    ) -> None:
        """path_of: what a routed request is counted under. token: SHA-256 of what callers must know. local: without a
        token, answer only what was meant for this machine, so that no page of another site reaches the server through
        a browser here (DNS rebinding)."""
        self._app, self._path_of, self._metrics = app, path_of, metrics
        self._token, self._local, self._life = token, local, life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = _CLOSE if self._life.draining else ()
                marks = ((b"x-request-id", request_id.encode()), *_ALWAYS, *closing)
                message["headers"] = [*message["headers"], *marks]
            await send(message)

        try:
            problem = self._refusal(scope)
            if problem is None:
                await self._app(scope, receive, send_marked)
            else:
                headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
                await problem_response(problem, headers | {"Connection": "close"})(scope, receive, send_marked)
        except Exception as error:  # answered 500 inside; what is left is to say it, and to go on serving
            say(logging.ERROR, "failed", error=error, request_id=request_id)
        finally:
            self._count(scope, status, time.perf_counter() - start, request_id)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._token is not None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            digest = hashlib.sha256(given.strip()).digest()
            right = hmac.compare_digest(digest, self._token) and scheme.lower() == b"bearer"
            if right or scope["path"] in OPEN_PATHS:
                return None
            return Problem(title="Unauthorized", status=401, detail="wanted: Authorization: Bearer TOKEN")
        host = headers.get(b"host", b"")
        if self._local and not _is_here(host):
            detail = "without a token only requests to localhost are answered; start with --token-file"
            return Problem(title="Misdirected Request", status=421, detail=detail)
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != host:
            return Problem(title="Forbidden", status=403, detail="pages of other sites are not answered")
        return None

    def _count(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        # What a caller wrote must not become a label: it has no bound.
        path = self._path_of(scope)
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE") else "other"
        self._metrics.requests.add(method, path, str(status))
        self._metrics.seconds.observe(seconds, path)
        level = logging.ERROR if status == 500 else logging.INFO
        ms = round(seconds * 1e3, 3)
        say(level, "request", method=method, path=path, status=status, ms=ms, request_id=request_id)
