"""The like/dislike head: how likely user and item vector make a like.

logit = user vector . item vector + bias. Two coordinates of the item table carry the leanings: in the last but one
every item has a 1, so that the user vector's is the user's leaning; in the last the user vector is held at 1, so that
the item vector's is the item's. A liked item of the history enters as it is, a disliked one scaled and shifted by two
vectors that all dislikes share; they start at its opposite. (A shift alone would not do: one block of attention only
averages what enters, and averages of items and of ratings do not say which item had which rating.) So over liked
histories the item table ranks the catalogue by how likely a like is, with the graph of any sequence model. How much a
user is known to like (`ratings.py`) can add to all logits of the user, which leaves that ranking as it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.distil.sequence import StudentInTraining
from compress.likes.ratings import UserLeaning
from compress.likes.rows import Rows
from compress.models.folder import load_array, load_sequence
from compress.models.sequence import SequenceEncoder, SequenceModel
from compress.teacher.two_level import TwoLevelTeacher

_BATCH = 1024


Parts = TwoLevelTeacher | StudentInTraining
"""What a head is trained with."""


class LikesHead(nn.Module):
    """What all dislikes share, scale and shift (2, dim), the bias, a scalar, and with `rated` the user's leaning."""

    def __init__(self, dim: int, bias: float = 0.0, rated: bool = False) -> None:
        super().__init__()
        self.disliked = nn.Parameter(torch.stack([-torch.ones(dim), torch.zeros(dim)]))
        self.bias = nn.Parameter(torch.tensor(bias))
        self.leaning = UserLeaning() if rated else None

    def forward(
        self,
        table: Tensor,
        encoder: SequenceEncoder,
        history: Tensor,
        likes: Tensor,
        items: Tensor,
        ratings: Tensor | None = None,
    ) -> Tensor:
        """table (n_items + 1, dim) as `with_leanings` gives it; history (batch, length) int64 rows, oldest first,
        padded with 0 on the left; likes (batch, length) of 0 and 1; items (batch,) int64 rows; ratings (batch, 2), read
        by a head that is `rated` -> logits (batch,). Raises ValueError where such a head gets none."""
        known = history > 0
        entering, (scale, shift) = table[history], self.disliked
        disliked = (known & (likes < 0.5))[:, :, None]
        vectors = torch.where(disliked, entering * scale + shift, entering)
        users = encoder.last(encoder.dropout(vectors), known)
        logits: Tensor = (users * table[items]).sum(-1) + self.bias
        if self.leaning is None:
            return logits
        if ratings is None:
            raise ValueError("a rated head needs the user's ratings")
        leaning: Tensor = self.leaning(ratings)
        return logits + leaning


def with_leanings(table: Tensor) -> Tensor:
    """The table with a 1 in the last but one coordinate of every item; row 0 stays zero."""
    ones = torch.ones(len(table), 1, device=table.device)
    ones[0] = 0.0
    return torch.cat([table[:, :-2], ones, table[:, -1:]], dim=1)


@torch.no_grad()
def hold_leaning(encoder: SequenceEncoder) -> None:
    """Hold the last coordinate of every user vector at 1."""
    encoder.norm.weight[-1] = 0.0
    encoder.norm.bias[-1] = 1.0


ARRAYS = {
    "disliked": "disliked",
    "bias": "like_bias",
    "leaning.up.weight": "leaning_up",
    "leaning.up.bias": "leaning_shift",
    "leaning.down.weight": "leaning_down",
}
"""Parts of a head -> the array of a model folder that holds them."""


class LikesModel(nn.Module):
    """A sequence model over a table with leanings, and its head."""

    def __init__(self, sequence: SequenceModel, head: LikesHead) -> None:
        super().__init__()
        self.sequence, self.head = sequence, head

    @torch.no_grad()
    def logits(self, rows: Rows, ratings: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Log-odds of a like, float64 (rows,); `ratings` (rows, 2) for a head that is `rated`."""
        self.eval()
        asked: list[NDArray[Any]] = [*rows.newest(self.sequence.max_history), rows.items.astype(np.int64)]
        asked += [] if ratings is None else [ratings]
        device = self.sequence.device
        found = [
            self.head(
                self.sequence.item_table,
                self.sequence.encoder,
                *(torch.from_numpy(array[part]).to(device) for array in asked),
            )
            for part in _parts(len(rows))
        ]
        return torch.cat(found).double().cpu().numpy() if found else np.zeros(0)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The head as arrays of a model folder; the sequence model is its own part."""
        return {ARRAYS[name]: tensor.detach().cpu().numpy() for name, tensor in self.head.state_dict().items()}

    @classmethod
    def load(cls, folder: Path) -> "LikesModel | None":
        """What a model folder holds, None where it has no like/dislike head."""
        sequence = load_sequence(folder)
        found = {name: load_array(folder, file) for name, file in ARRAYS.items()}
        state = {name: torch.from_numpy(array) for name, array in found.items() if array is not None}
        if sequence is None or "disliked" not in state or "bias" not in state:
            return None
        head = LikesHead(state["disliked"].shape[1], rated="leaning.down.weight" in state)
        head.load_state_dict(state)
        return cls(sequence, head).eval()


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _BATCH, n)) for start in range(0, n, _BATCH))
