"""Which item texts a text encoder learns from, texts made of them, and on which of them it is judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat
from tokenizers import Tokenizer

from compress.data.dataset import Dataset, domain_names
from compress.stage import Entry

Texts = Literal["warm", "all"]
"""Whose texts an encoder learns from. `warm`: cold items, which stand for those that are new on a device, are left
out, so that what is measured on them is measured on texts nobody has read; `all`: every item that has a text."""


class TextReader(Entry):
    """A student that reads item texts. A share `held_out` of them measures it and teaches nothing, the same texts for
    all that hold as much out: so encoders of different kinds can be compared. `made`: for each text it learns from, so
    many more made of two (`crossed`), which the teacher encodes as it does any."""

    texts: Texts = "warm"
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    made: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class ItemTexts:
    """Texts to learn from, those held out (of a single text none is), and those made of the former."""

    read: list[str]
    held_out: list[str]
    made: tuple[str, ...] = ()

    @property
    def items(self) -> list[str]:
        """Texts that items have."""
        return [*self.read, *self.held_out]

    @property
    def learned(self) -> list[str]:
        return [*self.read, *self.made]


def item_texts(data: Path, reader: TextReader, words: Callable[[str], list[str]] = str.split) -> ItemTexts:
    """The item texts of all domains, each once, and texts made of their `words`."""
    found: set[str] = set()
    for dataset in (Dataset.open(data, domain) for domain in domain_names(data)):
        left_out = set(dataset.cold_items.tolist()) if reader.texts == "warm" else set()
        found.update(text for row, text in enumerate(dataset.texts, start=1) if row not in left_out)
    texts = parted(sorted(found), reader.held_out)
    made = crossed(texts, round(reader.made * len(texts.read)), words)
    return replace(texts, made=tuple(made))


def parted(texts: Sequence[str], held_out: float) -> ItemTexts:
    """Hold a share of the texts out by their digests: whoever asks, with whatever seed, holds the same ones out."""
    held = min(max(1, round(held_out * len(texts))), len(texts) - 1)
    first = set(sorted(texts, key=lambda text: sha256(text.encode()).digest())[:held])
    return ItemTexts([text for text in texts if text not in first], [text for text in texts if text in first])


_TRIES = 10


def crossed(texts: ItemTexts, count: int, words: Callable[[str], list[str]]) -> list[str]:
    """At most `count` texts that no item has, the first words of one text before the last words of another; always the
    same ones. Fewer where so few words give no more."""
    parts = [found for found in map(words, texts.read) if len(found) > 1]
    known, made, rng = set(texts.items), list[str](), np.random.default_rng(0)
    for _ in range(_TRIES * count if parts else 0):
        first, last = (parts[int(rng.integers(len(parts)))] for _ in range(2))
        text = " ".join([*first[: int(rng.integers(1, len(first)))], *last[int(rng.integers(1, len(last))) :]])
        if text not in known:
            known.add(text)
            made.append(text)
            if len(made) == count:
                break
    return made


def words_of(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """Where the tokenizer sees words: in a language written without spaces too."""

    def words(text: str) -> list[str]:
        plain = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
        if tokenizer.pre_tokenizer is None:
            return plain.split()
        spans = (span for _, span in tokenizer.pre_tokenizer.pre_tokenize_str(plain))
        return [word for start, end in spans if (word := plain[start:end].strip())]

    return words
