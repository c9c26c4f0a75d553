"""A peer's training: every trial by its adapter, the one that validates best is kept. Sealed, and shared by peers that
only serve it differently."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.plan import Peer
from benchmarks.peers.process import AdapterProcess
from benchmarks.peers.record import Training
from benchmarks.result import Record


class Limits(Record):
    """What every peer is given. `budget`: CPU seconds of one trial's epochs. `patience`: validations without a better
    one. `length`: events of a history that are read. `batches`: all that is trained, where only times are wanted."""

    length: int = 20
    budget: float = 360.0
    patience: int = 5
    validate_every: int = 1
    seed: int = 0
    batches: int | None = None


SEAL = "training.json"


def sealed(folder: Path) -> Training | None:
    """What a finished training said."""
    path = folder / SEAL
    return Training.model_validate_json(path.read_text("utf-8")) if path.is_file() else None


def train(peer: Peer, split: Path, limits: Limits, folder: Path, start: Callable[[], AdapterProcess]) -> Training:
    """Leaves the model in `folder/model`. `start`: a fresh process of the adapter. Raises PeerError."""
    if (found := sealed(folder)) is not None:
        return found
    told: list[tuple[dict[str, Any], dict[str, Any], Path]] = []
    for number, trial in enumerate(peer.trials):
        out, settings = folder / f"trial-{number}", peer.training | trial
        said = out / "fitted.json"
        if not said.is_file():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            with start() as process:
                fitted = process.ask(
                    "train",
                    split=str(split.absolute()),
                    settings=settings | limits.model_dump(),
                    out=str(out.absolute()),
                    timeout_s=3600 + 60 * limits.budget,
                )
            said.write_text(json.dumps(fitted), "utf-8")
        told.append((settings, json.loads(said.read_text("utf-8")), out))
    settings, best, out = max(told, key=lambda one: one[1]["valid"] or 0.0)
    shutil.rmtree(folder / "model", ignore_errors=True)
    shutil.copytree(out, folder / "model")
    found = Training.model_validate(
        {
            "settings": settings | limits.model_dump(),
            "trials": len(told),
            "valid_ndcg@10": best["valid"],
            "all_cpu_seconds": sum(one["total_cpu_seconds"] for _, one, _ in told),
            **{name: best[name] for name in ("epoch", "epochs", "seconds", "cpu_seconds", "ended", "curve", "rss_mb")},
        }
    )
    folder.joinpath(SEAL).write_text(found.to_json(indent=1) + "\n", "utf-8")
    return found
