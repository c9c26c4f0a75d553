"""Which item texts a text encoder learns from, and on which of them it is judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compress.data.dataset import Dataset, domain_names
from compress.stage import Entry

Texts = Literal["warm", "all"]
"""Whose texts an encoder learns from. `warm`: cold items, which stand for those that are new on a device, are left
out, so that what is measured on them is measured on texts nobody has read; `all`: every item that has a text."""

HELD_OUT = 0.1


class TextReader(Entry):
    """A student that reads item texts. A share `held_out` of them measures it and teaches nothing, the same texts for
    all that hold as much out: so encoders of different kinds can be compared."""

    texts: Texts = "warm"
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = HELD_OUT


@dataclass(frozen=True)
class ItemTexts:
    """Texts to learn from, and those held out: of a single text none is."""

    read: list[str]
    held_out: list[str]

    @property
    def all(self) -> list[str]:
        return [*self.read, *self.held_out]


def item_texts(data: Path, which: Texts, held_out: float) -> ItemTexts:
    """The item texts of all domains, each once."""
    found: set[str] = set()
    for dataset in (Dataset.open(data, domain) for domain in domain_names(data)):
        left_out = set(dataset.cold_items.tolist()) if which == "warm" else set()
        found.update(text for row, text in enumerate(dataset.texts, start=1) if row not in left_out)
    return parted(sorted(found), held_out)


def parted(texts: Sequence[str], held_out: float) -> ItemTexts:
    """Hold a share of the texts out by their digests: whoever asks, with whatever seed, holds the same ones out."""
    held = min(max(1, round(held_out * len(texts))), len(texts) - 1)
    first = set(sorted(texts, key=lambda text: sha256(text.encode()).digest())[:held])
    return ItemTexts([text for text in texts if text not in first], [text for text in texts if text in first])
