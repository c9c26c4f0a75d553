"""Releases on a device, as an operator changes them: install, activate, roll back, experiment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy import disk
from deploy.bundle import open_bundle
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.releases import fetch as http
from deploy.releases.health import check_health
from deploy.releases.partial import discard, read_note
from deploy.releases.pointer import LOCK, Pointer, read_pointer, write_pointer
from deploy.releases.shelf import BUNDLE, Installed, Origin, Shelf
from deploy.releases.split import Experiment
from deploy.signing import load_public

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
        A release that is here already is left as it is, or repaired, and not fetched where the server says that it has
        not changed. Raises UsageError (malformed, unreachable, no room, another install under way) or GateError
        (signature, digest, golden answers); nothing is then installed.
        """
        if keep < 1:
            raise UsageError(f"keep: must be at least 1 (got {keep})")
        if key is not None:
            load_public(key)  # a mistake in it is known before anything is fetched
        with self._changing(), self._alone_in_incoming():
            self._shelf.clear_scratch(self._clock())
            if isinstance(source, str) and http.is_url(source):
                release = self._install_url(source, key, most, progress)
            else:
                release = self._install_file(Path(source), str(source), None, key)
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

    def update(self, release: Installed) -> bool:
        """Activate a release that was just installed, unless it was gone back from; says whether it is active.

        For what runs by itself: a rollback must not be undone by the next look for updates. Raises as `activate`.
        """
        try:
            if release.digest in read_pointer(self.root).left:
                return False
        except UsageError:
            pass  # damaged: activating writes it anew
        self.activate(release.digest)
        return True

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

    def _install_url(self, url: str, key: Path | None, most: int, progress: http.Progress | None) -> Installed:
        here = next((one for one in self._shelf.all() if one.source == url and self._is_trusted(one, key)), None)
        tag = here.tag if here else None
        try:
            path = http.fetch(url, self._shelf.incoming, most=most, have=tag, progress=progress)
        except http.UnchangedError:
            assert here is not None
            return here
        note = read_note(path)
        try:
            release = self._install_file(path, url, note.tag if note else None, key)
        except SlimrecError as error:
            discard(path)  # whole, and wrong: going on from it would never end
            raise type(error)([line.replace(str(path), url) for line in error.lines]) from None
        discard(path)
        return release

    def _install_file(self, path: Path, source: str, tag: str | None, key: Path | None) -> Installed:
        scratch = self._shelf.scratch()
        try:
            bundle = self._shelf.take(path, key, scratch)
            self._health(bundle.folder)
            with self._lock():
                known = self._shelf.find(bundle.digest.removeprefix("sha256:"))
                if known is not None and self._shelf.intact(known.digest) is None:
                    known = None
                signed_by = bundle.signed_by or (known.signed_by if known else None)
                if known is not None and (known.source, known.tag, known.signed_by) == (source, tag, signed_by):
                    return known
                origin = Origin(source=source, tag=tag, signed_by=signed_by, at=self._clock())
                return self._shelf.place(bundle, scratch, origin)
        except SlimrecError as error:
            lines = [line.replace(str(scratch / BUNDLE), source) for line in error.lines]
            raise type(error)(lines) from None
        finally:
            disk.remove(scratch)

    def _is_trusted(self, release: Installed, key: Path | None) -> bool:
        """Whether a release is as it was signed, by `key` where one is given."""
        try:
            return open_bundle(self._shelf.folder(release.digest), key).digest == f"sha256:{release.digest}"
        except SlimrecError:
            return False

    def _check(self, release: Installed) -> None:
        if self._shelf.intact(release.digest) is None:
            folder = self._shelf.folder(release.digest)
            raise GateError(f"{folder}: not the bytes that were installed; `slimrec release install` repairs them")
        self._health(self._shelf.folder(release.digest))

    def _prune(self, keep: int, new: str) -> None:
        with self._lock():
            releases = [release.digest for release in self._shelf.all()]
            try:
                pointer = read_pointer(self.root)
            except UsageError:
                return  # damaged: what is needed is not known
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
