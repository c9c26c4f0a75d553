"""`kill -9` at twenty random moments, and two runs at once: the same files as an uninterrupted run."""

import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.result import Result

ROOT = Path(__file__).parents[1]
KILLS, PER_STORE, SEED = 20, 4, 20
pytestmark = pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")

# Imports what a run needs once, then forks for every command line it reads: all the moments fall into real work, none
# into the seconds that importing takes.
SERVER = """
import os, sys
import compress.run
from deploy.cli import run_command

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        os._exit(run_command(line.rstrip("\\n").split("\\t")))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Forks:
    """Runs command lines in forks of one process that has imported everything."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def run(self, arguments: list[str], kill_after_s: float | None = None) -> int:
        """The wait status: 9 where the kill came before the end, else 256 times the exit code."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write("\t".join(arguments).encode() + b"\n")
        child = int(stdout.readline())
        if kill_after_s is not None and not select.select([stdout], [], [], kill_after_s)[0]:
            os.kill(child, signal.SIGKILL)
        return int(stdout.readline())


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    started = Forks()
    yield started
    assert started.process.stdin is not None and started.process.stdout is not None
    started.process.stdin.close()
    started.process.wait(timeout=30)
    started.process.stdout.close()


def command(out: Path, store: Path, jobs: int = 1) -> list[str]:
    folders = ["--out", str(out), "--store", str(store)]
    return ["run", "recipes/tiny.yaml", *folders, "--threads", "1", "--jobs", str(jobs)]


def damaged(store: Path) -> list[str]:
    """Files of sealed artifacts that are not what their seal says."""
    found = []
    for path in store.glob("*/*/seal.json"):
        sealed = json.loads(path.read_text())["files"]
        present = {p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*") if p.is_file()}
        found += [f"{path.parent}/{name}" for name in (present ^ {*sealed, "seal.json"})]
        for name, facts in sealed.items():
            if hashlib.sha256((path.parent / name).read_bytes()).hexdigest() != facts["sha256"]:
                found.append(f"{path.parent}/{name}")
    return found


def test_twenty_kills_change_no_file(forks, tiny_run, tmp_path):
    """Moments are drawn uniformly over an uninterrupted run's time; up to four in a row hit each store, which then
    finishes. A run that ends before its moment, the machine being idler than before, is compared all the same."""
    start = time.monotonic()
    assert forks.run(command(tmp_path / "out", tmp_path / "whole")) == 0
    whole_s = time.monotonic() - start
    rng, killed = random.Random(SEED), 0
    interrupted: set[str] = set()
    for number in range(4 * KILLS // PER_STORE):
        if killed == KILLS:
            break
        out, store = tmp_path / f"out{number}", tmp_path / f"store{number}"
        moments = sorted(rng.uniform(0, whole_s) for _ in range(min(PER_STORE, KILLS - killed)))
        start = time.monotonic()
        for before, moment in zip([0.0, *moments], moments, strict=False):
            status = forks.run(command(out, store), kill_after_s=moment - before)
            if status == 0:
                whole_s = min(whole_s, time.monotonic() - start)
                break
            assert status == signal.SIGKILL
            killed += 1
            assert damaged(store) == []
            interrupted |= {path.parent.name for path in store.glob("*/*.partial")}
        assert forks.run(command(out, store)) == 0
        assert damaged(store) == [] and not list(store.glob("*/*.partial/*"))
        done = replace(tiny_run, out=out, store=store)
        assert done.digests() == tiny_run.digests()
        assert done.shipped() == tiny_run.shipped()
        assert {path.name for path in out.iterdir()} == {
            "result.json",
            "ranks.npz",
            "report.html",
            "bundle.slim",
            "bundle",
        }
        assert Result.model_validate_json((out / "result.json").read_text()).selected == tiny_run.result.selected
    assert killed == KILLS
    assert len(interrupted) >= 4, f"the moments must hit several stages (got {interrupted})"


def test_a_kill_while_the_output_is_written_leaves_old_or_new_files(forks, tiny_run, tmp_path):
    """Everything is sealed, so that the whole run is reading seals and writing the output folder."""
    out, store = tmp_path / "out", shutil.copytree(tiny_run.store, tmp_path / "store")
    start = time.monotonic()
    assert forks.run(command(out, store)) == 0
    whole_s = time.monotonic() - start
    for share in (0.3, 0.5, 0.7, 0.9):
        forks.run(command(out, store), kill_after_s=share * whole_s)
        Result.model_validate_json((out / "result.json").read_text())
        assert (out / "report.html").read_text().rstrip().endswith("</html>")
    assert forks.run(command(out, store)) == 0
    assert replace(tiny_run, out=out).shipped() == tiny_run.shipped()
    assert {path.name for path in out.iterdir()} == {"result.json", "ranks.npz", "report.html", "bundle.slim", "bundle"}


def test_two_runs_at_once_on_one_store(tiny_run, tmp_path):
    store = tmp_path / "store"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "deploy", *command(tmp_path / name, store)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert damaged(store) == []
    for name in ("one", "two"):
        done = replace(tiny_run, out=tmp_path / name, store=store)
        assert done.digests() == tiny_run.digests()
        assert done.shipped() == tiny_run.shipped()
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert one["models"] == two["models"] and one["bundle"] == two["bundle"]
    built = [sum(not stage["cached"] for stage in result["stages"]) for result in (one, two)]
    assert sum(built) == sum(not stage.cached for stage in tiny_run.result.stages)


def test_a_killed_run_takes_its_workers_along(tiny_run, tmp_path):
    """Three at work; the next run finds every lock free and ends in the same files."""
    out, store = tmp_path / "out", tmp_path / "store"
    line = [sys.executable, "-m", "deploy", *command(out, store, jobs=3)]
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        while "distil control" not in first.stderr.readline():  # the walk has begun, the workers have something to do
            assert first.poll() is None
        first.kill()
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert damaged(store) == []
    again = replace(tiny_run, out=out, store=store)
    assert again.digests() == tiny_run.digests()
    assert again.shipped() == tiny_run.shipped()
