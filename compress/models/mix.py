"""A weighted sum of rankers' scores: a language model's teacher and what knows about items that texts do not tell.

Every member scores by a dot product, so the sum is one too: of the members' user vectors, one after the other, with
their item vectors. It is kept as members because their graphs are cheaper than one wide product.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from compress.models.sequence import SequenceModel


class Scorer(Protocol):
    """What ranks a catalogue: sequence models, and mixes of them."""

    @property
    def n_items(self) -> int: ...
    @property
    def max_history(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def eval(self) -> object: ...
    def scores(self, histories: Tensor) -> Tensor:
        """histories (batch, length) int64 rows, oldest first, padded with 0 on the left -> (batch, n_items + 1)."""


class ItemItem(nn.Module):
    """Item-item weights (n_items + 1, n_items + 1): the sum of the rows of the last `last` events (EASE)."""

    weights: Tensor

    def __init__(self, weights: Tensor, last: int) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.max_history = last

    @property
    def n_items(self) -> int:
        return len(self.weights) - 1

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def scores(self, histories: Tensor) -> Tensor:
        return functional.embedding_bag(histories, self.weights, mode="sum", padding_idx=0)


class ItemBias(nn.Module):
    """One score per item, (n_items + 1,), the same for everybody."""

    bias: Tensor
    max_history = 1

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", bias.float())

    @property
    def n_items(self) -> int:
        return len(self.bias) - 1

    @property
    def device(self) -> torch.device:
        return self.bias.device

    def scores(self, histories: Tensor) -> Tensor:
        return self.bias.expand(len(histories), -1)


Member = SequenceModel | ItemItem | ItemBias


class MemberFacts(BaseModel):
    """One line of `mix.json`. `reads_text`: this member's item vectors come from the texts' encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Literal["sequence", "item_item", "item_bias"]
    weight: float = Field(ge=0.0, allow_inf_nan=False)
    reads_text: bool = False
    last: int = 0


class Mix(nn.Module):
    """Members with their weights; the scores are logits over the catalogue, calibrated where weights were chosen."""

    def __init__(self, members: Sequence[Member], facts: Sequence[MemberFacts]) -> None:
        super().__init__()
        self.members, self.facts = nn.ModuleList(members), tuple(facts)

    @property
    def n_items(self) -> int:
        return self.each_member()[0].n_items

    @property
    def max_history(self) -> int:
        return max(member.max_history for member in self.each_member())

    @property
    def device(self) -> torch.device:
        return self.each_member()[0].device

    def each_member(self) -> list[Member]:
        """The members, first to last, as what they are."""
        return [member for member in self.members if isinstance(member, Member)]

    def scores(self, histories: Tensor) -> Tensor:
        parts = zip(self.each_member(), self.facts, strict=True)
        return torch.stack([f.weight * m.scores(histories[:, -m.max_history :]) for m, f in parts]).sum(0)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "mix.json").write_bytes(FACTS.dump_json(list(self.facts), indent=1) + b"\n")
        for index, member in enumerate(self.each_member()):
            if isinstance(member, SequenceModel):
                member.save(folder / str(index))
            else:
                (folder / str(index)).mkdir()
                tensors = {name: tensor.cpu().contiguous() for name, tensor in member.state_dict().items()}
                save_file(tensors, folder / str(index) / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "Mix":
        facts = FACTS.validate_json((folder / "mix.json").read_bytes())
        return cls([_load_member(folder / str(index), fact) for index, fact in enumerate(facts)], facts).eval()


FACTS = TypeAdapter(list[MemberFacts])


def _load_member(folder: Path, fact: MemberFacts) -> Member:
    if fact.kind == "sequence":
        return SequenceModel.load(folder)
    tensors = load_file(folder / "model.safetensors")
    return ItemItem(tensors["weights"], fact.last) if fact.kind == "item_item" else ItemBias(tensors["bias"])
