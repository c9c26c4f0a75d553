"""The verb `report`: a result that is there -> its page, with what was measured beside the run."""

from pathlib import Path

import click
from pydantic import ValidationError

from benchmarks.result import Result
from compress.report.extras import Extras, beside, read_bench, read_peers
from compress.report.page import write_report
from deploy.errors import UsageError

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--bench", type=FILE, multiple=True, help="What `slimrec bench --json` printed: the roofline.")
@click.option("--peers", type=FILE, help="What `make bench-peers` wrote.  [default: the committed file of the recipe]")
@click.option("--out", type=FILE, help="The page.  [default: report.html beside the result]")
def report(run: Path, bench: tuple[Path, ...], peers: Path | None, out: Path | None) -> None:
    """Write report.html anew from RUN, the folder of a run or its result.json: one file that needs no network.

    \b
    slimrec bench runs/quickstart/bundle.slim --json > bench.json
    slimrec report runs/quickstart --bench bench.json
    """
    path = run / "result.json" if run.is_dir() else run
    result = _result(path)
    rows = read_peers(peers, result) if peers else beside(result).peers
    extras = Extras([one for file in bench for one in read_bench(file)], rows)
    page = out or path.with_name("report.html")
    try:
        write_report(result, page, extras)
    except OSError as error:
        raise UsageError(f"--out: cannot be written ({error.strerror or error}; got {page})") from None
    click.echo(f"{page}: {page.stat().st_size / 1e3:.0f} kB")


def _result(path: Path) -> Result:
    try:
        return Result.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"report: RUN cannot be read ({error})") from None
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"])) or "it"
        raise UsageError(f"{path}: {where}: {found['msg']} (is it a result.json?)") from None
