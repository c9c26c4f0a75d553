"""Torch-RecHub's SASRec: torch, its ONNX export, and its INT8 of that. It ends at a user vector: the scan of the item
table, id map, filter and top k are ours.

`settings["runtime"]`: `torch`, `onnx` or `int8`. What release 0.9.0 leaves to do: its `MatchTrainer` fails on this
model (pair-wise by shapes, in-batch by a missing attribute), so that the loop here gives it the stronger cross-entropy
over the catalogue; its model squeezes a batch of one away and its export keeps the batch it was traced with, so that a
question is asked twice in one batch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.adapters.fit import Watch, windows
from benchmarks.peers.adapters.scored import Score, Scored, files_bytes, load_ids, rank_by, save_ids
from benchmarks.peers.adapters.serve import Settings, serve
from benchmarks.peers.split import Rows, Split

_TRACED = 2
"""The batch that the exported graph answers."""


class TorchRecHub:
    """Its model, its export and its quantizer."""

    def train(self, split: Split, settings: Settings, out: Path) -> Mapping[str, Any]:
        """Adam, cross-entropy at every place of every window."""
        import torch

        save_ids(out, split.ids)
        torch.manual_seed(int(settings["seed"]))
        length, size = int(settings["length"]), int(settings["batch_size"])
        model = _model(settings, split.n_items)
        optimizer = torch.optim.Adam(model.parameters(), lr=float(settings["learning_rate"]))
        pieces = windows(split, length)
        seq = torch.from_numpy(_right([rows[:-1] for rows in pieces], length))
        nexts = torch.from_numpy(_right([rows[1:] for rows in pieces], length))
        score = _by_torch(model)
        watch = Watch(
            split,
            settings,
            lambda histories, depth: rank_by(score, histories, depth, length),
            lambda: torch.save(model.state_dict(), out / "model.pt"),
        )
        going = True
        while going:
            model.train()
            order: Any = torch.randperm(len(seq))
            for part in order.split(size)[: settings["batches"]]:
                asked = {"seq": seq[part]}
                states = model.seq_forward(asked, model.item_emb(asked, model.features[:1])[:, 0])
                known = nexts[part] > 0
                logits = states[known] @ model.item_emb.embed_dict["seq"].weight.T
                loss: Any = torch.nn.functional.cross_entropy(logits, nexts[part][known])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            going = watch.goes_on()
        model.load_state_dict(torch.load(out / "model.pt", weights_only=True))
        _export(model.eval(), out, length)
        return watch.told()

    def open(self, folder: Path, settings: Settings) -> Scored:
        """The best epoch's model in the runtime asked for."""
        ids, length, runtime = load_ids(folder), int(settings["length"]), settings["runtime"]
        if runtime == "torch":
            import torch

            model = _model(settings, len(ids))
            model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
            return Scored(ids, length, _by_torch(model.eval()), files_bytes(folder / "model.pt"))
        graph = folder / f"user.{runtime}.onnx"
        return Scored(ids, length, _by_onnx(graph, folder / "items.npy"), files_bytes(graph, folder / "items.npy"))


def _model(settings: Settings, n_items: int) -> Any:
    from torch_rechub.basic.features import SequenceFeature
    from torch_rechub.models.matching import SASRec

    shape = {"vocab_size": n_items + 1, "embed_dim": int(settings["dim"]), "pooling": "concat"}
    seq = SequenceFeature("seq", **shape)
    others = [SequenceFeature(name, **shape, shared_with="seq") for name in ("pos", "neg")]
    return SASRec(
        [seq, *others],
        max_len=int(settings["length"]),
        dropout_rate=float(settings["dropout"]),
        num_blocks=int(settings["blocks"]),
        num_heads=int(settings["heads"]),
    )


def _right(pieces: list[Rows], length: int) -> Rows:
    """Right-padded, as the model finds the last event by counting."""
    table = np.zeros((len(pieces), length), np.int64)
    for line, rows in zip(table, pieces, strict=True):
        line[: len(rows)] = rows
    return table


def _turned(histories: Rows) -> Rows:
    """Left-padded -> right-padded, a batch of one doubled."""
    lists = [rows[rows > 0] for rows in histories]
    return _right(lists * _TRACED if len(lists) == 1 else lists, histories.shape[1])


def _by_torch(model: Any) -> Score:
    import torch

    table = model.item_emb.embed_dict["seq"].weight

    def score(histories: Rows) -> Any:
        model.eval()
        model.mode = "user"
        with torch.inference_mode():
            users = model({"seq": torch.from_numpy(_turned(histories))})
            scores = (users[: len(histories)] @ table.T).numpy()
        model.mode = None
        return scores

    return score


def _by_onnx(graph: Path, items: Path) -> Score:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    name, table = session.get_inputs()[0].name, np.load(items, allow_pickle=False).T

    def score(histories: Rows) -> Any:
        asked = _turned(histories)
        odd = len(asked) % _TRACED
        asked = np.concatenate([asked, asked[:odd]])
        pairs = [asked[start : start + _TRACED] for start in range(0, len(asked), _TRACED)]
        users = np.concatenate([session.run(None, {name: pair})[0] for pair in pairs])
        return users[: len(histories)] @ table

    return score


def _export(model: Any, out: Path, length: int) -> None:
    import torch
    from torch_rechub.utils.onnx_export import ONNXExporter
    from torch_rechub.utils.quantization import quantize_model

    asked = {"seq": torch.ones((_TRACED, length), dtype=torch.int64)}
    fp32, int8 = str(out / "user.onnx.onnx"), str(out / "user.int8.onnx")
    legacy = {"dynamo": False}
    model.user_features = model.features[:1]  # what the exporter looks for, and this model does not have
    ONNXExporter(model).export(fp32, "user", asked, seq_length=length, dynamic_batch=False, onnx_export_kwargs=legacy)
    quantize_model(fp32, int8, mode="int8")
    np.save(out / "items.npy", model.item_emb.embed_dict["seq"].weight.detach().numpy(), allow_pickle=False)


if __name__ == "__main__":
    serve(TorchRecHub())
