"""Ours: a bundle, answered by `deploy` alone in an environment that has the base install and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.adapters.serve import Settings, serve
from benchmarks.peers.split import Rows, Split


class Bundle:
    """A verified bundle of the split's own catalogue."""

    def __init__(self, path: Path, precision: str | None) -> None:
        from deploy.runtime import Recommender

        self._recommender = Recommender.load(path, precision=precision)
        model = self._recommender.bundle.manifest.model
        graph = self._recommender.bundle.path(model.precisions[self._recommender.precision])
        self.size_bytes = sum(file.stat().st_size for file in graph.parent.glob(f"{graph.name}*"))

    def recommend(self, history: Sequence[str], k: int) -> list[str]:
        """What `slimrec recommend` answers."""
        return [item.id for item in self._recommender.recommend(history, k).items]

    def rank(self, histories: Sequence[Rows], depth: int) -> NDArray[np.int32]:
        """As `slimrec evaluate` ranks; the bundle's rows are the recipe's, as the split's are."""
        from benchmarks.evaluate import answer

        recommender = self._recommender
        limit, n_items = recommender.bundle.manifest.model.max_history, len(recommender.catalogue)
        return answer(recommender.ranker, [*histories], limit, n_items)[:, :depth]


class SlimRec:
    """`settings["bundle"]`: the path of the bundle. `settings["precision"]`: one of its, or its default."""

    def train(self, split: Split, settings: Settings, out: Path) -> Mapping[str, Any]:
        """A recipe trains bundles."""
        raise NotImplementedError("a bundle comes trained")

    def open(self, folder: Path, settings: Settings) -> Bundle:  # noqa: ARG002
        """Verify and load the bundle."""
        return Bundle(Path(settings["bundle"]), settings.get("precision"))


if __name__ == "__main__":
    serve(SlimRec())
