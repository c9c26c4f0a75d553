"""What an item vector owes to its domain: a part beside the shared head, so that the shared one can go to the next.

As Daume 2007, sections 3 and 3.1: weights are a shared part plus one per domain. The source's own part stays behind;
the target learns a new one, which folds into the head: nothing of it is left in what students and devices read.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from compress.stage import Entry, Shorthand, Skip


class Own(Entry):
    """What the ways share."""

    @property
    def own_rank(self) -> int:
        """Of the map of LM states that a domain has for itself."""
        return 0


class DomainVector(Own):
    """A domain token: one learned vector added to all item vectors of a domain, so that a history says where it is.

    Within one domain every score moves alike; what changes is how histories are read.
    """

    name: Literal["vector"] = "vector"


class DomainAdapter(Own):
    """A domain token and a low-rank map of the LM's states, one of each per domain (Houlsby et al. 2019's bottleneck,
    linear so that it folds)."""

    name: Literal["adapter"] = "adapter"
    rank: PositiveInt = 8

    @property
    def own_rank(self) -> int:
        return self.rank


DomainEntry = Annotated[DomainVector | DomainAdapter | Skip, Field(discriminator="name"), Shorthand]


class DomainPart(nn.Module):
    """Pooled LM states (n, hidden) -> what their domains add to the item vectors (n, dim); nothing at the start.

    `domain_of` (n_items,) int64 says which domain each item is of.
    """

    domain_of: Tensor

    def __init__(self, entry: Own, hidden: int, dim: int, domain_of: Tensor) -> None:
        super().__init__()
        n, rank = int(domain_of.max()) + 1, entry.own_rank
        self.register_buffer("domain_of", domain_of, persistent=False)
        self.vectors = nn.Parameter(torch.zeros(n, dim))
        self.down = nn.Parameter(torch.randn(n, hidden, rank) * hidden**-0.5)
        self.up = nn.Parameter(torch.zeros(n, rank, dim))

    def forward(self, states: Tensor, items: Tensor | None) -> Tensor:
        """`items` (n,) int64 from 0, None for all."""
        domains = self.domain_of if items is None else self.domain_of[items]
        added = self.vectors[domains]
        if self.down.shape[2]:
            for domain in range(len(self.vectors)):
                mine = (domains == domain)[:, None]
                added = added + mine * (states @ self.down[domain] @ self.up[domain])
        return added

    @torch.no_grad()
    def folded_into(self, head: nn.Linear) -> nn.Linear:
        """`head` with the part of the only domain in its weights and its bias. Raises ValueError for several."""
        if len(self.vectors) != 1:
            raise ValueError(f"only one domain's part folds into a head (got {len(self.vectors)})")
        whole = nn.Linear(head.in_features, head.out_features, device=head.weight.device)
        whole.weight.copy_(head.weight + (self.down[0] @ self.up[0]).T)
        whole.bias.copy_(self.vectors[0])
        return whole
