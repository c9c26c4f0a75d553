"""Is a bundle well on this device? Asked in a process of its own: a crash or a hang is an answer too."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import deploy
from deploy.errors import GateError, UsageError

SECONDS = 120.0


def check_health(folder: Path, seconds: float = SECONDS) -> None:
    """Verify the bundle in `folder` and ask it all its golden answers (`slimrec verify`, every graph it has).

    Raises GateError where it refuses, crashes or takes longer than `seconds`, UsageError where it is malformed.
    """
    packages = str(Path(deploy.__file__).parents[1])
    paths = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: a folder called `deploy` where the operator stands is not this package.
    command = [sys.executable, "-P", "-m", "deploy", "verify", str(folder), "--json"]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise GateError(f"{folder}: its health check took longer than {seconds:g} s") from None
    if done.returncode == 0:
        return
    lines = done.stderr.decode("utf-8", "replace").splitlines()[-10:] or ["no reason given"]
    if done.returncode == UsageError.exit_code:
        raise UsageError(lines)
    if done.returncode < 0:
        raise GateError(f"{folder}: its health check was killed ({signal.Signals(-done.returncode).name})")
    raise GateError(lines if done.returncode == GateError.exit_code else f"{folder}: its health check: {lines[-1]}")
