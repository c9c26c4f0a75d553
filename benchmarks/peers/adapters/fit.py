"""How long a peer trains: validation chooses the epoch, by our metric. numpy only."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.accuracy import ndcg, ranks_of
from benchmarks.peers.adapters.serve import Settings
from benchmarks.peers.split import Split

_DEPTH = 10


@dataclass
class Fitted:
    """What became of a training. `curve`: (epoch, validation NDCG@10). `seconds` and `cpu_seconds`: from the start to
    the end of the best epoch, with the validations in between. `ended`: why no more epochs were trained."""

    epoch: int = 0
    epochs: int = 0
    valid: float = -1.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    ended: str = "all epochs"
    curve: list[tuple[int, float]] = field(default_factory=list)


def fit(
    split: Split,
    settings: Settings,
    train_epoch: Callable[[int], object],
    rank: Callable[[Iterable[Any], int], Any],
    keep: Callable[[], object],
) -> dict[str, Any]:
    """Train `settings["epochs"]` at most, keep the state of the best validation NDCG@10.

    `rank` as `Model.rank`, of the model as it is; `keep` saves it. Every `validate_every` epochs it is validated; it
    ends after `patience` validations without a better one, or after `budget` CPU seconds.
    """
    found, waited = Fitted(), 0
    wall, cpu = time.perf_counter(), time.process_time()
    for epoch in range(1, int(settings["epochs"]) + 1):
        train_epoch(epoch)
        found.epochs = epoch
        spent = time.process_time() - cpu
        over = spent > float(settings["budget"])
        if epoch % int(settings["validate_every"]) and not over and epoch < int(settings["epochs"]):
            continue
        ranks = ranks_of(rank(split.valid.lists, _DEPTH), split.valid_targets)
        value = float(ndcg(ranks, _DEPTH).mean())
        found.curve.append((epoch, round(value, 6)))
        if value > found.valid:
            waited = 0
            found.epoch, found.valid = epoch, value
            found.seconds, found.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
            keep()
        else:
            waited += 1
        if over:
            found.ended = f"the budget of {settings['budget']:g} CPU seconds"
            break
        if waited >= int(settings["patience"]):
            found.ended = f"{waited} validations without a better one"
            break
    return asdict(found)
