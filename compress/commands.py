"""The verbs `run`, `plan`, `recipes` and `store`. Imports torch only where a verb needs it."""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from deploy.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.result import Result
    from compress.stage import RunOptions

RECIPE = click.Path(path_type=Path)
STORE = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    help="Artifact store.  [default: $SLIMREC_STORE, or ~/.cache/slimrec/store]",
)
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.FIELD=VALUE",
    help="Change a field of the recipe, such as distil.training.epochs=20 (may be given again).",
)


@click.command("run")
@click.argument("recipe", type=RECIPE)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Output folder.  [default: runs/RECIPE]")
@SET
@STORE
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--jobs", type=click.IntRange(1, 64), help="Steps built at once.  [default: the cores, at most 4; GPU: 1]"
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Threads a step.  [default: cores / jobs]")
@click.option("--json", "as_json", is_flag=True, help="End with result.json on one line of stdout.")
def run(
    recipe: Path,
    out: Path | None,
    overrides: tuple[str, ...],
    store: Path | None,
    device: str,
    jobs: int | None,
    threads: int,
    as_json: bool,
) -> None:
    """Run or resume RECIPE, a YAML file or the name of a shipped one.

    Stages that are sealed in the store are skipped; a run that was stopped, even by kill -9, goes on where it was.
    Leaves result.json, ranks.npz (every case's answer), report.html, bundle.slim and bundle/ in the output folder, and
    search.json where RECIPE has a section `search`.

    \b
    slimrec run quickstart
    slimrec run recipes/movielens.yaml --set seeds=[0,1,2] --out runs/movielens
    """
    _let_idle_threads_sleep()
    from compress.run import run as run_recipe

    path = find_recipe(recipe)
    folder = out or Path("runs") / path.stem
    options, jobs = _options(device, threads, jobs)
    result = run_recipe(path, folder, overrides=overrides, store=store, options=options, jobs=jobs)
    if as_json:
        click.echo(result.to_json())
    else:
        _print_result(result, folder)


@click.command("plan")
@click.argument("recipe", type=RECIPE)
@SET
@STORE
def plan(recipe: Path, overrides: tuple[str, ...], store: Path | None) -> None:
    """Show every step of RECIPE: sealed, to run, waiting for one before it, or left out; with time and memory.

    Seconds and memory are those of the sealed step; else of the last like step in the store or, for a shipped recipe,
    of its published run. Left out are students whose teacher failed the gate, and the bundle where no candidate is
    inside the budget. Of a search, trials that are sealed are followed; the others wait, as do those that they add.

    Where the size of the catalogue is known, p95 of an answer of each small model is estimated by the cost model that
    ships, or by that of $SLIMREC_COST: python -m benchmarks.scaling --cost FILE fits one to this machine.
    """
    from benchmarks.cost_model import CostModel
    from compress.expect import expected_p95_ms
    from compress.pipeline import STAGES
    from compress.plan import plan as plan_recipe
    from compress.recipe_file import load_recipe
    from compress.store import Store

    parsed = load_recipe(find_recipe(recipe), STAGES, overrides)
    steps = list(plan_recipe(parsed, Store(store)))
    table = Table("step", "state", "seconds", "memory MB", box=None, pad_edge=False)
    for step in steps:
        seconds = "?" if step.seconds is None else f"{step.seconds:.1f}"
        memory = "?" if step.peak_rss_mb is None else f"{step.peak_rss_mb:.0f}"
        table.add_row(step.title, step.state, seconds, memory)
    console().print(table)
    model = CostModel.load()
    if (expected := expected_p95_ms(parsed, Store(store), model)) is not None:
        told = ", ".join(f"{name} {p95:.2f} ms" for name, p95 in expected[1].items())
        click.echo(
            f"p95 of an answer in fp32, {expected[0]} items, one thread: {told or 'no small model'}; {model.told}"
        )
    left = [step for step in steps if step.state in ("to run", "waits")]
    if parsed.search is not None:
        config = parsed.search.config
        to_come = sum(step.of_trial and step.title.startswith("prune ") for step in left)
        click.echo(f"search: {to_come} of at most {config.trials} trials of {config.of} to come")
    sealed = sum(step.state == "sealed" for step in steps)
    known = sum(step.seconds or 0.0 for step in left)
    unknown = sum(step.seconds is None for step in left)
    click.echo(
        f"{sealed} of {len(steps)} sealed; left: {known:.0f} s"
        + (f" and {unknown} steps this store has not seen yet" if unknown else "")
    )


@click.command("recipes")
def recipes() -> None:
    """List the shipped recipes, with what each is for. `slimrec run NAME` runs one."""
    import yaml

    table = Table("recipe", "what it is for", box=None, pad_edge=False)
    for path in shipped_recipes():
        table.add_row(path.stem, " ".join(str(yaml.safe_load(path.read_text()).get("description", "")).split()))
    console().print(table)


@click.group("store")
def store() -> None:
    """List and prune the artifact store: what the stages of earlier runs left, ready to be used again."""


