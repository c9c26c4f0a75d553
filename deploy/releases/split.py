"""Which release answers a user: a split of users by a documented hash. Pure; the same on every machine.

A user's *slot* is the first eight bytes of SHA-256(name + line feed + user, in UTF-8), as a big-endian number, modulo
10,000. Candidates take the slots from 0 upwards in the order of their digests, as many as their share, and the active
release all others. So a user keeps the release for as long as the experiment has its name and shares; raising the share
of the last candidate moves users from the active release to it and nobody else; another name draws anew.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from deploy.manifest import Record

SLOTS = 10_000

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[int, Field(ge=1, le=SLOTS, strict=True)]


class Experiment(Record):
    """Candidates beside the active release. Shares are slots of 10,000: 500 is 5 % of the users.

    arms: digest -> share of the users whom this release answers (A/B). shadows: digest -> share of the users whose
    requests it is asked too, its answer recorded and not shown. The two are drawn apart from each other.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    arms: dict[Digest, Share] = Field(default_factory=dict, max_length=8)
    shadows: dict[Digest, Share] = Field(default_factory=dict, max_length=8)

    @model_validator(mode="after")
    def _some_and_not_too_many(self) -> Self:
        if not self.arms and not self.shadows:
            raise ValueError("an experiment has at least one candidate")
        for kind, shares in (("arms", self.arms), ("shadows", self.shadows)):
            if sum(shares.values()) > SLOTS:
                raise ValueError(f"{kind}: shares must be at most {SLOTS} together (got {sum(shares.values())})")
        return self

    def answers(self, user: str | None) -> str | None:
        """The digest of the release that answers `user`; None for the active one, which answers whoever has no name."""
        return None if user is None else _at(slot(self.name, user), self.arms)

    def shadow(self, user: str | None) -> str | None:
        """The digest of the release that is asked too, or None."""
        return None if user is None else _at(slot(f"{self.name}\nshadow", user), self.shadows)

    def digests(self) -> set[str]:
        """Every release that takes part, the active one aside."""
        return {*self.arms, *self.shadows}


def slot(name: str, user: str) -> int:
    """0 to 9,999: where `user` (opaque, any text) stands in the experiment `name`."""
    digest = hashlib.sha256(f"{name}\n{user}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % SLOTS


def _at(place: int, shares: Mapping[str, int]) -> str | None:
    for digest, share in sorted(shares.items()):
        if place < share:
            return digest
        place -= share
    return None
