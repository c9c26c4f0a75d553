"""A server process and the application without one, for tests."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 30.0


@dataclass
class Running:
    """A server process and a client for it."""

    process: subprocess.Popen[str]
    client: httpx.Client
    port: int
    banner: str


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "deploy", *map(str, arguments)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serving(*arguments: object, headers: dict[str, str] | None = None) -> Iterator[Running]:
    """`slimrec serve` with these arguments, ready to answer."""
    port = free_port()
    with (
        subprocess.Popen(
            command("serve", *arguments, "--port", port),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0, headers=headers) as client,
    ):
        try:
            assert process.stdout is not None
            # The banner follows `listen`: the port is open, and the first answer comes when the server is ready.
            banner = process.stdout.readline()
            assert client.get("/healthz", timeout=READY_WITHIN_S).status_code == 200
            yield Running(process, client, port, banner)
        finally:
            process.kill()


Call = tuple[str, str, Any]


def ask(app: Any, *calls: Call, headers: dict[str, str] | None = None) -> list[httpx.Response]:
    """Answers to (method, path, JSON body or None), one after the other, in one event loop."""

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            return [await client.request(method, path, json=body) for method, path, body in calls]

    return asyncio.run(run())
