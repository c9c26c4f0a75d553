"""A recipe's target domain -> the split that peers are given, and the test targets that they are not."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.plan import digest
from benchmarks.peers.split import Ragged, Split
from benchmarks.result import Dataset, Protocol
from deploy.errors import UsageError


@dataclass(frozen=True)
class Exported:
    """`file`: the split. `targets` int32 (cases,): what the test histories are asked for. `texts`: of the items."""

    file: Path
    split: Split
    targets: NDArray[np.int32]
    texts: list[str]
    dataset: Dataset
    protocol: Protocol
    digest: str


def export(recipe: str, out: Path) -> Exported:
    """Run the recipe's data stage and write its split to `out`. Raises UsageError as the recipe does."""
    # What measures loads without what trains.
    from compress.commands import find_recipe
    from compress.data.dataset import Dataset as Domain
    from compress.data.load import load_data
    from compress.pipeline import STAGES
    from compress.recipe_file import load_recipe
    from compress.stage import RunOptions

    config = load_recipe(find_recipe(Path(recipe)), STAGES).shared["data"]
    folder = out / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    load_data(config, {}, folder, RunOptions())  # type: ignore[arg-type]
    described, domain = json.loads((folder / "dataset.json").read_text("utf-8")), Domain.open(folder)
    if described.get("task") == "likes":
        raise UsageError(f"{recipe}: peers rank catalogues; this recipe's data has none to rank")
    valid, test = domain.cases("valid"), domain.cases("test")
    split = Split(
        ids=domain.item_ids,
        train=Ragged.of([rows.astype(np.int64) for rows in domain.train_sequences() if len(rows)]),
        valid=Ragged.of([rows.astype(np.int64) for rows in valid.seen]),
        valid_targets=valid.targets.astype(np.int64),
        test=Ragged.of([rows.astype(np.int64) for rows in test.seen]),
    )
    split.save(out / "split.npz")
    facts = described["domains"]["target"]
    return Exported(
        file=out / "split.npz",
        split=split,
        targets=test.targets,
        texts=domain.texts,
        dataset=Dataset(name=described["name"], **{name: facts[name] for name in ("users", "items", "interactions")}),
        protocol=Protocol(split=described["protocol"]["split"], seeds=[config.seed]),
        digest=digest(
            [split.ids, [part.rows.tolist() for part in (split.train, split.valid, split.test)], test.targets.tolist()]
        ),
    )
