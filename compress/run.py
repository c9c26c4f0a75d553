"""`slimrec run`: recipe -> result.json, report.html and the bundle, in one folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.result import Result
from compress.pipeline import STAGES, Run
from compress.recipe_file import load_recipe
from compress.report.extras import beside
from compress.report.page import write_report
from compress.results import assemble
from compress.stage import RunOptions
from compress.store import Store
from compress.task import EVIDENCE, metric_of
from compress.walk import run_pipeline
from deploy.errors import GateError, UsageError


def run(
    recipe: Path,
    out: Path,
    *,
    overrides: tuple[str, ...] = (),
    store: Path | None = None,
    options: RunOptions | None = None,
    jobs: int = 1,
) -> Result:
    """Run or resume a recipe, up to `jobs` steps at once.

    Leaves `result.json`, `ranks.npz`, `report.html`, `bundle.slim` and `bundle/` in `out`, and `search.json` where the
    recipe searched.

    Raises UsageError for a mistake in recipe or data, GateError where no candidate is inside the budget (result and
    report are written all the same).
    """
    options = options or RunOptions()
    parsed = load_recipe(recipe, STAGES, overrides)
    _writable(out)
    done = run_pipeline(parsed, Store(store), options, jobs)
    result = assemble(parsed, done)
    _replace(out / "result.json", lambda path: path.write_text(result.to_json(indent=1) + "\n"))
    _place_search(result, out)
    _replace(out / "report.html", lambda path: write_report(result, path, beside(result)))
    evidence = done.artifacts["bench", None].path / EVIDENCE[metric_of(done.artifacts["data", None].path)]
    _replace(out / evidence.name, lambda path: shutil.copyfile(evidence, path))
    _place_bundle(done, out)
    if result.selected is None:
        reason = result.selection.reason if result.selection else "no candidate"
        raise GateError(f"select: {reason}; see {out / 'result.json'}")
    return result


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: cannot make this folder: {error.strerror} (got {out})") from error
    if not os.access(out, os.W_OK):
        raise UsageError(f"--out: this folder is not writable (got {out})")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """A kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)


def _place_search(result: Result, out: Path) -> None:
    """Every trial, for whoever wants nothing else; none of an earlier run stays behind."""
    found = result.search
    if found is None:
        (out / "search.json").unlink(missing_ok=True)
    else:
        _replace(out / "search.json", lambda path: path.write_text(found.to_json(indent=1) + "\n"))


def _place_bundle(done: Run, out: Path) -> None:
    """The store's bundle under the names people expect; without one, none of an earlier run stays behind."""
    packed, folder, partial = done.artifacts.get(("pack", None)), out / "bundle", out / ".bundle.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if packed is None:
        shutil.rmtree(folder, ignore_errors=True)
        (out / "bundle.slim").unlink(missing_ok=True)
        return
    # copies, not links: what people may edit must not reach the store
    _replace(out / "bundle.slim", lambda path: shutil.copyfile(packed.path / "bundle.slim", path))
    shutil.copytree(packed.path / "bundle", partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
