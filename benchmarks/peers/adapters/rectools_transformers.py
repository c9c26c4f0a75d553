"""RecTools' SASRec and eSASRec (arXiv 2508.06450: LiGR layers, sampled softmax).

`settings["answers"]`: `recommend`, its documented call, or `module`, the torch module behind it with id map, filter and
top k around it, as somebody would write who has to answer one request at a time.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.adapters.fit import Watch, lightning_options, windows
from benchmarks.peers.adapters.scored import Score, Scored, files_bytes, load_ids, rank_by, save_ids
from benchmarks.peers.adapters.serve import Settings, serve
from benchmarks.peers.split import Rows, Split

CHECKPOINT = "model.ckpt"


class Recommend:
    """Answers by `model.recommend`, a data frame of interactions per question; ranks through the torch module."""

    def __init__(self, model: Any, scored: Scored) -> None:
        self._model, self._scored, self.size_bytes = model, scored, scored.size_bytes

    def rank(self, histories: Sequence[Rows], depth: int) -> NDArray[np.int32]:
        """As `serve.Model.rank`."""
        return self._scored.rank(histories, depth)

    def recommend(self, history: Sequence[str], k: int) -> list[str]:
        """As `serve.Model.recommend`."""
        found = self._model.recommend(users=[0], dataset=_dataset([history]), k=k, filter_viewed=True)
        return [str(item) for item in found["item_id"]]


class RecTools:
    """Trains by RecTools' own data preparator and Lightning module."""

    def train(self, split: Split, settings: Settings, out: Path) -> Mapping[str, Any]:
        """One Lightning fit; after each epoch we say whether to go on."""
        from pytorch_lightning import Callback, Trainer, seed_everything

        save_ids(out, split.ids)
        seed_everything(int(settings["seed"]))
        length = int(settings["length"])
        watch: Watch

        class Epochs(Callback):  # type: ignore[misc]  # it is not installed with us
            def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
                module.eval()
                trainer.should_stop = not watch.goes_on()
                module.train()

        def trainer() -> Any:
            return Trainer(**lightning_options(settings, Epochs()))

        model = _model(settings, trainer)
        watch = Watch(
            split,
            settings,
            lambda histories, depth: rank_by(_score(model, split.ids), histories, depth, length),
            lambda: model.lightning_model.trainer.save_checkpoint(
                out / CHECKPOINT
            ),  # its loader wants the optimizer too
        )
        model.fit(_dataset([[split.ids[row - 1] for row in rows] for rows in windows(split, length)]))
        return watch.told()

    def open(self, folder: Path, settings: Settings) -> Any:
        """Load the checkpoint by RecTools' own loader."""
        from rectools.models import SASRecModel

        warnings.filterwarnings("ignore")  # one per answer, printed, would be timed
        ids = load_ids(folder)
        model = SASRecModel.load_from_checkpoint(
            folder / CHECKPOINT, model_params_update={"get_trainer_func": None, "recommend_torch_device": "cpu"}
        )
        size = files_bytes(folder / CHECKPOINT)
        scored = Scored(ids, int(settings["length"]), _score(model, ids), size)
        return Recommend(model, scored) if settings.get("answers") == "recommend" else scored


def _model(settings: Settings, trainer: Any) -> Any:
    from rectools.models import SASRecModel
    from rectools.models.nn.item_net import IdEmbeddingsItemNet
    from rectools.models.nn.transformers.ligr import LiGRLayers

    modern = {"transformer_layers_type": LiGRLayers} if settings.get("layers") == "ligr" else {}
    return SASRecModel(
        n_factors=int(settings["dim"]),
        n_blocks=int(settings["blocks"]),
        n_heads=int(settings["heads"]),
        dropout_rate=float(settings["dropout"]),
        session_max_len=int(settings["length"]),
        loss=settings["loss"],
        n_negatives=int(settings.get("negatives", 1)),
        lr=float(settings["learning_rate"]),
        batch_size=int(settings["batch_size"]),
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
        **modern,
    )


def _dataset(histories: Sequence[Sequence[str]]) -> Any:
    """One user per history; time is the place in it."""
    import pandas as pd
    from rectools.dataset import Dataset

    lengths = [len(history) for history in histories]
    places = np.concatenate([np.arange(length) for length in lengths])
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(len(histories)), lengths),
            "item_id": [item for history in histories for item in history],
            "weight": 1.0,
            "datetime": pd.to_datetime(places, unit="D"),
        }
    )
    return Dataset.construct(frame)


def _score(model: Any, ids: Sequence[str]) -> Score:
    """Items without a training event are unknown to RecTools and never ranked."""
    import torch

    preparator, module = model.data_preparator, model.lightning_model.torch_model
    known = preparator.item_id_map.to_internal
    its = np.array([0] + [int(known.get(item, 0)) for item in ids], np.int64)
    unknown = its == 0
    module.eval()
    with torch.no_grad():
        items = module.item_model.get_all_embeddings()

    def score(histories: Rows) -> Any:
        with torch.inference_mode():
            batch = {"x": torch.from_numpy(its[histories])}
            users = module.encode_sessions(batch, items)[:, -1, :]
            scores = (users @ items.T).numpy()[:, its]
        scores[:, unknown] = -np.inf
        return scores

    return score


if __name__ == "__main__":
    serve(RecTools())
