"""Gradient checkpointing: what a layer computes inside is not kept but computed again in the backward pass."""

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """A layer that keeps its inputs alone for the backward pass (Chen et al. 2016); the same values and gradients,
    dropout included, for less memory and one more forward pass."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return checkpoint(self.layer, *inputs, use_reentrant=False, **named)
