"""The installed releases: folders named by the SHA-256 of their manifest, there whole or not at all."""

import contextlib
import secrets
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from deploy import disk
from deploy.bundle import Bundle, open_bundle
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    Record,
    canonical_json,
    parse_record,
    sha256_hex,
    shorten,
)
from deploy.releases.partial import discard
from deploy.releases.split import Digest

RELEASES = "releases"
INCOMING = "incoming"
INSTALLED = "installed.json"
BUNDLE = "bundle"
_MAX_RECORD = 64 << 10
STALE_SECONDS = 7 * 86_400.0


class Origin(Record):
    """Where a release came from. source: URL or path. tag: the validator that a server gave with it. at: Unix seconds.

    signed_by: fingerprint of the pinned key whose signature was checked, None where unsigned was allowed.
    """

    source: str
    tag: str | None = None
    signed_by: str | None
    at: FiniteFloat


class Installed(Origin):
    """One installed release. size_bytes: of its files."""

    version: Literal[1] = Field(default=1, alias="schema")
    digest: Digest
    name: str
    size_bytes: Annotated[int, Field(ge=0)]

    @property
    def release(self) -> str:
        """Name and short digest, as `Bundle.release` says it."""
        return f"{self.name}@{self.digest[:12]}"


class Shelf:
    """The releases below `root`, and the scratch space where they are made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / INCOMING
        self._releases = root / RELEASES

    def make(self) -> None:
        """Make the folders. Raises OSError."""
        disk.make_folder(self._releases)
        disk.make_folder(self.incoming)

    def folder(self, digest: str) -> Path:
        """Where the bundle of a release lies."""
        return self._releases / digest / BUNDLE

    def find(self, digest: str) -> Installed | None:
        """What is known of a release, None where it is not installed."""
        try:
            with (self._releases / digest / INSTALLED).open("rb") as stream:
                found = parse_record(Installed, stream.read(_MAX_RECORD), INSTALLED)
        except (OSError, UsageError):
            return None
        return found if found.digest == digest else None

    def all(self) -> list[Installed]:
        """Every installed release, the newest first."""
        names = [path.name for path in self._releases.iterdir()] if self._releases.is_dir() else []
        found = [release for name in sorted(names) if (release := self.find(name)) is not None]
        return sorted(found, key=lambda release: release.at, reverse=True)

    def named(self, wanted: str) -> Installed:
        """The one release that `wanted` means: `name@digest`, or the beginning of a digest. Raises UsageError."""
        digest = wanted.rpartition("@")[2].removeprefix("sha256:").lower()
        found = [release for release in self.all() if len(digest) >= 4 and release.digest.startswith(digest)]
        if len(found) != 1:
            here = ", ".join(release.release for release in self.all()[:5]) or "none"
            what = "means several releases" if found else "no such release"
            raise UsageError(f"{self.root}: {what}; installed: {here} (got {shorten(wanted)})")
        return found[0]

    def scratch(self) -> Path:
        """A new empty folder in `incoming`."""
        folder = self.incoming / f"work-{secrets.token_hex(8)}"
        disk.make_folder(folder)
        return folder

    def take(self, source: Path, key: Path | None, scratch: Path) -> Bundle:
        """Copy the bundle `source` (folder or archive) below `scratch` and verify the copy. Raises as `open_bundle`."""
        target = scratch / BUNDLE
        disk.make_folder(target)
        if source.is_dir():
            listed = open_bundle(source, key)
            for name in (MANIFEST, SIGNATURE, *listed.manifest.files):
                if (source / name).exists():
                    disk.copy_new(source / name, target / name)
            source = target
        return open_bundle(source, key, unpack_to=target)

    def place(self, bundle: Bundle, scratch: Path, origin: Origin) -> Installed:
        """Make the verified bundle below `scratch` a release, in one step. Raises OSError."""
        size = sum(path.stat().st_size for path in bundle.folder.iterdir())
        digest = bundle.digest.removeprefix("sha256:")
        release = Installed(digest=digest, name=bundle.manifest.name, size_bytes=size, **origin.model_dump())
        disk.write_new(scratch / INSTALLED, canonical_json(release.model_dump(mode="json", by_alias=True)))
        disk.sync_tree(scratch)
        if (self._releases / digest).exists():
            self._repair(bundle, digest, scratch)
        else:
            disk.move(scratch, self._releases / digest)
        return release

    def intact(self, digest: str) -> Bundle | None:
        """The release's bundle where every byte is still as it was signed, else None."""
        with contextlib.suppress(SlimrecError, OSError):
            bundle = open_bundle(self.folder(digest))
            if bundle.digest == f"sha256:{digest}":
                return bundle
        return None

    def check_name(self, digest: str) -> None:
        """Raises GateError where a release's manifest is not the one that it is named after."""
        path = self.folder(digest) / MANIFEST
        try:
            with path.open("rb") as stream:
                got = sha256_hex(stream.read(MAX_MANIFEST_BYTES + 1))
        except OSError as error:
            raise GateError(f"{path}: cannot be read ({error.strerror or error})") from None
        if got != digest:
            raise GateError(f"{path}: SHA-256 must be {digest[:12]}... (got {got[:12]}...)")

    def remove(self, digest: str) -> None:
        """Take a release away: it is gone in one step, its files after that."""
        gone = self.scratch()
        disk.move(self._releases / digest, gone / digest)
        disk.remove(gone)

    def clear_scratch(self, now: float) -> None:
        """Remove what interrupted commands left in `incoming`, and downloads that nobody went on with for a week."""
        for path in self.incoming.glob("work-*"):
            disk.remove(path)
        for path in self.incoming.glob(f"*{disk.PARTIAL}"):
            if now - path.stat().st_mtime > STALE_SECONDS:
                discard(path)

    def _repair(self, bundle: Bundle, digest: str, scratch: Path) -> None:
        # File by file, each in one step: the release may be the active one, and is at no time absent.
        target = self.folder(digest)
        disk.make_folder(target)
        for path in target.iterdir():
            if not (bundle.folder / path.name).is_file():
                disk.remove(path)
        for path in sorted(bundle.folder.iterdir()):
            wanted = path.read_bytes()
            there = target / path.name
            if not there.is_file() or sha256_hex(there.read_bytes()) != sha256_hex(wanted):
                if there.is_dir():
                    disk.remove(there)
                disk.move(path, there)
        disk.move(scratch / INSTALLED, self._releases / digest / INSTALLED)
        disk.remove(scratch)
