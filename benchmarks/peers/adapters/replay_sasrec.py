"""RePlay's SasRec: torch, and compiled with OpenVINO. Both give scores: id map, filter and top k are `Scored`'s.

`settings["runtime"]`: `torch` or `compiled`, which exports and compiles at every start, as its documentation has it.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.adapters.fit import Watch, lightning_options, windows
from benchmarks.peers.adapters.scored import Score, Scored, files_bytes, load_ids, rank_by, save_ids
from benchmarks.peers.adapters.serve import Settings, serve
from benchmarks.peers.split import Rows, Split, padded

CHECKPOINT = "model.ckpt"


class RePlay:
    """Trains by its Lightning module, on dictionaries of tensors as its own data set makes them."""

    def train(self, split: Split, settings: Settings, out: Path) -> Mapping[str, Any]:
        """One Lightning fit; after each epoch we say whether to go on."""
        import lightning
        from torch.utils.data import DataLoader

        save_ids(out, split.ids)
        lightning.seed_everything(int(settings["seed"]))
        length = int(settings["length"])
        model = _model(settings, split.n_items)
        score = _by_torch(model)
        watch: Watch

        class Epochs(lightning.Callback):  # type: ignore[misc]  # it is not installed with us
            def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
                trainer.should_stop = not watch.goes_on()
                module.train()

        trainer = lightning.Trainer(**lightning_options(settings, Epochs()))
        watch = Watch(
            split,
            settings,
            lambda histories, depth: rank_by(score, histories, depth, length),
            lambda: trainer.save_checkpoint(out / CHECKPOINT, weights_only=True),
        )
        examples: Any = _examples(windows(split, length), length)
        trainer.fit(model, DataLoader(examples, int(settings["batch_size"]), shuffle=True))
        return watch.told()

    def open(self, folder: Path, settings: Settings) -> Scored:
        """The checkpoint in the runtime asked for."""
        import torch
        from replay.models.nn.sequential import SasRec

        warnings.filterwarnings("ignore")
        ids, checkpoint = load_ids(folder), folder / CHECKPOINT
        if settings["runtime"] == "torch":
            model = SasRec.load_from_checkpoint(checkpoint, map_location=torch.device("cpu"), weights_only=False)
            score, size = _by_torch(model), files_bytes(checkpoint)
        else:
            from replay.models.nn.sequential.compiled import SasRecCompiled

            graph = folder / "compiled.onnx"
            compiled = SasRecCompiled.compile(str(checkpoint), "one_query", num_threads=1, onnx_path=str(graph))
            score, size = _one_by_one(compiled), files_bytes(graph)
        return Scored(ids, int(settings["length"]), score, size)


def _model(settings: Settings, n_items: int) -> Any:
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema
    from replay.models.nn.optimizer_utils import FatOptimizerFactory
    from replay.models.nn.sequential import SasRec

    item = TensorFeatureInfo(
        "item_id",
        FeatureType.CATEGORICAL,
        is_seq=True,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        cardinality=n_items,
        padding_value=n_items,
        embedding_dim=int(settings["dim"]),
    )
    return SasRec(
        TensorSchema(item),
        block_count=int(settings["blocks"]),
        head_count=int(settings["heads"]),
        hidden_size=int(settings["dim"]),
        max_seq_len=int(settings["length"]),
        dropout_rate=float(settings["dropout"]),
        loss_type="CE",
        optimizer_factory=FatOptimizerFactory(learning_rate=float(settings["learning_rate"])),
    )


def _examples(pieces: list[Rows], length: int) -> list[dict[str, Any]]:
    """Left-padded; items count from 0."""
    import torch

    inputs, nexts = (padded(part, length) for part in ([p[:-1] for p in pieces], [p[1:] for p in pieces]))
    return [
        {
            "query_id": torch.tensor(place),
            "feature_tensor": {"item_id": torch.from_numpy(np.maximum(seq - 1, 0))},
            "padding_mask": torch.from_numpy(seq > 0),
            "positive_labels": torch.from_numpy(np.maximum(then - 1, 0)),
            "target_padding_mask": torch.from_numpy(then > 0),
        }
        for place, (seq, then) in enumerate(zip(inputs, nexts, strict=True))
    ]


def _asked(histories: Rows) -> dict[str, Any]:
    import torch

    items = torch.from_numpy(np.maximum(histories - 1, 0))
    return {"feature_tensor": {"item_id": items}, "padding_mask": torch.from_numpy(histories > 0)}


def _with_padding(scores: Any) -> Any:
    return np.concatenate([np.full((len(scores), 1), -np.inf, np.float32), scores], axis=1)


def _by_torch(model: Any) -> Score:
    import torch

    def score(histories: Rows) -> Any:
        model.eval()
        with torch.inference_mode():
            return _with_padding(model.predict(_asked(histories)).numpy())

    return score


def _one_by_one(compiled: Any) -> Score:
    def score(histories: Rows) -> Any:
        found = [compiled.predict(_asked(histories[i : i + 1])).numpy() for i in range(len(histories))]
        return _with_padding(np.concatenate(found))

    return score


if __name__ == "__main__":
    serve(RePlay())
