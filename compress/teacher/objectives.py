"""What a language model is trained on before it recommends: masked tokens for encoders, the next token for decoders."""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from compress.models.text import TextEncoder
from compress.stage import Entry, Shorthand, Skip
from compress.training import Share
from deploy.errors import UsageError


class Objective(Entry):
    """What the objectives share: how long, how fast, on which texts, and which share of them only measures.

    `texts`: item texts as they are; `histories`, the item texts of a user's newest `history_events` training events,
    oldest first, one a line; or both. Histories are cut at `history_tokens`.
    """

    epochs: PositiveInt = 2
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-4
    held_out_share: Share = 0.1
    texts: Literal["items", "histories", "both"] = "items"
    history_events: PositiveInt = 8
    history_tokens: Annotated[int, Field(ge=4, le=512)] = 128


class MaskedLM(Objective):
    """Mask tokens (80 % mask, 10 % random, 10 % unchanged) and predict them through the tied word embeddings."""

    name: Literal["masked_lm"] = "masked_lm"
    mask_share: Share = 0.15

    def check(self, causal: bool) -> None:
        """Raises UsageError where the model is of the other kind."""
        if causal:
            raise UsageError(
                "pretrain.objective: the backbone is a decoder, which sees no token after the masked one; "
                "use causal_lm or none (got 'masked_lm')"
            )

    def head(self, encoder: TextEncoder) -> nn.Module:
        if _mask_id(encoder) is None:
            raise UsageError("pretrain.objective: the backbone's tokenizer has no mask token (got 'masked_lm')")
        return _MaskedHead(encoder)

    def asked(self, ids: Tensor, mask: Tensor, encoder: TextEncoder, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, tokens) ids -> the ids to read and the wanted ones, -1 where nothing is asked."""
        return mask_tokens(ids, mask, encoder, self.mask_share, rng)


class CausalLM(Objective):
    """Predict each token after the first from those before it, through the tied word embeddings."""

    name: Literal["causal_lm"] = "causal_lm"
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 5e-5

    def check(self, causal: bool) -> None:
        """Raises UsageError where the model is of the other kind."""
        if not causal:
            raise UsageError(
                "pretrain.objective: the backbone is an encoder, which sees the tokens it would have to predict; "
                "use masked_lm or none (got 'causal_lm')"
            )

    def head(self, encoder: TextEncoder) -> nn.Module:
        if not encoder.lm.config.tie_word_embeddings:
            raise UsageError(
                "pretrain.objective: the backbone's output layer is not its word embeddings, and only the latter are "
                "kept; use none (got 'causal_lm')"
            )
        return _TiedHead(encoder)

    def asked(self, ids: Tensor, mask: Tensor, encoder: TextEncoder, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, tokens) ids -> the same ids, and each token's next one, -1 where there is none."""
        del encoder, rng
        following = torch.where(mask[:, 1:] > 0, ids[:, 1:], torch.tensor(-1))
        return ids, nn.functional.pad(following, (0, 1), value=-1)


AnyObjective = Annotated[MaskedLM | CausalLM | Skip, Field(discriminator="name"), Shorthand]


class _TiedHead(nn.Module):
    """Hidden states (n, hidden) -> logits (n, vocabulary), by the word embeddings."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self._embeddings = [encoder.lm.get_input_embeddings().weight]  # a list: they are no parameter of the head

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = hidden @ self._embeddings[0].T
        return logits


class _MaskedHead(nn.Module):
    """Hidden states -> logits over the vocabulary, tied to the word embeddings. Left behind after pretraining."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder.hidden_size)
        self.transform = nn.Linear(encoder.hidden_size, encoder.hidden_size)
        nn.init.eye_(self.transform.weight)
        self.tied = _TiedHead(encoder)
        self.bias = nn.Parameter(torch.zeros(encoder.lm.config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.tied(self.norm(self.transform(hidden))) + self.bias
        return logits


def mask_tokens(
    ids: Tensor, mask: Tensor, encoder: TextEncoder, share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(batch, tokens) ids -> masked ids and the wanted ones (-1 where nothing is asked). At least one token a batch."""
    special = torch.tensor(sorted(encoder.tokenizer.get_added_tokens_decoder()))
    candidates = mask.bool() & ~torch.isin(ids, special)
    chosen = candidates & (torch.from_numpy(rng.random(ids.shape)) < share)
    if not chosen.any() and candidates.any():
        chosen.view(-1)[int(candidates.view(-1).nonzero()[0])] = True
    fate = torch.from_numpy(rng.random(ids.shape))
    noise = torch.from_numpy(rng.integers(0, encoder.lm.config.vocab_size, ids.shape))
    masked = torch.where(chosen & (fate < 0.8), torch.tensor(_mask_id(encoder)), ids)
    masked = torch.where(chosen & (fate >= 0.9), noise, masked)
    return masked, torch.where(chosen, ids, torch.tensor(-1))


def _mask_id(encoder: TextEncoder) -> int | None:
    found = (encoder.tokenizer.token_to_id(token) for token in ("[MASK]", "<mask>"))
    return next((token for token in found if token is not None), None)
