"""What the device side takes where it is installed: disk, memory without the text encoder, time to the first answer.

From the wheel, in an environment of its own without pip, as `deploy/edge/Dockerfile` installs it; all numbers but the
sizes come from that environment's `slimrec bench`, after it was trimmed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.result import Record
from deploy.errors import SlimrecError

ROOT = Path(__file__).parents[2]


class Footprint(Record):
    """installed_mb: what the environment takes on the disk as pip leaves it (10^6 bytes, compiled modules included);
    trimmed_mb: after `deploy/edge/trim.py`. rss_mb and load_ms: of fresh processes that open the bundle and answer
    once, medians. Times of `recommend`, ids to ids, one thread, batch 1; times_graph: against the bare graph, round by
    round."""

    installed_mb: float
    trimmed_mb: float
    largest_mb: dict[str, float]
    precision: str
    items: int
    rss_mb: float
    load_ms: float
    p50_ms: float
    p99_ms: float
    runs: int
    times_graph: float
    versions: dict[str, str]


def footprint(bundle: Path, scratch: Path, rounds: int = 10, cold_starts: int = 11) -> Footprint:
    """Build, install, measure. Needs a package index. Raises SlimrecError with the failing command's last words."""
    venv = scratch / "venv"
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")]
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    _run([*pip, "install", "--quiet", "--disable-pip-version-check", *constraint, str(ROOT)])
    installed = folder_mb(venv)
    _run([sys.executable, str(ROOT / "deploy" / "edge" / "trim.py"), str(venv)])
    wanted = ["--rounds", str(rounds), "--cold-starts", str(cold_starts), "--device", "cpu", "--json"]
    found: dict[str, Any] = json.loads(_run([str(venv / "bin" / "slimrec"), "bench", str(bundle), *wanted]))
    # The graph that is fastest here answers on a device (`deploy.choice`), so that is the one to tell of.
    row = min(found["latency"], key=lambda one: one["p50_ms"])
    [process] = [one for one in found["processes"] if one["precision"] == row["precision"]]
    packages = next(venv.glob("lib/*/site-packages"))
    sizes = {path.name: round(folder_mb(path), 1) for path in packages.iterdir() if path.is_dir()}
    return Footprint(
        installed_mb=round(installed, 1),
        trimmed_mb=round(folder_mb(venv), 1),
        largest_mb=dict(sorted(sizes.items(), key=lambda pair: -pair[1])[:8]),
        precision=row["precision"],
        items=row["items"],
        rss_mb=process["rss_mb"],
        load_ms=process["load_ms"],
        p50_ms=row["p50_ms"],
        p99_ms=row["p99_ms"],
        runs=row["runs"],
        times_graph=row["times_graph"],
        versions=found["machine"]["versions"],
    )


def folder_mb(folder: Path) -> float:
    """What the files below `folder` take on the disk, in whole blocks, links not followed (10^6 bytes)."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir()) / 1e6


def _run(command: list[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
    if done.returncode:
        raise SlimrecError(f"{command[0]}: {' '.join(done.stderr.strip().splitlines()[-3:])}")
    return done.stdout
