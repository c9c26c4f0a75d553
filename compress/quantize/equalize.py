"""Moving large activations into weights, so that neither is hard to round (SmoothQuant, Xiao et al. 2023, section 4).

Channel j of what a linear map reads is divided by s_j = max|X_j|^a / max|W_j|^(1 - a), and column j of its weight
multiplied. The division is folded into whatever made the activation. The fp32 answers stay as they were.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.text import TextEncoder

SMALLEST = 1e-5


class ScaledResidual(nn.Module):
    """A BERT layer's output part, given its residual in the units it had before the norm that made it was divided.

    In BERT a norm's output is also the next sum's residual, so folding alone would change that: one product more.
    """

    scale: Tensor

    def __init__(self, inner: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("scale", scale)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        summed: Tensor = self.inner(hidden, residual * self.scale)
        return summed


@dataclass
class Fold:
    """`makers` write what `readers` read. `repeats`: query heads that share a head of values (1: none do).

    `owner.attribute` is the module that also takes it as a residual, if any.
    """

    makers: list[Any]
    readers: list[nn.Linear]
    repeats: int = 1
    head_dim: int = 1
    owner: Any = None
    attribute: str = "output"

    def scale(self, largest: Tensor, strength: float) -> Tensor:
        """largest (in,), what was seen of the readers' input -> s (channels of the makers,)."""
        weights = torch.stack([reader.weight.abs().amax(0) for reader in self.readers]).amax(0)
        shared = [self._shared(values).amax(1).flatten() for values in (largest, weights)]
        found = shared[0].clamp(min=SMALLEST) ** strength / shared[1].clamp(min=SMALLEST) ** (1 - strength)
        return torch.where(shared[0] > 0, found.clamp(min=SMALLEST), 1.0)

    def apply(self, scale: Tensor) -> None:
        for maker in self.makers:
            maker.weight.div_(scale if maker.weight.ndim == 1 else scale[:, None])
            if getattr(maker, "bias", None) is not None:
                maker.bias.div_(scale)
        own = scale.view(-1, 1, self.head_dim).expand(-1, self.repeats, -1).flatten()
        for reader in self.readers:
            reader.weight.mul_(own)
        if self.owner is not None:
            setattr(self.owner, self.attribute, ScaledResidual(getattr(self.owner, self.attribute), scale))

    def _shared(self, values: Tensor) -> Tensor:
        """(in,) -> (heads of values, repeats, head_dim)."""
        return values.view(-1, self.repeats, self.head_dim)


def folds(lm: Any, causal: bool) -> Iterator[Fold]:
    """Where a language model's activations can be divided without any other change of its function."""
    return _llama_folds(lm) if causal else _bert_folds(lm)


def _bert_folds(lm: Any) -> Iterator[Fold]:
    """Not up -> down: GELU stands between, and what it makes of a scaled input is not scaled."""
    norm = lm.embeddings.LayerNorm
    for layer in lm.encoder.layer:
        attention, own = layer.attention.self, layer.attention.output
        yield Fold([norm], [attention.query, attention.key, attention.value], owner=layer.attention)
        yield Fold([attention.value], [own.dense])
        yield Fold([own.LayerNorm], [layer.intermediate.dense], owner=layer)
        norm = layer.output.LayerNorm


def _llama_folds(lm: Any) -> Iterator[Fold]:
    for layer in lm.layers:
        attention, mlp = layer.self_attn, layer.mlp
        repeats = attention.o_proj.in_features // attention.v_proj.out_features
        yield Fold([layer.input_layernorm], [attention.q_proj, attention.k_proj, attention.v_proj])
        yield Fold([attention.v_proj], [attention.o_proj], repeats, int(attention.head_dim))
        yield Fold([layer.post_attention_layernorm], [mlp.gate_proj, mlp.up_proj])
        yield Fold([mlp.up_proj], [mlp.down_proj])


@torch.no_grad()
def equalized(encoder: TextEncoder, texts: Sequence[str], strength: float) -> TextEncoder:
    """A copy whose activations on `texts` are as large as its weights, more so as `strength` goes from 0 to 1."""
    copy = deepcopy(encoder).eval()
    places = list(folds(copy.lm, copy.family.causal))
    largest: dict[nn.Module, Tensor] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].abs().flatten(0, -2).amax(0)
        largest[module] = torch.maximum(largest[module], seen) if module in largest else seen

    hooks = [fold.readers[0].register_forward_pre_hook(look) for fold in places]
    copy.encode(texts)
    for hook in hooks:
        hook.remove()
    for fold in places:
        fold.apply(fold.scale(largest[fold.readers[0]], strength))
    return copy
