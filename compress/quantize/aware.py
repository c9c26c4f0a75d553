"""Quantization-aware training: weights are rounded in every step as the exported INT8 graph rounds them.

The values are the graph's bit for bit (`grids.py`); the gradient passes as if nothing had been rounded (Bengio et al.
2013, section 4; Jacob et al. 2018, section 3). Activations are not rounded.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.data.dataset import Dataset
from compress.models.mix import Mix
from compress.models.sequence import SequenceModel
from compress.quantize.grids import fake_outputs, fake_rows
from compress.stage import Entry, RunOptions
from compress.training import Training, batches, fit, validation_ndcg, warm_items
from compress.training.engine import device_of
from compress.training.softmax import next_item_loss
from deploy.errors import UsageError


class QuantizationAware(Entry):
    """A few epochs of the next item's cross-entropy with the item table on the grid of `int8_per_row`, and with `maps`
    the linear maps on that of `int8_dynamic`, where it has any: in all blocks but the last, and from a narrower table.

    The state before competes on validation, so that training that only hurts changes nothing. Items without training
    events stay where their text put them. Every quantized history graph is made of the result; fp32's is not.
    """

    name: Literal["fake_quantization"] = "fake_quantization"
    maps: bool = True
    training: Training = Training(epochs=3, learning_rate=2e-4, weight_decay=0.0, warmup_epochs=0, validate_every=1)

    def __call__(
        self, model: SequenceModel | Mix, dataset: Dataset, rng: np.random.Generator, options: RunOptions
    ) -> SequenceModel:
        """A trained copy; `model` stays. Raises UsageError for a mix, which is no one model to train."""
        if isinstance(model, Mix):
            raise UsageError("quantize.aware: a mix is not trained as one model; give its variant aware: none")
        aware = Aware(deepcopy(model), warm_items(dataset), self.maps).to(device_of(options))
        sequences = dataset.train_sequences()
        sampler = self.training.softmax.sampler(sequences, dataset.n_items, rng)

        def epoch(_number: int) -> Iterator[Tensor]:
            left_out = self.training.softmax.left_out(aware.warm)
            for inputs, targets, _positions in batches(sequences, model.max_history, self.training, rng):
                pair = inputs.to(aware.device), targets.to(aware.device)
                smoothing = self.training.label_smoothing
                yield next_item_loss(aware.table, aware.model.encoder, pair, left_out, smoothing, sampler)[0]

        def validate(_number: int) -> float:
            return validation_ndcg(aware, dataset)

        groups = [(list(aware.parameters()), 1.0)]
        fit(aware, groups, self.training, epoch, validate, options, "quantization-aware", True, rng)
        return aware.unwrapped()


class Aware(nn.Module):
    """A sequence model whose weights are rounded when they are read. `warm` (n_items + 1,) bool: rows that learn."""

    warm: Tensor

    def __init__(self, model: SequenceModel, warm: Tensor, maps: bool) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("warm", warm, persistent=False)
        for linear in rounded_maps(model) if maps else []:
            parametrize.register_parametrization(linear, "weight", _Rounded())

    def table(self, rows: Tensor | None = None) -> Tensor:
        """(n_items + 1, dim), or of `rows` (n,) int64 alone: what the INT8 table stands for."""
        table, warm = self.model.item_table, self.warm
        rounded = fake_rows(table if rows is None else table[rows])
        return torch.where((warm if rows is None else warm[rows])[:, None], rounded, rounded.detach())

    def scores(self, histories: Tensor) -> Tensor:
        """As `SequenceModel.scores`, with rounded weights."""
        table = self.table()
        return self.model.encoder.last(table[histories], histories > 0) @ table.T

    def unwrapped(self) -> SequenceModel:
        """The model with the weights behind the rounded ones, which rounding brings back."""
        for linear in rounded_maps(self.model):
            if parametrize.is_parametrized(linear):
                parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)
        return self.model.cpu().eval()

    @property
    def n_items(self) -> int:
        return self.model.n_items

    @property
    def max_history(self) -> int:
        return self.model.max_history

    @property
    def device(self) -> torch.device:
        return self.model.device


class _Rounded(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return fake_outputs(weight)


def rounded_maps(model: SequenceModel) -> list[nn.Linear]:
    """The linear maps that `int8_dynamic` stores in INT8."""
    blocks, lift = model.encoder.each_block()[:-1], model.encoder.lift
    maps = [part for b in blocks for part in (b.query, b.key, b.value, b.output, b.up, b.down)]
    return maps if lift is None else [lift, *maps]
