"""A bundle archive over HTTP into a file: bounded, resumable across connections, processes and power cuts.

Nothing that is fetched is trusted: the caller verifies the finished file (`partial.py` says what is kept of one that is
not finished). More is asked for with `Range` and `If-Range` (RFC 9110), so that two versions are never joined.
"""

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from deploy import disk
from deploy.errors import UsageError
from deploy.manifest import MAX_TOTAL_BYTES, shorten
from deploy.releases.partial import Partial, partial_path

MAX_FETCH_BYTES = MAX_TOTAL_BYTES + (2 << 20)  # a bundle's files, their headers and the manifest
READ_SECONDS = 30.0
ATTEMPTS = 5
_CHUNK = 256 << 10
_RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})")

Progress = Callable[[int, int | None], None]


class _BrokenError(Exception):
    """A connection did not bring all; what it brought is kept."""


class UnchangedError(Exception):
    """The server has what the caller has."""


def is_url(source: str) -> bool:
    """Whether `source` is fetched over HTTP; anything else is a path."""
    return urlsplit(source).scheme.lower() in ("http", "https")


def fetch(
    url: str,
    folder: Path,
    *,
    most: int = MAX_FETCH_BYTES,
    seconds: float = READ_SECONDS,
    attempts: int = ATTEMPTS,
    have: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
) -> Path:
    """Fetch `url` to `partial_path(url, folder)`, going on where an earlier call stopped, and return that path.

    most: a longer file is refused. seconds: without a byte after which a connection is given up. attempts: connections
    in a row that may bring nothing. have: the validator (`Note.tag`) of a version that the caller has. progress: called
    with the bytes there and those in all, if known.
    Raises UsageError with the reason; what was fetched is kept for the next call. UnchangedError where the server has
    nothing newer than `have`.
    """
    _check_address(url)
    opener = _opener()
    left = attempts
    with Partial(partial_path(url, folder), url) as partial:
        most_seen = partial.size
        while True:
            try:
                _fetch_once(opener, partial, most, seconds, have, progress)
                return partial.path
            except _BrokenError as broken:
                # More than ever before: a server that makes us begin again and again must not keep us for ever.
                left = attempts if partial.size > most_seen else left - 1
                most_seen = max(most_seen, partial.size)
                if left <= 0:
                    kept = f"{partial.size} bytes are kept, the same command goes on from there"
                    raise UsageError(f"{url}: {broken}; {kept}") from None
            sleep(min(2.0 ** (attempts - left), 10.0))


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        whole = False
    if not whole:
        raise UsageError(
            f"{shorten(url)}: not an address that can be fetched; spaces and letters beyond ASCII are %-encoded"
        )
    if parts.username is not None:
        raise UsageError("url: may not hold a name or password: it is logged and shown by `status`")


def _fetch_once(
    opener: urllib.request.OpenerDirector,
    partial: Partial,
    most: int,
    seconds: float,
    have: str | None,
    progress: Progress | None,
) -> None:
    """One connection's worth. Raises _BrokenError where more connections may help, UsageError where none will."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "slimrec"}
    if partial.size and partial.tag:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.tag}
    elif have:
        headers["If-None-Match" if have.startswith('"') else "If-Modified-Since"] = have
    try:
        with opener.open(urllib.request.Request(partial.url, headers=headers), timeout=seconds) as response:
            _begin(response, partial)
            _check_room(partial, most)
            while chunk := response.read(_CHUNK):
                if partial.size + len(chunk) > most:
                    raise UsageError(f"{partial.url}: longer than {most} bytes; not fetched")
                partial.write(chunk)
                if progress:
                    progress(partial.size, partial.total)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 304 and have:
                raise UnchangedError from None
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{partial.size}":
                return  # all of it was here already
            if error.code == 416:
                partial.restart(None, None)
            elif error.code < 500 and error.code not in (408, 425, 429):
                raise UsageError(f"{partial.url}: the server says {error.code} {error.reason}") from None
            raise _BrokenError(f"the server says {error.code} {error.reason}") from None
    except (http.client.HTTPException, urllib.error.URLError, ssl.SSLError, TimeoutError, ConnectionError) as error:
        raise _BrokenError(
            f"connection lost ({getattr(error, 'reason', None) or error or type(error).__name__})"
        ) from None
    finally:
        partial.save()
    if partial.total is not None and partial.size != partial.total:
        raise _BrokenError(f"connection closed after {partial.size} of {partial.total} bytes")


def _begin(response: HTTPResponse, partial: Partial) -> None:
    """Take the answer's headers: the rest of what is here, or all of it anew."""
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found and int(found[1]) == partial.size and partial.total in (None, int(found[2])):
            return
        partial.restart(None, None)
        raise _BrokenError("the server sent another part than was asked for")
    length = response.headers.get("Content-Length", "")
    etag = response.headers.get("ETag", "")
    # A weak ETag may stand for other bytes: RFC 9110 does not allow it in If-Range.
    tag = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    partial.restart(tag, int(length) if re.fullmatch(r"\d{1,15}", length) else None)


def _check_room(partial: Partial, most: int) -> None:
    total = partial.total
    if total is None:
        return
    if total > most:
        raise UsageError(f"{partial.url}: must be at most {most} bytes (got {total})")
    needed = total - partial.size + total  # the rest, and the unpacked files
    free = disk.free_bytes(partial.path.parent)
    if needed > free:
        raise UsageError(f"{partial.path.parent}: needs {needed} free bytes to fetch and unpack (got {free})")


class WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects over HTTP alone, and never from HTTPS to HTTP."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not is_url(newurl) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            fp.close()
            raise UsageError(f"{req.full_url}: redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    # Not `build_opener`: it also opens file: and ftp: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        WebRedirects(),
    ):
        opener.add_handler(handler)
    return opener
