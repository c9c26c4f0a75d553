"""docs/OPERATIONS.md, followed: every command of the page is run, in its order, in a new folder.

`make test-operations` does so with a wheel in an environment of its own (SLIMREC_COMMAND).
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deploy.bundle import Bundle, write_bundle
from deploy.manifest import canonical_json
from tests.deploy.conftest import model_section
from tests.deploy.serving import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "OPERATIONS.md").read_text("utf-8")
COMMAND = shlex.split(os.environ.get("SLIMREC_COMMAND", f"{sys.executable} -m deploy"))
ADDRESS, FOLDER, SECOND, PORT = (
    "https://models.example.com/shop/bundle.slim",
    "/var/lib/slimrec",
    "3f2a9c1d77e0",
    "8080",
)
USERS = 40


def commands(text: str) -> list[str]:
    """The lines of all fenced blocks without a language."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for language, block in blocks if not language for line in block.splitlines()]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def published(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder that a web server shows, and its address."""
    folder = tmp_path / "published"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/bundle.slim"
        server.shutdown()
        thread.join()


class Operator:
    """Who types the page's lines into a new folder."""

    def __init__(self, home: Path, told: dict[str, str]) -> None:
        self.home, self.told = home, told
        self.environment = os.environ | ({} if "SLIMREC_COMMAND" in os.environ else {"PYTHONPATH": str(ROOT)})

    def words(self, line: str) -> list[str]:
        for shown, meant in self.told.items():
            line = line.replace(shown, meant)
        words = shlex.split(line)
        return [*COMMAND, *words[1:]] if words[0] == "slimrec" else words

    def type(self, line: str) -> str:
        done = subprocess.run(
            self.words(line), cwd=self.home, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def serving(self, line: str) -> Iterator[subprocess.Popen[str]]:
        words = [*self.words(line), "--port", self.told[PORT]]
        with subprocess.Popen(words, cwd=self.home, env=self.environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline().startswith("serving shop@")
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def release(parts: dict[str, bytes], number: int, key: Path, out: Path) -> Bundle:
    return write_bundle(
        {**parts, "evidence.json": canonical_json({"release": number})},
        out,
        name="shop",
        model=model_section(),
        list_separators={"genre": "|"},
        private_key=key,
    )


def use(port: str) -> list[str]:
    """Users who look, and click what they see first."""
    users = [f"user-{number}" for number in range(USERS)]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
        for user in users:
            shown = client.post("/v1/recommend", json={"history": ["i3"], "user": user}).json()
            event = {"request_id": shown["request_id"], "item_id": shown["items"][0]["id"], "event": "click"}
            assert client.post("/v1/feedback", json=event).status_code == 200
    return users


def test_every_command_of_the_page_works_in_its_order(parts, published, tmp_path):
    folder, address = published
    home = tmp_path / "a new folder"
    home.mkdir()
    lines, port = commands(PAGE), str(free_port())
    operator = Operator(home, {ADDRESS: address, FOLDER: str(tmp_path / "var"), PORT: port, "USER": "user-7"})
    said: dict[str, str] = {}
    [serve] = [line for line in lines if line.startswith("slimrec serve")]
    first, rest = lines[: lines.index(serve)], lines[lines.index(serve) + 1 :]

    def publish(number: int) -> str:
        made = release(parts, number, home / "vendor", tmp_path / f"made{number}")
        shutil.copyfile(tmp_path / f"made{number}" / "bundle.slim", folder / "partial")
        os.utime(folder / "partial", (number, number))
        (folder / "partial").rename(folder / "bundle.slim")
        return made.digest.removeprefix("sha256:")[:12]

    for line in first:
        if line.startswith("slimrec release activate"):  # "in two steps, to switch at a quiet hour"
            operator.told[SECOND] = publish(2)
            [install] = [one for one in first if "release install" in one]
            operator.type(install.replace(" --activate", ""))
        said[line] = operator.type(line)
        if line == "slimrec key new vendor":
            publish(1)
    with operator.serving(serve):
        users = use(port)
        for line in rest:
            if line.startswith("curl") and shutil.which("curl") is None:
                continue
            said[line] = operator.type(line)

    def of(part: str) -> str:
        return next(text for line, text in said.items() if part in line)

    assert "shop@" in of("release install") and ": active" in of("release rollback")
    assert "begun" in of("experiment /var/lib/slimrec november") and "no experiment" in of("--stop")
    if shutil.which("curl"):
        assert json.loads(of("/v1/recommend"))["source"] == "popularity" and '"ready"' in of("/readyz")
    rows = (home / "data" / "shop" / "shop.inter").read_text("utf-8").splitlines()
    assert len(rows) == 1 + USERS and (home / "data" / "shop" / "shop.item").is_file()
    left = {json.loads(line).get("user") for line in of("feedback read").splitlines()}
    assert "user-7" not in left and set(users) - {"user-7"} <= left
    assert len(said) == len(lines) - 1 - (0 if shutil.which("curl") else 3) and len(lines) > 15


def test_the_page_shows_no_command_that_is_not_run():
    """Lines that begin like one stand in blocks that are read, beside the formula of an experiment."""
    begun = [line.strip() for line in PAGE.splitlines() if re.match(r"\s*(slimrec|curl) ", line)]
    assert begun == commands(PAGE)
    assert commands("```\nslimrec a\n```\n```yaml\nx: 1\n```\n  ```\n  curl b\n  ```\n") == ["slimrec a", "curl b"]
