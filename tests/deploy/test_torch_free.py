"""The verbs of a device, run for real, load nothing that a device does not have."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROBE = "import sys; from deploy.cli import run_command; run_command(sys.argv[1:]); print(' '.join(sys.modules))"


@pytest.mark.parametrize(
    "arguments", [["verify"], ["recommend", "--history", "i1,i2"], ["recommend", "--history", "i1", "--json"]]
)
def test_verbs_load_no_training_code(tiny, arguments):
    verb, *options = arguments
    done = subprocess.run(
        [sys.executable, "-c", PROBE, verb, str(tiny.archive), *options],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert {"deploy", "onnxruntime"} <= loaded
    assert not loaded & {"torch", "transformers", "compress", "starlette", "uvicorn", "onnx", "pyarrow"}
