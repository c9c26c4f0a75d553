"""`slimrec run`: recipe -> result.json, report.html and the bundle, in one folder."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.result import Result
from compress.charts import latency_name
from compress.pipeline import STAGES, Run, run_pipeline
from compress.recipe import load_recipe
from compress.report import Details, write_report
from compress.results import assemble
from compress.stage import RunOptions
from compress.store import Store
from deploy.errors import GateError, UsageError


def run(
    recipe: Path,
    out: Path,
    *,
    overrides: tuple[str, ...] = (),
    store: Path | None = None,
    options: RunOptions | None = None,
) -> Result:
    """Run or resume a recipe. Leaves `result.json`, `report.html`, `bundle.slim` and `bundle/` in `out`.

    Raises UsageError for a mistake in recipe or data, GateError where no candidate is inside the budget (result and
    report are written all the same).
    """
    options = options or RunOptions()
    parsed = load_recipe(recipe, STAGES, overrides)
    _writable(out)
    done = run_pipeline(parsed, Store(store), options)
    result = assemble(parsed, done)
    _write(out / "result.json", result.to_json(indent=1) + "\n")
    write_report(result, _details(result, done), out / "report.html")
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


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _details(result: Result, done: Run) -> Details:
    with np.load(done.artifacts["bench", None].path / "latency.npz", allow_pickle=False) as file:
        raw = {name: file[name] for name in file.files}
    named = {
        latency_name(model, row): raw[name]
        for model in result.models
        for row in model.latency
        if (name := f"{model.name} {row.path} {row.runtime} {row.device}") in raw
    }
    return Details(latency_ms=named)


def _place_bundle(done: Run, out: Path) -> None:
    """The store's bundle under the names people expect; without one, none of an earlier run stays behind."""
    shutil.rmtree(out / "bundle", ignore_errors=True)
    (out / "bundle.slim").unlink(missing_ok=True)
    packed = done.artifacts.get(("pack", None))
    if packed is None:
        return
    with tempfile.TemporaryDirectory(dir=out, prefix=".bundle.") as scratch:
        # copies, not links: what people may edit must not reach the store
        shutil.copytree(packed.path / "bundle", Path(scratch) / "bundle")
        shutil.copyfile(packed.path / "bundle.slim", Path(scratch) / "bundle.slim")
        (Path(scratch) / "bundle").rename(out / "bundle")
        (Path(scratch) / "bundle.slim").replace(out / "bundle.slim")
