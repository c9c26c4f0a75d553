"""A small seeded world of films with order in it, for tests and first steps."""

import random
from pathlib import Path
from typing import Literal

from pydantic import Field

from compress.stage import Entry
from deploy.columns import write_atomic

ADJECTIVES = ["Silent", "Crimson", "Hidden", "Golden", "Broken", "Distant", "Frozen", "Burning", "Gentle", "Savage"]
NOUNS = ["River", "Garden", "Empire", "Letter", "Harbor", "Mountain", "Summer", "Stranger", "Mirror", "Orchard"]
GENRES = ("Action", "Drama")


class Synthetic(Entry):
    """Films of two genres, with columns as in MovieLens-100k.

    Within a genre each film has one usual successor, so the next event can be learned; users switch genres.
    """

    name: Literal["synthetic"] = "synthetic"
    users: int = Field(default=60, ge=2, le=100_000)
    items: int = Field(default=40, ge=8, le=10_000)
    events: int = Field(default=20, ge=6, le=1_000, description="per user, at most half the items of a genre")
    order: float = Field(default=0.8, ge=0, le=1, description="how often the usual successor follows")
    world: int = Field(default=0, description="seed of the world")

    def write(self, folder: Path) -> None:
        """Writes `synthetic.inter` and `synthetic.item` into `folder`."""
        rng = random.Random(self.world)
        genre = [GENRES[i % 2] for i in range(self.items)]
        numbers = [i // 100 for i in range(self.items)]
        names = [f"The {a} {n}" for a in ADJECTIVES for n in NOUNS]
        rng.shuffle(names)
        titles = [names[i % 100] + (f" {numbers[i] + 1}" if numbers[i] else "") for i in range(self.items)]
        write_atomic(
            folder / "synthetic.item",
            {
                "item_id": [f"f{i + 1}" for i in range(self.items)],
                "movie_title": titles,
                "release_year": [str(1960 + rng.randrange(60)) for _ in range(self.items)],
                "class": genre,
            },
            {"item_id": "token", "release_year": "token"},
        )
        chains = {g: [i for i in range(self.items) if genre[i] == g] for g in GENRES}
        for chain in chains.values():
            rng.shuffle(chain)
        rows: list[tuple[str, str, str, str]] = []
        for user in range(self.users):
            for step, item in enumerate(self._history(rng, list(chains.values()))):
                rows.append((f"u{user + 1}", f"f{item + 1}", str(rng.randint(1, 5)), str(1000 * step + user)))
        columns = [list(column) for column in zip(*rows, strict=True)]
        write_atomic(
            folder / "synthetic.inter",
            dict(zip(("user_id", "item_id", "rating", "timestamp"), columns, strict=True)),
            {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"},
        )

    def _history(self, rng: random.Random, chains: list[list[int]]) -> list[int]:
        seen: list[int] = []
        place = [rng.randrange(len(chain)) for chain in chains]
        for step in range(min(self.events, min(map(len, chains)))):
            # both genres within any three events: each domain gets a third at least
            side = step % 2 if step % 3 < 2 else rng.randrange(2)
            chain = chains[side]
            jump = 0 if rng.random() < self.order else rng.randrange(len(chain))
            at = (place[side] + jump) % len(chain)
            while chain[at] in seen:
                at = (at + 1) % len(chain)
            seen.append(chain[at])
            place[side] = (at + 1) % len(chain)
        return seen
