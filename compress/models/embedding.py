"""Word embeddings in two factors: narrow rows, and one map that widens them."""

from torch import Tensor, nn


class FactorizedEmbedding(nn.Module):
    """A table (rows, rank) and a map (rank -> hidden) in place of a table (rows, hidden) (ALBERT: Lan et al. 2020,
    section 3.1)."""

    def __init__(self, rows: int, rank: int, hidden: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.words = nn.Embedding(rows, rank, padding_idx=padding_idx)
        self.widen = nn.Linear(rank, hidden, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids (batch, tokens) int64 -> (batch, tokens, hidden)."""
        widened: Tensor = self.widen(self.words(input_ids))
        return widened
