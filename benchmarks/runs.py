"""`slimrec run` from a program: a process of its own, so that this one stays light."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

NOBODY_INSIDE_THE_BUDGET = 3  # the exit code of a run that has a result and no bundle


def run_recipe(recipe: str, out: Path, overrides: Iterable[str] = (), arguments: Sequence[str] = ()) -> None:
    """`slimrec run RECIPE --out OUT --set ... ARGUMENTS`, resumed as any run; it says itself what is wrong.

    Ends this process with its code where it left no result.
    """
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "deploy", "run", recipe, "--out", str(out), *settings, *arguments]
    code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if code not in (0, NOBODY_INSIDE_THE_BUDGET):
        sys.exit(code)
