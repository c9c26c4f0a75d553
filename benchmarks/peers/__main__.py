"""`make bench-peers`: peers on a recipe's data, each in an environment of its own, resumed peer by peer.

`python -m benchmarks.peers [PEER...]` writes a row per peer of `peers.yaml` into
`benchmarks/results/peers-RECIPE.{json,md}`. A row that was measured here with the same data, bundle, settings and
versions stays as it is.
"""

import sys
from pathlib import Path

import click

from benchmarks.case_table import CaseTable, wanted_cases
from benchmarks.peers.export import export
from benchmarks.peers.measure import Conditions
from benchmarks.peers.plan import FILE, OURS, plan
from benchmarks.peers.record import Rows, results_file
from benchmarks.peers.run import Bench
from benchmarks.peers.table import markdown
from benchmarks.peers.train import Limits
from benchmarks.studies import run_command


@click.command()
@click.option("--recipe", default="movielens", show_default=True, help="Whose target domain is the data.")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), required=True, help="Ours, of that data.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/peers"), show_default=True)
@click.option("--budget", default=Limits().budget, show_default=True, help="CPU seconds of one training.")
@click.option("--rounds", default=Conditions().rounds, show_default=True)
@click.option("--seconds", default=Conditions().seconds, show_default=True, help="Timed at most, for each side.")
@click.option("--times-only", is_flag=True, help="Train a single batch: accuracy is not measured.")
@click.option(
    "--train-only", is_flag=True, help="Environments and trainings; what they serve is measured another time."
)
@click.option("--discard-environments", is_flag=True, help="Remove each environment once its peers are measured.")
@click.argument("peers", nargs=-1, metavar="[PEER]...")
def main(
    recipe: str,
    bundle: Path,
    out: Path,
    budget: float,
    rounds: int,
    seconds: float,
    times_only: bool,
    train_only: bool,
    discard_environments: bool,
    peers: tuple[str, ...],
) -> None:
    """Measure the peers whose names hold a PEER (all without one), ours among them."""
    everybody = plan()
    wanted = wanted_cases(everybody.peers, peers, FILE)
    own = out / Path(recipe).stem
    own.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        everybody,
        export(recipe, own),
        bundle,
        out / "environments",
        own,
        Limits(budget=budget, batches=1 if times_only else None),
        Conditions(rounds=rounds, seconds=seconds),
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if train_only:
        bench.train_only([name for name in wanted if name != OURS])
        return
    table = CaseTable(results_file(recipe), Rows, markdown)
    # ours first: all others are measured beside it
    bench.rows([OURS, *(name for name in wanted if name != OURS)], table)
    if discard_environments:
        bench.discard([name for name in wanted if name != OURS])
    click.echo(markdown(table.read()))


if __name__ == "__main__":
    run_command(main)
