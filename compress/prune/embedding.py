"""Word embeddings cut to two factors."""

import torch
from torch import Tensor, nn

from compress.models.embedding import FactorizedEmbedding
from compress.models.text import TextEncoder
from deploy.errors import UsageError


@torch.no_grad()
def factorize_embedding(encoder: TextEncoder, rank: int, tokens: tuple[Tensor, Tensor]) -> float:
    """Put (rows, rank) @ (rank, hidden) in the place of the word embeddings; returns the share of their squares lost.

    ALBERT (Lan et al. 2020, section 3.1) trains the factors from nothing; here they start from the truncated SVD of the
    table, each row weighted by how often it occurs in the texts `tokens` (ids, mask, (texts, tokens) int64), plus one:
    the words of cold items matter too. Exact where the table has that rank. Raises UsageError where nothing is saved.
    """
    table = encoder.word_table
    rows, hidden = table.weight.shape
    most = (rows * hidden - 1) // (rows + hidden)
    if isinstance(encoder.words, FactorizedEmbedding):
        raise UsageError(f"prune.text.embedding_rank: the words are in two factors already (got {rank})")
    if rank > most:
        raise UsageError(
            f"prune.text.embedding_rank: {rows} words of width {hidden} take less room up to rank {most} (got {rank})"
        )
    weight = table.weight.double()
    ids, mask = tokens
    occurs = torch.bincount(ids[mask > 0], minlength=rows).to(weight) + 1.0
    values, directions = torch.linalg.eigh(weight.T @ (weight * occurs[:, None]))
    kept = directions.flip(1)[:, :rank]
    factors = FactorizedEmbedding(rows, rank, hidden, table.padding_idx).to(table.weight)
    factors.words.weight = nn.Parameter((weight @ kept).to(table.weight))
    factors.widen.weight = nn.Parameter(kept.to(table.weight).contiguous())
    encoder.lm.set_input_embeddings(factors)
    encoder.shape = encoder.shape.model_copy(update={"embedding_rank": rank})
    return float(values[: hidden - rank].clamp(min=0).sum() / values.clamp(min=0).sum())
