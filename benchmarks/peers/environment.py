"""A peer's environment: built once by pip, its size taken before anything runs in it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.plan import Environment
from benchmarks.result import Record
from deploy.errors import SlimrecError

ROOT = Path(__file__).resolve().parents[2]
_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install")


class Installed(Record):
    """`environment.json`, beside the folder `env`. `size_bytes`: of its files, pip itself left out."""

    install: list[str]
    python: str
    size_bytes: int


def build(name: str, environment: Environment, folder: Path, log: Path) -> Installed:
    """Make `folder/env` unless it is there; what pip says goes to `log`. Raises SlimrecError with its last line."""
    marker, env = folder / "environment.json", folder / "env"
    version = sys.version.split()[0]
    if marker.is_file() and interpreter(folder).exists():
        found = Installed.model_validate_json(marker.read_text("utf-8"))
        if (found.install, found.python) == (environment.install, version):
            return found
    folder.mkdir(parents=True, exist_ok=True)
    if not interpreter(folder).exists():
        _run(name, [sys.executable, "-m", "venv", str(env)], log)
    for line in environment.install:
        arguments = shlex.split(line.replace("{root}", str(ROOT)))
        index = os.environ.get("TORCH_INDEX")
        if index and any(argument.startswith("torch==") for argument in arguments):
            arguments = ["--index-url", index, *arguments]
        _run(name, [str(interpreter(folder)), *_PIP, *arguments], log)
    found = Installed(
        install=environment.install,
        python=version,
        size_bytes=sum(_sizes(env)),
    )
    marker.write_text(found.to_json(indent=1) + "\n", "utf-8")
    return found


def interpreter(folder: Path) -> Path:
    """The Python of the environment in `folder`."""
    return folder / "env" / "bin" / "python"


def _run(name: str, command: list[str], log: Path) -> None:
    with log.open("a", encoding="utf-8") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        said = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        error = next((line for line in reversed(said) if "ERROR" in line), said[-1] if said else f"exit {code}")
        raise SlimrecError(f"{name}: its environment cannot be installed ({error.strip()[:300]}); see {log}")


def _sizes(env: Path) -> Iterator[int]:
    for folder, folders, files in os.walk(env):
        folders[:] = [name for name in folders if not (name == "pip" or name.startswith("pip-"))]
        for file in files:
            path = Path(folder) / file
            if not path.is_symlink():
                yield path.stat().st_size