@store.command("list")
@STORE
def store_list(store: Path | None) -> None:
    """List sealed artifacts, oldest first."""
    from compress.store import Store

    chosen = Store(store)
    table = Table("stage", "key", "MB", "built in s", box=None, pad_edge=False)
    total = 0.0
    for folder, seal in chosen.entries():
        size = sum(f["size"] for f in seal["files"].values()) / 1e6
        total += size
        table.add_row(seal["stage"], folder.name[:12], f"{size:.2f}", f"{seal['seconds']:.1f}")
    console().print(table)
    click.echo(f"{total:.1f} MB in {chosen.root} (artifacts that share files are counted in full)")


@store.command("prune")
@STORE
@click.option(
    "--older-than", type=click.FloatRange(0), required=True, metavar="DAYS", help="Remove what was sealed before."
)
@click.option("--yes", is_flag=True, help="Remove; without it only say what would be.")
def store_prune(store: Path | None, older_than: float, yes: bool) -> None:
    """Remove artifacts sealed more than DAYS days ago, and what killed builds left."""
    import time

    from compress.store import SEAL, Store

    chosen = Store(store)
    limit = time.time() - older_than * 86400
    old = [folder for folder, _ in chosen.entries() if (folder / SEAL).stat().st_mtime < limit]
    partial = [p for p in chosen.root.glob("*/*.partial") if p.stat().st_mtime < limit]
    for folder in old if yes else []:
        chosen.remove(folder)
    for folder in partial if yes else []:
        shutil.rmtree(folder, ignore_errors=True)
    click.echo(
        f"{'removed' if yes else 'would remove (say --yes)'}: {len(old)} artifacts, {len(partial)} killed builds"
    )


def shipped_recipes() -> list[Path]:
    """Their folder lies beside this package's, in a checkout and in an installed wheel alike."""
    return sorted((Path(__file__).parents[1] / "recipes").rglob("*.yaml"))


def find_recipe(recipe: Path) -> Path:
    """A path as it is; a bare name among the shipped recipes. Raises UsageError naming those."""
    if recipe.exists():
        return recipe
    shipped = {path.stem: path for path in shipped_recipes()}
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    raise UsageError(f"{recipe}: no such recipe file; shipped ones, by name: {', '.join(shipped)}")


def _let_idle_threads_sleep() -> None:
    """OpenMP threads that spin while they wait steal busy cores from those that work; ones that sleep wake late.

    A short spin costs little in either case (docs/LOG.md). The runtime reads this when torch loads it; what the user
    set stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def console() -> Console:
    """Wide in a pipe, so that no cell is cut."""
    return Console(width=None if sys.stdout.isatty() else 200)


def _options(device: str, threads: int, jobs: int | None) -> tuple["RunOptions", int]:
    """How to compute, and how many steps at once: small models gain more from steps side by side than from threads."""
    import torch

    from benchmarks.machine import cores_allowed
    from compress.stage import RunOptions

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device: torch sees no CUDA device (got cuda); use auto or cpu")
    chosen = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    errors = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 240)

    def progress(items: Iterable[Any], what: str, total: int | None) -> Iterator[Any]:
        if not errors.is_terminal:
            yield from items
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=errors, transient=True) as bar:
            yield from bar.track(items, total=total, description=what)

    jobs = jobs or (1 if chosen == "cuda" else min(4, cores_allowed()))
    threads = threads or max(1, cores_allowed() // jobs)
    return RunOptions(chosen, threads, log=partial(errors.print, markup=False), progress=progress), jobs


def _print_result(result: "Result", folder: Path) -> None:
    """The table a person wants after a run: every chosen model and the one that ships, and how to serve it."""
    from benchmarks.result import TITLES

    table = Table(
        "model",
        "role",
        f"{TITLES[result.metric]} valid",
        "test",
        "95 %",
        "MB",
        "p50 ms",
        "p95 ms",
        "x teacher",
        box=None,
        pad_edge=False,
    )
    for model in result.models:
        test, latency = model.accuracy.test, model.served
        ci = test.leading_ci95
        table.add_row(
            model.name + (" <- ships" if model.name == result.selected else ""),
            model.role + (" *" if model.chosen else ""),
            f"{model.accuracy.valid.leading or 0:.4f}",
            f"{test.leading or 0:.4f}",
            "" if ci is None else f"{ci[0]:.4f}-{ci[1]:.4f}",
            f"{model.size_bytes / 1e6:.3f}" if model.size_bytes else "",
            f"{latency.p50_ms:.3f}" if latency else "",
            f"{latency.p95_ms:.3f}" if latency else "",
            f"{latency.ratio_to_teacher.median:.1f}" if latency and latency.ratio_to_teacher else "",
        )
    console().print(table)
    click.echo("* chosen by validation among its role")
    for comparison in result.comparisons:
        click.echo(f"{comparison.a} - {comparison.b}: {comparison.gap}")
    if result.gate is not None:
        gate = result.gate
        word = "passed" if gate.passed else "failed"
        click.echo(
            f"teacher gate {word}: {gate.teacher_valid:.4f} against the control's {gate.control_valid:.4f} (validation)"
        )
    if result.transfer_ratio is not None:
        click.echo(f"transfer ratio {result.transfer_ratio:.2f}")
    if result.selection is not None:
        click.echo(result.selection.reason)
    if result.bundle is not None:
        size = result.bundle.size_bytes / 1e6
        click.echo(f"bundle: {folder / 'bundle.slim'}, {size:.2f} MB; report: {folder / 'report.html'}")
        click.echo(f"serve it: slimrec serve {folder / 'bundle.slim'} --allow-unsigned")
