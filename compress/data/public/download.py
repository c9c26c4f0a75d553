"""Files from their publishers: fetched once, checked on every use, kept in slimrec's cache."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import UsageError

ATTEMPTS = 3
PAUSE_SECONDS = 2.0
CHUNK = 1 << 20
ALGORITHMS = {32: "md5", 64: "sha256"}


@dataclass(frozen=True)
class Download:
    """One file at its publisher's.

    `name`: its place in the cache. `checksum`: hex MD5 or SHA-256; None where none was found published, and the recipe
    must confirm the file's SHA-256 in its field `confirm`. `shown`: the publisher's page that shows it, if any.
    `max_bytes` bounds what is taken off the network.
    """

    name: str
    url: str
    checksum: str | None
    max_bytes: int
    confirm: str = "sha256"
    shown: str | None = None

    @property
    def pin(self) -> str:
        """What stands for the file's content in a cache key. Nothing is ever sealed under `unconfirmed`."""
        return f"{self.name}:{self.checksum or 'unconfirmed'}"


def cache_folder() -> Path:
    return Path.home() / ".cache" / "slimrec" / "data"


def fetch(downloads: Sequence[Download], otherwise: str) -> list[Path]:
    """The files in the cache, downloaded where absent, each checked against its checksum.

    Only a file without a checksum stays in the cache unconfirmed: it is never read, and its digest is told.
    `otherwise` says how else to get the data. Raises UsageError, one line per file.
    """
    mistakes: list[str] = []
    paths = [cache_folder() / download.name for download in downloads]
    for download, path in zip(downloads, paths, strict=True):
        try:
            if not path.is_file():
                _download(download, path, otherwise)
            else:
                _verify(download, path, f"{path}: delete it to fetch it again; it is not")
            if download.checksum is None:
                compare = f", once you have compared it with {download.shown}" if download.shown else ""
                raise UsageError(
                    f"{path}: no published checksum is known for {download.url}; confirm the file in the recipe with "
                    f"{download.confirm}: {digest(path, 'sha256')}{compare} (got none)"
                )
        except UsageError as error:
            mistakes += error.lines
    if mistakes:
        raise UsageError(mistakes)
    return paths


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _verify(download: Download, path: Path, complaint: str) -> None:
    if download.checksum is None:
        return
    algorithm = ALGORITHMS[len(download.checksum)]
    found = digest(path, algorithm)
    if found != download.checksum:
        expected = f"{algorithm.upper()} {download.checksum}"
        raise UsageError(f"{complaint} the file that was pinned, {expected} (got {found})")


def _download(download: Download, path: Path, otherwise: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        _with_retries(download, partial, otherwise)
        _verify(download, partial, f"{download.url}: not kept, because it is not")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _with_retries(download: Download, partial: Path, otherwise: str) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(download, partial)
            return
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempt == ATTEMPTS:
                why = str(error) or type(error).__name__
                raise UsageError(
                    f"{download.url}: not on this machine and cannot be fetched; {otherwise}, or connect to the "
                    f"network once (got {why})"
                ) from None
            time.sleep(PAUSE_SECONDS * attempt)


def _transfer(download: Download, partial: Path) -> None:
    with urllib.request.urlopen(download.url, timeout=60) as answer, partial.open("wb") as file:
        announced, size = answer.headers.get("Content-Length"), 0
        while chunk := answer.read(CHUNK):
            size += len(chunk)
            if size > download.max_bytes:
                raise UsageError(f"{download.url}: larger than {download.max_bytes} bytes (got {size} so far)")
            file.write(chunk)
    # urllib ends a chunked read without a word where the connection broke
    if announced is not None and announced.isdecimal() and size != int(announced):
        raise ConnectionError(f"the connection ended after {size} of {announced} bytes")
