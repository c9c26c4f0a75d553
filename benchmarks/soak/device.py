"""The device under test: two signed releases of one bundle, `slimrec serve` as a process, and what it keeps."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.soak.load import Found, Phase, Spec
from deploy.bundle import Bundle, open_bundle, write_bundle
from deploy.errors import SlimrecError
from deploy.releases import Releases
from deploy.signing import new_key
from deploy.tables import read_items

FEEDBACK_MB = 4096
"""Room for every record of a soak, so that the log drops nothing that is looked for afterwards."""
_READY_SECONDS, _PAUSE = 60.0, 0.02


@dataclass(frozen=True)
class Device:
    """A folder as an operator has it: releases, a pinned key, state and feedback."""

    folder: Path
    releases: tuple[str, str]
    key: Path

    @property
    def root(self) -> Path:
        """The releases folder."""
        return self.folder / "releases"

    @property
    def feedback(self) -> Path:
        """The feedback log."""
        return self.folder / "feedback"

    def release(self, *arguments: str) -> float:
        """`slimrec release ...` as an operator calls it; seconds. Raises SlimrecError where it fails."""
        start = time.perf_counter()
        done = subprocess.run(slimrec("release", *arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SlimrecError(f"slimrec release {' '.join(arguments)}: {done.stderr.strip()}")
        return time.perf_counter() - start


def slimrec(*arguments: object) -> list[str]:
    """The command line, of this very code."""
    return [sys.executable, "-P", "-m", "deploy", *map(str, arguments)]


def prepare(bundle: Path, folder: Path) -> Device:
    """Sign `bundle` twice, its card changed once, with a new key, and install both; the first is active."""
    source = open_bundle(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    key = new_key(folder / "vendor")
    releases = Releases(folder / "releases")
    digests = []
    for number in (1, 2):
        card = source.read("card.md") + f"\nRelease {number} of the soak.\n".encode()
        archive = _sign(source, card, folder / f"made{number}", folder / "vendor")
        digests.append(releases.install(archive, key).digest)
    releases.activate(digests[0])
    return Device(folder, (digests[0], digests[1]), key)


def _sign(source: Bundle, card: bytes, out: Path, private_key: Path) -> Path:
    files: dict[str, Path | bytes] = {name: source.path(name) for name in source.manifest.files}
    manifest = source.manifest
    model = manifest.model.model_dump(mode="json")
    separators = manifest.list_separators
    write_bundle(
        files | {"card.md": card},
        out,
        name=manifest.name,
        model=model,
        list_separators=separators,
        private_key=private_key,
    )
    return out / "bundle.slim"


@dataclass
class Memory:
    """The server's resident set, once a second: `seconds` since the start, `mb` (10^6 bytes)."""

    seconds: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)

    def take(self, pid: int, since: float) -> None:
        """One more sample; none of a process that is gone."""
        with contextlib.suppress(OSError, IndexError):
            pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
            self.mb.append(round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 3))
            self.seconds.append(round(time.perf_counter() - since, 3))


@dataclass(frozen=True)
class Server:
    """`slimrec serve` at work."""

    process: subprocess.Popen[str]
    port: int
    first_answer_s: float
    started: float
    memory: Memory

    def get(self, path: str) -> bytes:
        """What a GET answers. Raises OSError."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = self.get("/metrics").decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def statuses(self) -> dict[str, int]:
        """How many answers of each status it has given."""
        found: Counter[str] = Counter()
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith("slimrec_requests_total{"):
                found[line.partition('status="')[2].partition('"')[0]] += int(float(line.rpartition(" ")[2]))
        return dict(sorted(found.items()))

    def status(self) -> dict[str, Any]:
        """The answer of /healthz."""
        found: dict[str, Any] = json.loads(self.get("/healthz"))
        return found


@contextlib.contextmanager
def serving(device: Device, log: Path) -> Iterator[Server]:
    """A server of the active release, from the first answer on; its memory is sampled once a second."""
    stopped, memory = threading.Event(), Memory()
    command = slimrec(
        *("serve", device.root, "--key", device.key, "--port", 0),
        *("--state", device.folder / "state", "--feedback", device.feedback, "--feedback-mb", FEEDBACK_MB),
    )
    started = time.perf_counter()
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            banner = process.stdout.readline()
            if not banner:
                raise SlimrecError(f"slimrec serve: {log.read_text('utf-8').strip()}")
            port = int(banner.rpartition(":")[2])
            _wait_for_an_answer(port)
            server = Server(process, port, time.perf_counter() - started, started, memory)

            def sample() -> None:
                while not stopped.wait(1.0):
                    memory.take(process.pid, started)

            memory.take(process.pid, started)
            sampler = threading.Thread(target=sample, daemon=True)
            sampler.start()
            yield server
        finally:
            stopped.set()
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def _wait_for_an_answer(port: int) -> None:
    stop = time.perf_counter() + _READY_SECONDS
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=_READY_SECONDS):
                return
        except (URLError, ConnectionError):
            if time.perf_counter() > stop:
                raise
            time.sleep(_PAUSE)


class Generator:
    """The load generator's process."""

    def __init__(self, server: Server, device: Device, bundle: Path) -> None:
        opened = open_bundle(bundle)
        items = read_items(opened.path("items.item"))
        self.acknowledged = device.folder / "acknowledged"
        spec = Spec(
            port=server.port,
            items=list(items.ids),
            max_history=opened.manifest.model.max_history,
            acknowledged=str(self.acknowledged),
            attributes=list(items.attributes),
        )
        path = device.folder / "spec.json"
        path.write_text(spec.to_json(), "utf-8")
        command = [sys.executable, "-P", "-m", "benchmarks.soak.load", str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, phase: Phase) -> None:
        """Begin a phase; `finish` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(phase.to_json() + "\n")
        self._process.stdin.flush()

    def finish(self) -> Found:
        """What the phase that was begun came to. Raises SlimrecError where the generator died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SlimrecError("the load generator ended")
        return Found.model_validate_json(line)

    def run(self, phase: Phase) -> Found:
        """A phase from its beginning to its end."""
        self.start(phase)
        return self.finish()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
