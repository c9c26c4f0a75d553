"""`python -m benchmarks.soak BUNDLE`."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.result import NotMeasured
from benchmarks.soak.footprint import footprint
from benchmarks.soak.run import Plan, soak
from benchmarks.soak.verdict import Report, judge, markdown
from benchmarks.tables import RESULTS


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--minutes", type=click.FloatRange(1, 24 * 60), default=10.0, show_default=True, help="Of load, about.")
@click.option("--install/--no-install", default=True, show_default=True, help="Measure an install of the device side.")
@click.option("--examples", type=click.IntRange(0), default=200, show_default=True, help="Of schemathesis; 0: none.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS)
def main(bundle: Path, minutes: float, install: bool, examples: int, out: Path) -> None:
    """Soak a server of BUNDLE and write the table. Exits with 1 where a target is not met."""
    schemathesis = os.environ.get("SLIMREC_SCHEMATHESIS") or shutil.which("schemathesis")
    left_out = [] if schemathesis else [NotMeasured(what="schemathesis", why="not installed")]
    with tempfile.TemporaryDirectory(prefix="slimrec-footprint-") as scratch:
        taken = footprint(bundle.absolute(), Path(scratch)) if install else None
    if taken is None:
        left_out.append(NotMeasured(what="install of the device side", why="--no-install"))
    share = minutes / 10
    usual = Plan()
    plan = replace(
        usual,
        saturation_s=usual.saturation_s * share,
        half_s=usual.half_s * share,
        overload_s=usual.overload_s * share,
        mixed_s=usual.mixed_s * share,
        examples=examples,
    )
    found = soak(bundle, plan, schemathesis, progress=click.echo)
    report = Report(targets=judge(found, taken), soak=found, footprint=taken, not_measured=left_out)
    (out / "soak.json").write_text(report.model_dump_json(indent=1) + "\n", "utf-8")
    (out / "soak.md").write_text(markdown(report), "utf-8")
    click.echo(markdown(report))
    if not report.met:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
