"""A disk whose power fails at the n-th call that changes it: stands in for `os` in `deploy.disk`.

What a file system owes after a power cut: a file's bytes as they were when it was last synced, a folder's names as they
were when *it* was. What was not synced may be there or not. At the cut, four disks are written that a machine may find
when it starts again: names and bytes each either all there or only as far as they were synced. (Names there and bytes
not is the empty file after a careless rename.) After the cut every further call fails, so no clean-up runs.
"""

# ruff: noqa: PTH102, PTH104, PTH106, PTH108 (it stands in for `os`)

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

import pytest

CHANGING = ("write", "fsync", "rename", "mkdir", "unlink", "rmdir", "ftruncate")


World = dict[str, bytes | None]  # path -> bytes of a file, None for a folder; parents first


class PowerCutError(BaseException):
    """Not an Exception: no handler of the code under test may take it for one."""


class FailingDisk:
    """`os` for a folder below which everything is on the disk when this begins."""

    def __init__(self, root: Path, cut_at: int) -> None:
        self._root, self._cut_at = root, cut_at
        self.worlds: list[World] = []
        self.calls, self.dead = 0, False
        self._held: dict[
            int, int
        ] = {}  # inode -> descriptor: what is removed can still be read, and no number is used twice
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._learn(root)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            self._step()
        return os.open(path, flags, mode)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._step(torn=lambda: os.write(descriptor, data[: len(data) // 2]))
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._step()
        self._sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        os.rename(source, target)

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        self._step()
        os.mkdir(path, mode)

    def unlink(self, path: Path) -> None:
        self._step()
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        self._step()
        os.rmdir(path)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._step()
        os.ftruncate(descriptor, size)

    def close_all(self) -> None:
        """Let go of the files that were held."""
        for descriptor in self._held.values():
            os.close(descriptor)

    def _step(self, torn: Callable[[], object] = lambda: None) -> None:
        if self.dead:
            raise PowerCutError
        self.calls += 1
        if self.calls == self._cut_at:
            torn()
            self.cut()

    def cut(self) -> NoReturn:
        """The power fails now."""
        self.dead = True
        for names, content in product(("all", "synced"), repeat=2):
            world: World = {}
            self._gather(world, self._root.stat().st_ino, "", names, content)
            if world not in self.worlds:
                self.worlds.append(world)
        raise PowerCutError

    def _hold(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)
        return inode

    def _learn(self, folder: Path) -> None:
        """Take all below `folder` as synced."""
        inode = self._hold(folder)
        self._names[inode] = {}
        for path in folder.iterdir():
            child = self._hold(path)
            self._names[inode][path.name] = child
            if path.is_dir():
                self._learn(path)
            else:
                self._bytes[child] = path.read_bytes()

    def _sync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        inode = os.fstat(descriptor).st_ino
        if path.is_dir():
            self._hold(path)
            self._names[inode] = {child.name: self._hold(child) for child in path.iterdir()}
        else:
            self._hold(path)
            self._bytes[inode] = path.read_bytes()

    def _gather(self, world: World, inode: int, below: str, names: str, content: str) -> None:
        held = self._held[inode]
        if names == "all":
            place = Path(f"/proc/self/fd/{held}").readlink()
            children = {path.name: self._hold(path) for path in place.iterdir()}
        else:
            children = self._names.get(inode, {})
        for name, child in sorted(children.items()):
            descriptor, path = self._held[child], f"{below}/{name}" if below else name
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                world[path] = None
                self._gather(world, child, path, names, content)
            else:
                synced = content == "synced"
                world[path] = self._bytes.get(child, b"") if synced else os.pread(descriptor, status.st_size, 0)


def power_cuts(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Path], object], act: Callable[[Path], object]
) -> Iterator[tuple[int, bool, Path]]:
    """(number of the call, whether `act` was done, folder as found after the cut) for every call that changes the disk.

    Up to four folders a call; those that are the same as one before, byte for byte, are left out.
    prepare: fills a fresh folder; it is on the disk before `act` begins. The last cut is when `act` is done.
    """
    cut_at, done, seen = 0, False, set[tuple[str, bool]]()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as scratch:
        while not done:
            cut_at += 1
            root = Path(scratch) / f"cut-{cut_at}"
            root.mkdir()
            prepare(root)
            failing = FailingDisk(root, cut_at)
            with monkeypatch.context() as patch:
                patch.setattr("deploy.disk.os", failing)
                try:
                    act(root)
                    done = True
                    failing.cut()
                except PowerCutError:
                    pass
                finally:
                    failing.close_all()
            shutil.rmtree(root)
            for world in failing.worlds:
                if (found := (_digest(world), done)) not in seen:
                    seen.add(found)
                    after = write_world(world, Path(scratch) / f"after-{len(seen)}")
                    yield cut_at, done, after
                    shutil.rmtree(after)


def _digest(world: World) -> str:
    digest = hashlib.sha256()
    for path, data in world.items():
        # Scratch folders have random names, and what is in one is never read: that it is there is all that counts.
        name, inside = re.subn(r"work-[0-9a-f]+", "work", path)
        if not inside or path.count("/") < 2:
            digest.update(f"{name}\n{-1 if data is None else len(data)}\n".encode() + (data or b""))
    return digest.hexdigest()


def write_world(world: World, folder: Path) -> Path:
    """Make the new folder `folder` hold what was found after a cut, and return it."""
    folder.mkdir()
    for path, data in world.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
    return folder
