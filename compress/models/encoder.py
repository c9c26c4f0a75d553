"""What every item encoder does, whatever is inside: texts -> tokens -> item vectors."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from compress.models.tokens import by_length, tokenized


class ItemEncoder(nn.Module, ABC):
    """input_ids, attention_mask (batch, tokens) int64 -> item vectors (batch, dim); texts through `tokenizer`."""

    tokenizer: Tokenizer

    @property
    @abstractmethod
    def dim(self) -> int: ...

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """The longest text, in tokens; longer ones are cut."""

    @abstractmethod
    def distilled(self) -> list[nn.Parameter]:
        """The weights that learn when the encoder is a student."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the `text/` part of a model folder."""

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts -> input_ids, attention_mask (len(texts), longest) int64, padded on the right, cut at max_tokens."""
        return tokenized(self.tokenizer, texts)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts -> item vectors (len(texts), dim) float32, without dropout and in bounded memory."""
        return self.encode_tokens(*self.tokenize(texts))

    @torch.no_grad()
    def encode_tokens(self, ids: Tensor, mask: Tensor) -> NDArray[np.float32]:
        """ids, mask (texts, tokens) int64, padded on the right -> as `encode`."""
        self.eval()
        device = next(self.parameters()).device
        vectors = np.zeros((len(ids), self.dim), np.float32)
        for index in by_length(mask):
            used = int(mask[index].sum(1).max())
            vectors[index.numpy()] = self(ids[index, :used].to(device), mask[index, :used].to(device)).float().cpu()
        return vectors
