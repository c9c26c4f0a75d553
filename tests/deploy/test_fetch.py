"""Fetching over HTTP: resumed across broken connections, processes and power cuts, bounded, never joined wrongly."""

import io
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.errors import GateError, UsageError
from deploy.releases import Releases
from deploy.releases.fetch import WebRedirects, fetch
from deploy.releases.partial import Partial, partial_path, read_note
from deploy.releases.status import status
from deploy.runtime import Recommender
from tests.deploy.power import power_cuts

BODY = bytes(range(256)) * 4096  # 1 MiB


class FileServer(ThreadingHTTPServer):
    """One file with an ETag and ranges; it can misbehave."""

    body = BODY
    tag: str | None = '"one"'
    stop_after: int | None = None  # bytes that a connection brings before it breaks
    statuses: tuple[int, ...] = ()  # what the next requests are answered instead
    ranges = True
    lengths = True
    redirect: str | None = None
    wrong_range = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/bundle.slim"

    def handle_error(self, *_: object) -> None:
        """A client that goes away is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.statuses:
            code, server.statuses = server.statuses[0], server.statuses[1:]
            return self.send_error(code)
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            return self.end_headers()
        if server.tag and self.headers.get("If-None-Match") == server.tag:
            self.send_response(304)
            return self.end_headers()
        body, total = server.body, len(server.body)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and server.ranges and self.headers.get("If-Range") == server.tag:
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start + server.wrong_range}-{total - 1}/{total}")
            body = body[start:]
        else:
            self.send_response(200)
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.stop_after])
        return None


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: FileServer, folder: Path, **options: object) -> bytes:
    return fetch(server.url, folder, sleep=lambda _: None, seconds=5, **options).read_bytes()


def refused(*arguments: object, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        get(*arguments, **options)
    assert len(caught.value.lines) == 1
    return str(caught.value)


def test_a_whole_file(server, tmp_path):
    seen = []
    assert get(server, tmp_path, progress=lambda done, total: seen.append((done, total))) == BODY
    assert server.asked == [None] and seen[-1] == (len(BODY), len(BODY))
    assert get(server, tmp_path) == BODY and server.asked[1:] == [f"bytes={len(BODY)}-"]  # not fetched twice


def test_broken_connections_are_gone_on_from(server, tmp_path):
    server.stop_after = 300_000
    assert get(server, tmp_path) == BODY
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_another_process_goes_on(server, tmp_path):
    server.stop_after = 300_000
    server.statuses = ()
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path, sleep=interrupt)
    assert read_note(partial_path(server.url, tmp_path)).synced == 300_000
    server.stop_after = None
    assert get(server, tmp_path) == BODY and server.asked[-1] == "bytes=300000-"


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


def test_a_new_version_is_not_joined_to_the_old(server, tmp_path):
    server.stop_after = 300_000
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path, sleep=interrupt)
    server.stop_after, server.body, server.tag = None, BODY[::-1], '"two"'
    assert get(server, tmp_path) == BODY[::-1]


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_what_cannot_be_told_apart_is_fetched_anew(server, tmp_path, tag):
    server.tag, server.stop_after = tag, 300_000
    message = refused(server, tmp_path, attempts=2)
    assert "connection closed after 300000 of 1048576 bytes" in message
    assert set(server.asked) == {None}
    server.stop_after = None
    assert get(server, tmp_path) == BODY


def test_a_server_without_ranges_or_lengths(server, tmp_path):
    server.stop_after, server.ranges = 300_000, False
    assert "are kept" in refused(server, tmp_path, attempts=2)
    server.stop_after, server.lengths = None, False
    assert get(server, tmp_path) == BODY


def test_a_server_that_sends_another_part(server, tmp_path):
    server.stop_after, server.wrong_range = 300_000, True
    assert "are kept, the same command goes on from there" in refused(server, tmp_path, attempts=3)
    assert server.asked == [None, "bytes=300000-", None, "bytes=300000-"]
    server.stop_after = None
    assert get(server, tmp_path) == BODY


def test_errors_that_pass_and_errors_that_stay(server, tmp_path):
    server.statuses = (503, 429, 500)
    assert get(server, tmp_path) == BODY
    server.statuses = (404,)
    assert refused(server, tmp_path).endswith("the server says 404 Not Found")
    server.statuses = (503,) * 5
    assert "the server says 503" in refused(server, tmp_path)


def test_bounds(server, tmp_path):
    assert refused(server, tmp_path, most=1000).endswith("must be at most 1000 bytes (got 1048576)")
    server.lengths = False
    assert refused(server, tmp_path, most=1000).endswith("longer than 1000 bytes; not fetched")
    assert partial_path(server.url, tmp_path).stat().st_size <= 1000


def test_a_full_disk_is_known_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.disk.free_bytes", lambda _: 1_500_000)
    assert "needs 2097152 free bytes" in refused(server, tmp_path)


def test_redirects_stay_on_the_web(server, tmp_path):
    for address, said in [("file:///etc/passwd", "not allowed"), ("ftp://127.0.0.1/x", "which is not followed")]:
        server.redirect = address
        assert said in refused(server, tmp_path)
    secure = urllib.request.Request("https://127.0.0.1/x")
    with pytest.raises(UsageError, match="which is not followed"):
        WebRedirects().redirect_request(secure, io.BytesIO(), 302, "Found", {}, "http://127.0.0.1/x")
    server.redirect = None
    assert partial_path(server.url, tmp_path).read_bytes() == b""


def test_addresses_that_cannot_be_used(tmp_path):
    for url, said in [
        ("http://user:secret@127.0.0.1/x", "may not hold a name or password"),
        ("http://127.0.0.1:1/x", "Connection refused"),
        ("http://127.0.0.1:notaport/x", "not an address"),
        ("http:///x", "not an address"),
        ("http://127.0.0.1/a b", "not an address"),
    ]:
        with pytest.raises(UsageError, match=said):
            fetch(url, tmp_path, sleep=lambda _: None, attempts=1)


def test_a_partial_file_never_vouches_for_lost_bytes(monkeypatch):
    """After a power cut at any call, what the note calls synced is there."""
    url, pieces = "http://host/bundle.slim", [BODY[:1000], BODY[1000:3000]]

    def act(root: Path) -> None:
        with Partial(partial_path(url, root), url) as partial:
            partial.restart('"one"', 3000)
            for piece in pieces:
                partial.write(piece)
                partial.save()

    for _, done, world in power_cuts(monkeypatch, lambda root: None, act):  # noqa: ARG005
        with Partial(partial_path(url, world), url) as again:
            assert again.path.read_bytes() == BODY[: again.size]
            assert again.size in ((3000,) if done else (0, 1000, 3000))


def test_downloads_that_nobody_goes_on_with_are_removed(server, tmp_path, tiny):
    releases = Releases(tmp_path, health=lambda _: None)
    releases.install(tiny.archive, None)
    server.stop_after = 300_000
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "incoming", sleep=interrupt)
    releases.install(tiny.archive, None)
    assert [one["bytes"] for one in status(releases)["downloads"]] == [300_000]
    later = Releases(tmp_path, health=lambda _: None, clock=lambda: time.time() + 8 * 86_400)
    later.install(tiny.archive, None)
    assert [path.name for path in (tmp_path / "incoming").iterdir()] == ["lock"]


def test_install_from_a_server(server, tmp_path, tiny):
    server.body = tiny.archive.read_bytes()
    releases = Releases(tmp_path / "device", health=lambda folder: Recommender.load(folder) and None)
    release = releases.install(server.url, tiny.public_key)
    assert release.source == server.url and release.signed_by
    asked = len(server.asked)
    assert releases.install(server.url, tiny.public_key) == release  # 304: not fetched, and the same record
    assert releases.install(server.url, None) == release and len(server.asked) == asked + 2
    (releases.folder(release.digest) / "items.item").write_bytes(b"")
    assert releases.install(server.url, tiny.public_key).digest == release.digest  # fetched again, and repaired
    assert Recommender.load(releases.folder(release.digest), tiny.public_key)
    server.body = server.body.replace(b"i7\t", b"i8\t")
    server.tag = '"two"'
    with pytest.raises(GateError) as caught:
        releases.install(server.url, tiny.public_key)
    assert str(caught.value).startswith(f"{server.url}: items.item: SHA-256")
    assert status(releases)["downloads"] == []
    assert [one.digest for one in releases.installed()] == [release.digest]
