"""What a language model computes on the way to an item vector: the states of its layers and of their attention."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compress.models.text import TextEncoder


@dataclass(frozen=True)
class TextStates:
    """Item vectors (texts, dim); per layer the hidden states after it (texts, tokens, hidden), and what its attention
    projects them to, queries, keys and values, (texts, tokens, width) each, all heads side by side."""

    vectors: Tensor
    hidden: tuple[Tensor, ...]
    attention: tuple[tuple[Tensor, Tensor, Tensor], ...]


def text_states(encoder: TextEncoder, input_ids: Tensor, attention_mask: Tensor) -> TextStates:
    """input_ids, attention_mask (texts, tokens) int64 -> the vectors of `encoder(...)` with the states behind them.

    Queries and keys are those before rotary positions, where a model has them.
    """
    hidden, attention = [encoder.lower(input_ids, attention_mask, 0)], []
    for layer in encoder.layers:
        seen: dict[int, Tensor] = {}
        maps = encoder.family.projections(layer)
        hooks = [module.register_forward_hook(_keep(seen, index)) for index, module in enumerate(maps)]
        try:
            hidden.append(encoder.family.run(encoder.lm, [layer], hidden[-1], attention_mask))
        finally:
            for hook in hooks:
                hook.remove()
        attention.append((seen[0], seen[1], seen[2]))
    vectors = encoder.head(encoder.pooled(hidden[-1], attention_mask, len(encoder.layers)))
    return TextStates(vectors, tuple(hidden[1:]), tuple(attention))


def _keep(seen: dict[int, Tensor], index: int) -> Callable[[nn.Module, Any, Tensor], None]:
    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen[index] = output

    return keep
