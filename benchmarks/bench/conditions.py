"""What is measured: the grid that `slimrec bench` was asked for."""

from dataclasses import dataclass

from benchmarks.bench.devices import Choice
from deploy.errors import UsageError
from deploy.manifest import Model

HISTORY = 20


@dataclass(frozen=True)
class Conditions:
    """Every combination of devices, threads, batches, history lengths and catalogue sizes is a cell.

    `seconds`: the most that a cell is timed for; 1,000 runs end it earlier. `history`, `items`: empty takes 20 (or as
    many as the bundle reads) and the bundle's own catalogue. `cold_starts`: fresh processes per catalogue and
    precision. `roofline`: whether the machine's limits are measured and each cell held against them. `tolerance`: the
    relative difference up to which times count as the same.
    """

    device: Choice = "auto"
    threads: tuple[int, ...] = (1,)
    batch: tuple[int, ...] = (1,)
    history: tuple[int, ...] = ()
    items: tuple[int, ...] = ()
    k: int = 10
    seconds: float = 10.0
    rounds: int = 10
    cold_starts: int = 3
    roofline: bool = True
    tolerance: float = 0.05
    seed: int = 0

    def sizes(self, model: Model) -> tuple[int, ...]:
        """Items of the catalogues to measure."""
        return self.items or (model.n_items,)

    def lengths(self, model: Model, n_items: int) -> tuple[int, ...]:
        """Items in each history. Raises UsageError where the model does not read as many as asked for."""
        most = min(model.max_history, n_items - 1)
        for wanted in self.history:
            if not 1 <= wanted <= most:
                raise UsageError(f"--history: the bundle reads 1 to {most} items (got {wanted})")
        return self.history or (min(HISTORY, most),)
