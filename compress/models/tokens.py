"""Texts -> token ids, and texts or other rows in batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from torch import Tensor


def tokenized(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts -> input_ids, attention_mask (len(texts), longest) int64, padded and cut as the tokenizer says."""
    encoded = tokenizer.encode_batch(list(texts))
    ids = torch.tensor([e.ids for e in encoded], dtype=torch.int64)
    mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.int64)
    return ids, mask


def bounded(tokenizer: Tokenizer, config: Any, max_tokens: int) -> Tokenizer:
    """Cut at max_tokens and pad each batch, on the right, to its longest text with the model's own padding token."""
    pad = int(config.pad_token_id or 0)
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad))
    return tokenizer


def cut_at(tokenizer: Tokenizer, max_tokens: int) -> Tokenizer:
    """A copy that cuts texts at another length."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.enable_truncation(max_length=max_tokens)
    return copy


def ended(tokenizer: Tokenizer, config: Any) -> Tokenizer:
    """Let every text end with the end token where the tokenizer adds nothing of its own.

    An empty text then has a token, and the last token, which may stand for the whole text, is the same for all.
    """
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    token = None if end is None else tokenizer.id_to_token(int(end))
    if token is None or tokenizer.encode("").ids:
        return tokenizer
    frame = processors.TemplateProcessing(f"$A {token}", f"$A $B {token}", [(token, int(end))])
    old = tokenizer.post_processor
    tokenizer.post_processor = frame if old is None else processors.Sequence([old, frame])
    return tokenizer


def by_length(mask: Tensor, size: int = 128) -> Iterator[Tensor]:
    """Indices of texts in batches of like length, so that little of the work is padding. mask: (texts, tokens)."""
    return iter(torch.split(mask.sum(1).argsort(stable=True), size))


def batches(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
