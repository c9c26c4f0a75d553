"""Takes out of a device's environment what no device uses: `python3 trim.py ENVIRONMENT`.

That is packages' own tests, and what is installed only because `tokenizers` can download from a hub: slimrec gives it
files. Run by any Python, with nothing installed; `slimrec verify BUNDLE` afterwards shows that all is there.
"""

import re
import shutil
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

NEVER_USED = ("tokenizers", "huggingface-hub")
"""Who requires what, in vain."""


def main(environment: Path) -> None:
    """Trim it, and say by how much."""
    [packages] = environment.glob("lib/python3*/site-packages")
    before = _bytes(environment)
    installed = {_plain(found.name): found for found in distributions(path=[str(packages)])}
    for name in sorted(_needed(installed, ()) - _needed(installed, NEVER_USED)):
        _uninstall(installed[name], packages)
    for tests in sorted(packages.rglob("tests"), reverse=True):
        if tests.is_dir():
            shutil.rmtree(tests)
    print(f"{environment}: {before / 1e6:.0f} MB, now {_bytes(environment) / 1e6:.0f}")


def _needed(installed: dict[str, Distribution], without: tuple[str, ...]) -> set[str]:
    """The installed packages that slimrec's requirements lead to, one requirement (of, on) left out."""
    found, to_visit = set[str](), ["slimrec"]
    while to_visit:
        name = to_visit.pop()
        if name in found or name not in installed:
            continue
        found.add(name)
        lines = [line for line in installed[name].requires or [] if "extra ==" not in line]
        wanted = [_plain(re.split(r"[\s\[<>=!~;(]", line, maxsplit=1)[0]) for line in lines]
        to_visit += [other for other in wanted if (name, other) != without]
    return found


def _uninstall(package: Distribution, packages: Path) -> None:
    files = [Path(str(package.locate_file(file))).resolve() for file in package.files or []]
    for file in files:
        file.unlink(missing_ok=True)
    tops = {
        packages / file.relative_to(packages.resolve()).parts[0] for file in files if packages.resolve() in file.parents
    }
    for top in tops:
        if top.is_dir() and top.name != "__pycache__" and not any(path.is_file() for path in _sources(top)):
            shutil.rmtree(top)


def _sources(folder: Path) -> list[Path]:
    """Files but those that Python compiled."""
    return [path for path in folder.rglob("*") if path.suffix != ".pyc"]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
