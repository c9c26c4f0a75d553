"""The same bundle on ARM64, emulated: golden answers hold and recommendations are this machine's (`make test-arm64`).

`make` puts a Debian root and the wheel's own dependencies, all for aarch64, into a folder; QEMU's user mode runs them.
Two CPUs are played: a Cortex-A53, as on small boards, whose INT8 products are made of plain NEON, and a Neoverse-N1
with dot products of INT8.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import open_bundle
from deploy.golden import Golden
from deploy.manifest import GOLDEN

ROOT = Path(__file__).parents[2]
ARM64 = Path(os.environ.get("SLIMREC_ARM64", ROOT / ".arm64"))
BUNDLE = os.environ.get("SLIMREC_ARM64_BUNDLE")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
PYTHON = ARM64 / "root" / "usr" / "bin" / "python3.11"
CPUS = ("cortex-a53", "neoverse-n1")  # SVE is left out: docs/LOG.md
pytestmark = pytest.mark.skipif(
    QEMU is None or not PYTHON.is_file(), reason="no qemu-aarch64 in PATH, or no ARM64 root (make test-arm64)"
)

# QEMU shows the host's /proc/cpuinfo, and ONNX Runtime ends at what it makes of it; a file in the root goes before.
CPUINFO = """processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd03
CPU revision\t: 4

"""

# What is asked on both machines, in one process: Python takes seconds to start under emulation.
ASK = """
import json, platform, sys
from pathlib import Path
from deploy.bundle import open_bundle
from deploy.cold import NewItem
from deploy.runtime import Recommender
bundle = open_bundle(Path(sys.argv[1]))
model, found = bundle.manifest.model, {"machine": platform.machine(), "answers": {}}
for precision in sorted(model.precisions):
    recommender = Recommender(bundle, precision=precision)
    ids = recommender.catalogue.ids[1:]
    histories = [ids[start : start + length] for start in range(0, min(len(ids), 60), 3) for length in (1, 4, 50)]
    answers = [recommender.recommend(history, 20) for history in [[], ["nobody"], *histories]]
    if recommender.cold.possible:
        recommender.cold.put(NewItem("new", "film odd", {}, text="a new one"))
        answers += recommender.recommend_many(histories[:8], 20)
    found["answers"][precision] = [[(item.id, item.score) for item in answer.items] for answer in answers]
print(json.dumps(found))
"""


def emulated(cpu: str, *arguments: object) -> str:
    """What ARM64's Python prints."""
    (ARM64 / "root" / "proc").mkdir(exist_ok=True)
    processors = [CPUINFO.replace(": 0\n", f": {number}\n", 1) for number in range(os.cpu_count() or 1)]
    (ARM64 / "root" / "proc" / "cpuinfo").write_text("".join(processors), "ascii")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "LD_LIBRARY_PATH")},
        "PYTHONPATH": str(ARM64 / "packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(QEMU), "-cpu", cpu, "-L", str(ARM64 / "root"), str(PYTHON), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["tiny", "recipe"])
def bundle(request, tiny) -> Path:
    """One made by hand in fp32 and INT8 of fp32 tables; one of a recipe, with real integer products."""
    if request.param == "recipe" and BUNDLE is None:
        pytest.skip("SLIMREC_ARM64_BUNDLE names no bundle of a recipe (make test-arm64)")
    return tiny.archive if request.param == "tiny" else Path(str(BUNDLE)).absolute()


@pytest.mark.parametrize("cpu", CPUS)
def test_golden_answers_hold(bundle, cpu):
    """`slimrec verify`, as a device asks: every graph, and the text encoder."""
    found = json.loads(emulated(cpu, "-m", "deploy", "verify", bundle, "--json"))
    model = open_bundle(bundle).manifest.model
    assert found["golden"] == [*sorted(model.precisions), *(["text"] if model.text else [])]


@cache
def answers_here(bundle: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", ASK, str(bundle)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)
    return found


@pytest.mark.parametrize("cpu", CPUS)
def test_recommendations_are_those_of_this_machine(bundle, cpu):
    there, here = json.loads(emulated(cpu, "-c", ASK, bundle)), answers_here(bundle)
    assert (there["machine"], here["machine"]) == ("aarch64", platform.machine()) and platform.machine() != "aarch64"
    assert there["answers"].keys() == here["answers"].keys()
    tolerance = Golden.model_validate_json(open_bundle(bundle).read(GOLDEN)).tolerance
    for precision, answers in here["answers"].items():
        for mine, theirs in zip(answers, there["answers"][precision], strict=True):
            assert [item for item, _ in theirs] == [item for item, _ in mine], precision
        gaps = [_gap(mine, theirs) for mine, theirs in zip(answers, there["answers"][precision], strict=True)]
        if precision == "fp32":
            assert max(gaps) <= tolerance
        else:  # a number of the user's vector on the edge between two steps may be rounded to either
            assert sum(gap > tolerance for gap in gaps) <= len(gaps) / 20 and max(gaps) <= 10 * tolerance


def _gap(mine: list[tuple[str, float | None]], theirs: list[tuple[str, float | None]]) -> float:
    """The largest difference of two answers' scores; popularity has none."""
    pairs = [(a, b) for (_, a), (_, b) in zip(mine, theirs, strict=True) if a is not None and b is not None]
    return max((abs(a - b) for a, b in pairs), default=0.0)
