"""schemathesis reads /openapi.json and looks for answers it does not allow. Skips where it is not installed."""

import shutil
import subprocess

import pytest

from tests.deploy.serving import serving

# A schema cannot say how many bytes a body may have.
CONFIG = """[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "409", "413"]

[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "409", "413", "422"]
"""
SCHEMATHESIS = shutil.which("schemathesis")


@pytest.mark.skipif(SCHEMATHESIS is None, reason="schemathesis is not installed")
def test_answers_are_those_of_the_contract(tiny, tmp_path):
    assert SCHEMATHESIS is not None
    with serving(tiny.folder, "--allow-unsigned", "--state", tmp_path / "state") as server:
        url = f"http://127.0.0.1:{server.port}/openapi.json"
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        options = ["--max-examples", "40", "--seed", "1", "--no-color"]
        done = subprocess.run([SCHEMATHESIS, "run", url, *options], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, "\n".join(line[:500] for line in done.stdout.splitlines())
