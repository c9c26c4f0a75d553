"""A peer of numpy alone: popularity, which gets worse after its second epoch. Run by tests as an adapter."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.adapters.fit import Watch
from benchmarks.peers.adapters.scored import Rows, Scored, load_ids, rank_by, save_ids
from benchmarks.peers.adapters.serve import Settings, serve
from benchmarks.peers.split import Split


class FakePeer:
    def train(self, split: Split, settings: Settings, out: Path) -> Mapping[str, Any]:
        print("what a peer prints is no answer")
        if settings.get("fails"):
            raise ValueError("it does not like this data\nat all")
        save_ids(out, split.ids)
        counts = np.bincount(split.train.rows, minlength=split.n_items + 1).astype(np.float32)
        now = counts

        def score(histories: Rows) -> Any:
            return np.tile(now, (len(histories), 1))

        watch = Watch(split, settings, lambda h, k: rank_by(score, h, k, 5), lambda: np.save(out / "counts.npy", now))
        going, epoch = True, 0
        while going:
            epoch += 1
            now = counts if epoch == 2 else -counts
            going = watch.goes_on()
        return watch.told()

    def open(self, folder: Path, settings: Settings) -> Scored:
        if settings.get("dies"):
            raise SystemExit(3)
        if settings.get("sleeps"):
            time.sleep(60)
        counts = np.load(folder / "counts.npy")
        return Scored(
            load_ids(folder), 5, lambda h: np.tile(counts, (len(h), 1)), (folder / "counts.npy").stat().st_size
        )


if __name__ == "__main__":
    serve(FakePeer())
