"""The active release as a server opens it, or where that fails the last good one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from deploy import disk
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.releases.pointer import LOCK, TRIES, Pointer, read_pointer, write_pointer
from deploy.releases.shelf import Installed, Shelf

T = TypeVar("T")


@dataclass(frozen=True)
class Opened(Generic[T]):
    """The release that `open_active` opened. `passed_over`: one line for each that was tried before it and failed."""

    release: Installed
    value: T
    passed_over: tuple[str, ...] = ()


def open_active(root: Path, load: Callable[[Path], T]) -> Opened[T]:
    """Open the active release, or where that fails the last good one that opens, which then becomes active.

    load: opens a bundle folder, and raises SlimrecError where it refuses it (`Recommender.load` does). An active
    release is passed over, too, when opening it has ended the process `TRIES` times since it was activated. On a
    file system that takes no writes, the pointer is followed and not changed.
    Raises UsageError where nothing was ever activated, GateError where no release opens.
    """
    shelf, damaged = Shelf(root), list[str]()
    try:
        pointer = read_pointer(root)
        candidates = [*([pointer.active] if pointer.active else []), *pointer.good]
    except UsageError as error:
        # The pointer's bytes went bad: any release that was verified when it was installed is better than none.
        pointer, damaged = Pointer(), list(error.lines)
        candidates = [release.digest for release in shelf.all()]
    if not candidates:
        raise UsageError(*damaged, f"{root}: no active release; `slimrec release activate {root} RELEASE`")
    failed = list(damaged)
    for digest in candidates:
        release = shelf.find(digest)
        unproven = digest == pointer.active and not pointer.confirmed
        if release is None:
            failed.append(f"{digest[:12]}: not installed")
            continue
        if unproven and pointer.tries >= TRIES:
            failed.append(f"{release.release}: never opened in {TRIES} tries since it was activated")
            continue
        if unproven:
            _note(root, pointer, pointer.trying())
        try:
            shelf.check_name(digest)
            value = load(shelf.folder(digest))
        except (SlimrecError, SystemExit, KeyboardInterrupt) as error:
            # Refused or stopped in good order: that is no try, which are for what ends the process unasked.
            if unproven:
                _note(root, pointer, pointer)
            if not isinstance(error, SlimrecError):
                raise
            failed += [f"{release.release}: {line}" for line in error.lines]
            continue
        if unproven:
            _note(root, pointer, pointer.worked())
        elif digest != pointer.active:
            _note(root, pointer, pointer.returned(digest, f"returned by itself: {failed[-1]}").worked())
        return Opened(release, value, tuple(failed))
    raise GateError(failed)


def _note(root: Path, before: Pointer, after: Pointer) -> None:
    """Change the pointer unless a command changed it since `before`; a read-only folder is left as it is."""
    try:
        with disk.lock(root / LOCK):
            try:
                now = read_pointer(root)
            except UsageError:
                now = Pointer()
            if now.serial == before.serial and now.active == before.active:
                write_pointer(root, after)
    except OSError:
        return
