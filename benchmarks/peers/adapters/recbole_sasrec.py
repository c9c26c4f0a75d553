"""RecBole's SASRec. RecBole ends at an evaluated model: id map, filter and top k are `Scored`'s."""

from collections.abc import Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.adapters.fit import Watch
from benchmarks.peers.adapters.scored import Score, Scored, files_bytes, load_ids, rank_by, save_ids
from benchmarks.peers.adapters.serve import Settings, serve
from benchmarks.peers.split import Rows, Split

NAME = "split"


class RecBole:
    """Trains by RecBole's own dataset (every prefix of a history is a row), loader and trainer."""

    def train(self, split: Split, settings: Settings, out: Path) -> Mapping[str, Any]:
        """Epoch by epoch; ours is only when to stop."""
        import torch
        from recbole.data.dataloader.general_dataloader import TrainDataLoader
        from recbole.trainer import Trainer

        save_ids(out, split.ids)
        _write_atomic(split, out / "data" / NAME)
        config, dataset, model = _model(out, settings)
        built = dataset.build()[0]
        loader: Any = TrainDataLoader(config, built, None, shuffle=True)  # cross-entropy draws no negatives
        trainer = Trainer(config, model)
        score = _score(model, dataset, split.ids)

        watch = Watch(
            split,
            settings,
            lambda histories, depth: rank_by(score, histories, depth, int(settings["length"])),
            lambda: torch.save(model.state_dict(), out / "model.pt"),
        )
        if settings["batches"]:
            loader = list(islice(loader, settings["batches"]))
        going, epochs = True, count()
        while going:
            model.train()
            trainer._train_epoch(loader, next(epochs))
            going = watch.goes_on()
        return watch.told()

    def open(self, folder: Path, settings: Settings) -> Scored:
        """The model in eval mode, asked through `full_sort_predict`."""
        import torch

        _, dataset, model = _model(folder, settings)
        model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        ids = load_ids(folder)
        return Scored(ids, int(settings["length"]), _score(model, dataset, ids), files_bytes(folder / "model.pt"))


def _write_atomic(split: Split, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f"{NAME}.item").write_text("item_id:token\n" + "".join(f"{item}\n" for item in split.ids))
    with folder.joinpath(f"{NAME}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, rows in enumerate(split.train.lists):
            file.writelines(f"{user}\t{split.ids[row - 1]}\t{place}\n" for place, row in enumerate(rows.tolist()))


def _model(folder: Path, settings: Settings) -> tuple[Any, Any, Any]:
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.model.sequential_recommender import SASRec
    from recbole.utils import init_seed

    config = Config(
        model="SASRec",
        dataset=NAME,
        config_dict={
            "data_path": str(folder / "data"),
            "checkpoint_dir": str(folder / "checkpoints"),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
            "MAX_ITEM_LIST_LENGTH": settings["length"],
            "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "order": "TO", "group_by": None, "mode": "full"},
            "use_gpu": False,
            "show_progress": False,
            "seed": settings["seed"],
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "hidden_size": settings["dim"],
            "inner_size": 4 * settings["dim"],
            "n_layers": settings["blocks"],
            "n_heads": settings["heads"],
            "hidden_dropout_prob": settings["dropout"],
            "attn_dropout_prob": settings["dropout"],
            "learning_rate": settings["learning_rate"],
            "train_batch_size": settings["batch_size"],
            "enable_scatter": False,
        },
    )
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    return config, dataset, SASRec(config, dataset).eval()


def _score(model: Any, dataset: Any, ids: list[str]) -> Score:
    """RecBole pads on the right and has an order of its own; scores go back to ours."""
    import torch

    its = np.concatenate([[0], dataset.token2id("item_id", np.array(ids))]).astype(np.int64)
    fields = (model.ITEM_SEQ, model.ITEM_SEQ_LEN)

    def score(histories: Rows) -> Any:
        model.eval()
        lengths = (histories > 0).sum(axis=1)
        turned = np.zeros_like(histories)
        for line, rows, length in zip(turned, histories, lengths, strict=True):
            line[:length] = its[rows[len(rows) - length :]]
        asked = dict(zip(fields, (torch.from_numpy(turned), torch.from_numpy(lengths)), strict=True))
        with torch.inference_mode():
            return model.full_sort_predict(asked).numpy()[:, its]

    return score


if __name__ == "__main__":
    serve(RecBole())
