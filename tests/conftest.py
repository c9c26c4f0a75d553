"""Runs of the tiny recipe, shared by all tests. Nothing heavy is imported before a test asks for one."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny.yaml"
MEASURED = ("bench", "select", "pack")  # what depends on timings
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass
class TinyRun:
    """What one finished run left: its folders, its result and what it said."""

    out: Path
    store: Path
    result: Any
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)

    def digests(self) -> dict[str, str]:
        """`stage/key` -> content digest of every artifact that owes nothing to a timing."""
        seals = [json.loads(path.read_text()) | {"at": path.parent} for path in self.store.glob("*/*/seal.json")]
        return {f"{s['stage']}/{s['at'].name}": s["digest"] for s in seals if s["stage"] not in MEASURED}

    def shipped(self) -> dict[str, str]:
        """SHA-256 of every file of the bundle but those that tell measured times, or their digests."""
        timed = ("evidence.json", "card.md", "sbom.cdx.json", "manifest.json")
        files = [p for p in (self.out / "bundle").iterdir() if p.name not in timed]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


RunTiny = Callable[..., TinyRun]


def run_tiny(out: Path, store: Path, *overrides: str, watch: bool = False, jobs: int = 1) -> TinyRun:
    """Run the tiny recipe in this process, with a progress bar of its own where somebody watches."""
    from compress.run import run
    from compress.stage import RunOptions

    done = TinyRun(out, store, None)

    def progress(items: Iterable[Any], what: str, _total: int | None) -> Iterator[Any]:
        done.watched.append(what)
        yield from items

    options = RunOptions(threads=1, log=done.log.append)
    if watch:
        options = replace(options, progress=progress)
    start = time.monotonic()
    done.result = run(TINY, out, overrides=overrides, store=store, options=options, jobs=jobs)
    done.seconds = time.monotonic() - start
    return done


@pytest.fixture(scope="session")
def tiny_runner() -> RunTiny:
    """`run_tiny`, for folders and overrides of one's own."""
    return run_tiny


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One finished run that nobody changes."""
    folder = tmp_path_factory.mktemp("tiny")
    return run_tiny(folder / "out", folder / "store")


@pytest.fixture(scope="session")
def second_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The same once more, with folders of its own, and watched."""
    folder = tmp_path_factory.mktemp("second")
    return run_tiny(folder / "out", folder / "store", watch=True)


@pytest.fixture
def tiny_store(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A copy of the finished run's store, to change."""
    return shutil.copytree(tiny_run.store, tmp_path / "store")


@pytest.fixture
def rerun(tmp_path: Path, tiny_store: Path) -> RunTiny:
    """Runs the tiny recipe with overrides on a copy of the finished store."""
    return lambda *overrides: run_tiny(tmp_path / "out", tiny_store, *overrides)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs a command line that must fail with `code`; returns its lines on stderr."""
    from deploy.cli import run_command

    def run(code: int, *arguments: object) -> list[str]:
        found = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert found == code, captured.err
        assert captured.out == "" and "Traceback" not in captured.err
        return captured.err.splitlines()

    return run
