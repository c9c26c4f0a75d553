"""schemathesis reads a server's OpenAPI and looks for answers that it does not allow."""

import re
import subprocess
from pathlib import Path

from benchmarks.result import Record
from deploy.errors import SlimrecError

# A schema cannot say how many bytes a body may have, nor that a queue is full.
_CONFIG = """[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "409", "413", "503"]

[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "409", "413", "422", "503"]
"""


class Contract(Record):
    """What schemathesis did: examples for each operation at most, cases it sent, and its own words where it failed."""

    version: str
    examples: int
    cases: int
    passed: bool
    said: list[str]


def check_contract(command: str, port: int, folder: Path, examples: int, seed: int = 1) -> Contract:
    """Ask the server on `port`. `folder` takes what the tool writes. Raises SlimrecError where it does not run."""
    (folder / "schemathesis.toml").write_text(_CONFIG, "utf-8")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    url = f"http://127.0.0.1:{port}/openapi.json"
    options = ["--max-examples", str(examples), "--seed", str(seed), "--no-color"]
    done = subprocess.run([command, "run", url, *options], cwd=folder, text=True, capture_output=True, check=False)
    lines = [line[:500] for line in (done.stdout + done.stderr).splitlines()]
    found = re.search(r"(\d+) generated", done.stdout)
    if done.returncode not in (0, 1) or found is None:
        raise SlimrecError(f"{command}: {' '.join(lines[-3:])}")
    return Contract(
        version=version.rpartition(" ")[2],
        examples=examples,
        cases=int(found[1]),
        passed=done.returncode == 0,
        said=[] if done.returncode == 0 else lines,
    )
