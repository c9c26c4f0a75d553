"""One HTTP/1.1 connection of the load generator: a request at a time, as little work per request as can be."""

import asyncio
from dataclasses import dataclass

_HEAD_END, _LENGTH = b"\r\n\r\n", b"content-length:"


class LostError(Exception):
    """The connection ended before the answer was whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `closes`: the server says that the connection ends with it."""

    status: int
    body: bytes
    closes: bool
    retry_after: bool


class Connection(asyncio.Protocol):
    """Kept alive between requests. Understands what this server sends: a head, Content-Length, a body."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._bytes = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self.usable = True

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        """Raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer. Raises LostError."""
        if self._transport is None or not self.usable:
            raise LostError("the connection is closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        """Let go of it."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        head_end = self._bytes.find(_HEAD_END)
        if head_end < 0:
            return
        head = bytes(self._bytes[:head_end]).lower()
        start = head.find(_LENGTH)
        length = int(head[start + len(_LENGTH) :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        end = head_end + len(_HEAD_END) + length
        if len(self._bytes) < end:
            return
        body = bytes(self._bytes[head_end + len(_HEAD_END) : end])
        del self._bytes[:end]
        closes = b"\r\nconnection: close" in head
        self.usable = self.usable and not closes
        self._answered(Answer(int(head[9:12]), body, closes, b"\r\nretry-after:" in head))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(LostError(str(exc or "closed by the server")))

    def _answered(self, answer: Answer) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(answer)


def request_bytes(method: str, path: str, body: bytes | None = None) -> bytes:
    """A request as it goes over the wire."""
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
