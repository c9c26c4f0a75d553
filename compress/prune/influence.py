"""By what whole layers are chosen: the criterion's sums over their parts, or what a layer does to its states."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from compress.models.text import TextEncoder
from compress.prune.criteria import Floats, Losses, Scores, check_scores, forward_passes
from compress.prune.views import Model, sequence_encoder
from compress.stage import Entry, Shorthand


class OfCriterion(Entry):
    """A layer scores what its heads and neurons do together."""

    name: Literal["criterion"] = "criterion"

    def __call__(self, model: Model, losses: Losses, scores: Scores) -> Floats:
        del model, losses
        return scores.layers


class BlockInfluence(Entry):
    """1 - the mean cosine of a layer's input and output states, over the tokens or events of the calibration batches.

    ShortGPT (Men et al. 2024, section 3.1). Padding does not count. Needs forward passes and no gradients; the model is
    left as it was. Raises ValueError without a batch or where a score is not finite.
    """

    name: Literal["block_influence"] = "block_influence"

    def __call__(self, model: Model, losses: Losses, scores: Scores) -> Floats:
        del scores
        text = isinstance(model, TextEncoder)
        layers = list(model.layers if isinstance(model, TextEncoder) else sequence_encoder(model).each_block())
        cosines, count = [0.0 for _ in layers], [0 for _ in layers]
        known = torch.zeros(0)

        def look(_layer: nn.Module, args: Any, named: dict[str, Any]) -> None:
            nonlocal known
            known = _real_tokens(args, named) if text else args[0].any(-1)

        def compare(number: int, args: Any, output: Tensor) -> None:
            asked = args[2] if not text and len(args) > 2 else args[0]  # a last block may be asked for the last event
            real = known[:, -asked.shape[1] :]
            cosines[number] += float(functional.cosine_similarity(asked[real], output[real], dim=-1).double().sum())
            count[number] += int(real.sum())

        hooks = [layers[0].register_forward_pre_hook(look, with_kwargs=True)]
        for number, layer in enumerate(layers):
            hooks.append(layer.register_forward_hook(lambda _, args, out, number=number: compare(number, args, out)))
        try:
            batches = forward_passes(model, losses)
        finally:
            for hook in hooks:
                hook.remove()
        found: Floats = 1.0 - np.array(cosines) / np.maximum(count, 1)
        check_scores(batches, [found])
        return found


LayersBy = Annotated[OfCriterion | BlockInfluence, Field(discriminator="name"), Shorthand]


def _real_tokens(args: Any, named: dict[str, Any]) -> Tensor:
    """Which tokens the last one may look at, all that are real: (texts, tokens) bool."""
    mask: Tensor = named["attention_mask"] if "attention_mask" in named else args[1]
    return mask[:, 0, -1] > -1.0
