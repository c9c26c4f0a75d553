"""Writes that survive power loss, and one lock per folder. POSIX.

A write is durable once its file was synced, a name once its folder was; before that a power cut may leave the
old or the new. Everything here orders the two so that a reader finds one whole state. All of it goes through this
module's `os`, which the tests replace by one that cuts the power at every call.
"""

# ruff: noqa: PTH102, PTH104, PTH106, PTH108 (pathlib's methods have an `os` of their own)

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"  # what a file is called until it is whole


def write_new(path: Path, data: bytes) -> None:
    """Write a file and sync it; its name is durable after `sync_folder`. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: a reader, or a power cut, finds the old file or the new one."""
    partial = path.with_name(path.name + PARTIAL)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    write_new(partial, data)
    move(partial, path)


def write_all(descriptor: int, data: bytes) -> None:
    """All of `data` at the descriptor's place; a file system may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def move(source: Path, target: Path) -> None:
    """Rename `source` (already synced) to `target` in one step, durably. A file there is replaced."""
    os.rename(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def open_for_append(path: Path) -> int:
    """A descriptor that appends to `path`, made where there is none; its name is durable after `sync_folder`."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)


def size_of(descriptor: int) -> int:
    """The size in bytes of an open file."""
    return os.fstat(descriptor).st_size


def sync(descriptor: int) -> None:
    """Make durable what was written to an open file."""
    os.fsync(descriptor)


def cut(descriptor: int, size: int) -> None:
    """Make an open file `size` bytes long, durably."""
    if size_of(descriptor) != size:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder where there is none, its parents too, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make durable what other code wrote below `folder`; the folder's own name is the caller's."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            sync_tree(path)
        else:
            sync_file(path)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Make durable what other code wrote to a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_new(source: Path, target: Path) -> None:
    """Copy a file's bytes to a new name; `sync_tree` makes them durable."""
    with source.open("rb") as stream:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            while chunk := stream.read(1 << 20):
                write_all(descriptor, chunk)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a whole folder; what is gone stays gone after `sync_folder` of its parent."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            for inner in path.iterdir():
                remove(inner)
            os.rmdir(path)
        else:
            os.unlink(path)


def free_bytes(folder: Path) -> int:
    """What the file system of `folder` still takes."""
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` alone, among all processes and threads; it falls with its holder.

    Yields True; without `wait` False, at once and without holding it, where another holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(descriptor)
