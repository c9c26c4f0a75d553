"""Releases on a device, as an operator changes them: install, activate, roll back, experiment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy import disk
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.releases import fetch as http
from deploy.releases.health import check_health
from deploy.releases.partial import discard
from deploy.releases.pointer import LOCK, Pointer, read_pointer, write_pointer
from deploy.releases.shelf import Installed, Shelf
from deploy.releases.split import Experiment

KEEP = 4

Health = Callable[[Path], None]


class Releases:
    """A folder of releases. Safe to use from several processes; every change is one atomic step."""

    def __init__(self, root: Path, *, health: Health = check_health, clock: Callable[[], float] = time.time) -> None:
        """root: the folder; nothing is touched yet. health: raises SlimrecError where a bundle is not well here."""
        self.root = root
        self._health, self._clock = health, clock
        self._shelf = Shelf(root)

    def install(
        self,
        source: str | Path,
        key: Path | None,
        *,
        keep: int = KEEP,
        most: int = http.MAX_FETCH_BYTES,
        progress: http.Progress | None = None,
    ) -> Installed:
        """Fetch `source` (URL, archive or folder), verify it, and only then make it visible. The active one stays.

        key: the pinned public key's PEM file; None where the operator allows unsigned releases. keep: how many releases
        may be here afterwards; of the rest all go but the active one, the one before it, this one and an experiment's.
        most: bytes that are fetched at most.
        A release that is here already is left as it is, or repaired. Raises UsageError (malformed, unreachable, no
        room, another install under way) or GateError (signature, digest, golden answers); nothing is then installed.
        """
        if keep < 1:
            raise UsageError(f"keep: must be at least 1 (got {keep})")
        with self._changing(), self._alone_in_incoming():
            self._shelf.clear_scratch()
            fetched = None
            if isinstance(source, str) and http.is_url(source):
                fetched = http.fetch(source, self._shelf.incoming, most=most, progress=progress)
            scratch = self._shelf.scratch()
            try:
                bundle = self._shelf.take(fetched or Path(source), key, scratch)
                self._health(bundle.folder)
            except SlimrecError as error:
                disk.remove(scratch)
                if fetched is None:
                    raise
                discard(fetched)  # whole, and wrong: going on from it would never end
                lines = [line.replace(str(fetched), str(source)) for line in error.lines]
                raise type(error)(lines) from None
            with self._lock():
                release = self._shelf.find(bundle.digest.removeprefix("sha256:"))
                if release is None or self._shelf.intact(release.digest) is None:
                    release = self._shelf.place(bundle, scratch, str(source), self._clock())
            disk.remove(scratch)
            if fetched is not None:
                discard(fetched)
            self._prune(keep, release.digest)
        return release

    def activate(self, wanted: str) -> Installed:
        """Make an installed release the active one, if it is well on this device now.

        wanted: `name@digest` or the beginning of a digest. Raises UsageError where there is no such release, GateError
        where it is not well: the pointer then stays at the last good one.
        """
        release = self._shelf.named(wanted)
        self._check(release)
        with self._changing(), self._lock():
            if self._shelf.find(release.digest) is None:
                raise UsageError(f"{self.root}: {release.release} was removed meanwhile")
            try:
                pointer = read_pointer(self.root)
            except UsageError:
                pointer = Pointer()  # damaged: this is how it is made anew
            if pointer.active != release.digest:
                write_pointer(self.root, pointer.activated(release.digest))
        return release

    def rollback(self) -> Installed:
        """Go back to the release that was active before, or the last one before that which is well here.

        Raises UsageError where there was none, GateError where none is well; the pointer then stays.
        """
        before = read_pointer(self.root)
        failed: list[str] = []
        for digest in before.good:
            release = self._shelf.find(digest)
            try:
                if release is None:
                    raise GateError(f"{digest[:12]}: not installed")
                self._check(release)
            except SlimrecError as error:
                failed += error.lines
                continue
            with self._changing(), self._lock():
                pointer = read_pointer(self.root)
                if pointer.serial != before.serial:
                    raise UsageError(
                        f"{self.root}: another command changed the active release meanwhile; look at status"
                    )
                write_pointer(self.root, pointer.returned(digest, "rolled back"))
            return release
        if failed:
            raise GateError(failed)
        raise UsageError(f"{self.root}: no release to go back to")

    def experiment(self, experiment: Experiment | None) -> None:
        """Begin an experiment beside the active release, or end it (None). Raises as `activate`."""
        for digest in sorted(experiment.digests() if experiment else ()):
            self._check(self._shelf.named(digest))
        with self._changing(), self._lock():
            pointer = read_pointer(self.root)
            if experiment and (pointer.active is None or pointer.active in experiment.digests()):
                raise UsageError(
                    f"{self.root}: an experiment needs an active release, which is not one of its candidates"
                )
            write_pointer(self.root, pointer.experimenting(experiment))

    def pointer(self) -> Pointer:
        """What is active now; a server that sees another `serial` opens it. Raises UsageError."""
        return read_pointer(self.root)

    def installed(self) -> list[Installed]:
        """Every installed release, the newest first."""
        return self._shelf.all()

    def named(self, wanted: str) -> Installed:
        """The installed release that `wanted` means: `name@digest`, or the beginning of a digest. Raises UsageError."""
        return self._shelf.named(wanted)

    def folder(self, digest: str) -> Path:
        """Where the bundle of an installed release lies."""
        return self._shelf.folder(digest)

    def _check(self, release: Installed) -> None:
        if self._shelf.intact(release.digest) is None:
            folder = self._shelf.folder(release.digest)
            raise GateError(f"{folder}: not the bytes that were installed; `slimrec release install` repairs them")
        self._health(self._shelf.folder(release.digest))

    def _prune(self, keep: int, new: str) -> None:
        with self._lock():
            releases = [release.digest for release in self._shelf.all()]
            pointer = read_pointer(self.root)
            needed = [new, *pointer.needs()]
            kept = set(list(dict.fromkeys([*needed, *pointer.good, *releases]))[: max(keep, len(set(needed)))])
            for digest in releases:
                if digest not in kept:
                    self._shelf.remove(digest)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make the folders; whatever the file system refuses becomes one line."""
        try:
            self._shelf.make()
            yield
        except OSError as error:
            where = error.filename or self.root
            raise UsageError(f"{where}: cannot be written ({error.strerror or error})") from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with disk.lock(self.root / LOCK):
            yield

    @contextmanager
    def _alone_in_incoming(self) -> Iterator[None]:
        with disk.lock(self._shelf.incoming / "lock", wait=False) as held:
            if not held:
                raise UsageError(f"{self.root}: another install is under way; wait for it, or end it")
            yield
