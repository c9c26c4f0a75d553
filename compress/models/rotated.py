"""What a BERT-like encoder has in place of its norms and residuals once its states are rotated and cut.

LayerNorm is mean-subtraction, which folds into the maps before it, then division by the root mean square, which any
rotation commutes with, then a gain and an offset, which none does: they fold into whatever reads the states. One reader
is the next sum, whose residual so gets a map of its own (SliceGPT: Ashkboos et al. 2024, sections 3.2 and 3.3).
"""

from typing import Any

import torch
from torch import Tensor, nn


class RootMeanSquareNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight
        return normed


class RotatedOutput(nn.Module):
    """norm(dense(x) + residual(y)): what ends a BERT layer or its attention, with a map for the residual."""

    def __init__(self, inputs: int, hidden: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.dense, self.residual = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.LayerNorm = RootMeanSquareNorm(hidden, eps)  # named as in the module it replaces
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.dropout(self.dense(hidden_states)) + self.residual(input_tensor))
        return normed


def rotated_layout(lm: Any) -> None:
    """Give a BERT-like LM, in place, fresh parts of this kind as wide as `config.hidden_size` says."""
    config = lm.config
    sizes = config.hidden_size, config.layer_norm_eps, config.hidden_dropout_prob
    lm.embeddings.LayerNorm = RootMeanSquareNorm(*sizes[:2])
    for layer in lm.encoder.layer:
        for owner in (layer.attention, layer):
            owner.output = RotatedOutput(owner.output.dense.in_features, *sizes)
