"""The server as a process: its socket, its signals, and how it stops."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from deploy.errors import UsageError
from deploy.server.guard import Guard, Life
from deploy.server.messages import Problem

DRAIN_SECONDS = 10.0
"""How long requests under way may take after a signal to stop."""
HEAD_SECONDS = 10.0
_SAY_SECONDS, _HEAR_SECONDS = 0.25, 0.1


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


class Connection(H11Protocol):
    """One that must send a request's head within HEAD_SECONDS (uvicorn bounds the silence between requests alone), and
    is told in a problem document where what it sends is no HTTP."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._silence = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._silence.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        problem = Problem(title="Bad Request", status=400, detail=msg)
        body = problem.model_dump_json().encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _give_up(self) -> None:
        if self.cycle is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """Stops without losing a request.

    First every answer says that its connection closes, and /readyz that nothing more should come. Then what stands in
    the listener's queue is let in: its senders were told that they are connected. Idle connections are closed last.
    """

    def __init__(self, config: uvicorn.Config, life: Life) -> None:
        super().__init__(config)
        self._life = life

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._life.draining = True
        await asyncio.sleep(_SAY_SECONDS)
        loop = asyncio.get_running_loop()
        late = [connection for listener in sockets or [] for connection in _last_of(listener)]
        for server in self.servers:
            server.close()
        for connection in late:
            await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(_HEAR_SECONDS)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _last_of(listener: socket.socket) -> list[socket.socket]:
    """The connections that the kernel has made and nobody has taken; no more than one can join them."""
    listener.listen(0)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listener.accept()[0])
    return found


def serve(app: Guard, listener: socket.socket, life: Life) -> None:
    """Answer on `listener` until SIGINT or SIGTERM; requests under way are finished first (at most DRAIN_SECONDS)."""
    _Server(configuration(app), life).run(sockets=[listener])


def configuration(app: Guard) -> uvicorn.Config:
    """uvicorn's, for `app`."""
    return uvicorn.Config(
        app,
        http=Connection,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=int(DRAIN_SECONDS),
    )


def exit_on_sigterm() -> None:
    """SIGTERM ends the process with status 0, also before the server runs and when uvicorn raises it again."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
