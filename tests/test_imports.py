"""What runs on a device never loads torch, transformers or the training code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"torch", "transformers", "compress"}

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("deploy", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)


def loaded_by(code: str, *arguments: object) -> set[str]:
    """Top-level modules in a fresh interpreter after it ran `code`."""
    script = f"import sys\n{code}\nprint('\\n' + ' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, text=True, capture_output=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_probe_sees_what_is_loaded():
    assert "compress" in loaded_by("import compress")


def test_no_module_loads_training_code():
    assert {"deploy.cli", "deploy.server", "benchmarks"} <= set(MODULES)
    code = "import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)"
    loaded = loaded_by(code, *MODULES)
    assert not loaded & FORBIDDEN
    assert "onnxruntime" in loaded


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["serve", "--help"]])
def test_help_is_light(arguments):
    loaded = loaded_by("from deploy.cli import run_command\nassert run_command(sys.argv[1:]) == 0", *arguments)
    assert not loaded & (FORBIDDEN | {"numpy", "onnxruntime", "pydantic", "starlette", "tokenizers"})
