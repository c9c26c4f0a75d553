"""A variant with a seed: one walk through the per-variant stages, and how gathering stages name what it left."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compress.stage import Inputs

Role = Literal["teacher", "student", "control", "text_encoder"]


@dataclass(frozen=True)
class Chain:
    """Role, variant and seed. Its text form is unique within a run."""

    role: Role
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.role}:{self.variant}:{self.seed}"

    @property
    def name(self) -> str:
        """What people read: the variant, and the seed where it is not 0."""
        return self.variant if self.seed == 0 else f"{self.variant}@{self.seed}"

    @classmethod
    def parse(cls, text: str) -> "Chain":
        role, variant, seed = text.split(":")
        return cls(role, variant, int(seed))  # type: ignore[arg-type]


def gathered(inputs: Inputs, stage: str) -> Iterator[tuple[Chain, Path]]:
    """Every chain's artifact of `stage` among a gathering stage's inputs, in the order of the run."""
    for name, path in inputs.items():
        kind, separator, chain = name.partition("/")
        if separator and kind == stage:
            yield Chain.parse(chain), path


def gathered_name(stage: str, chain: Chain) -> str:
    return f"{stage}/{chain}"
