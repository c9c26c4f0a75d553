"""What `peers.yaml` may say."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from benchmarks.result import Record
from benchmarks.studies import read_plan

FILE = Path(__file__).parent / "peers.yaml"
OURS = "slimrec"


class Environment(Record):
    """`install`: arguments of pip, one call after another; `{root}` is this repository."""

    install: list[str] = Field(min_length=1)


class Peer(Record):
    """One row of the table."""

    environment: str
    adapter: str = Field(description="module of benchmarks.peers.adapters, or a dotted name of one's own")
    what: str
    training: dict[str, Any] = Field(default={})
    trials: list[dict[str, Any]] = Field(default=[{}], min_length=1)
    serving: dict[str, Any] = Field(default={})
    version: int = Field(
        default=1, description="raised where the adapter would train another model from the same settings"
    )

    @property
    def module(self) -> str:
        return self.adapter if "." in self.adapter else f"benchmarks.peers.adapters.{self.adapter}"

    def training_key(self, split_digest: str, limits: dict[str, Any]) -> str:
        """Names what is trained: equal for peers that differ in how they serve it."""
        said = [self.environment, self.adapter, self.version, self.training, self.trials, split_digest, limits]
        return digest(said)[:16]


class Plan(Record):
    """`peers.yaml`."""

    environments: dict[str, Environment]
    peers: dict[str, Peer]

    @model_validator(mode="after")
    def _complete(self) -> "Plan":
        for name, peer in self.peers.items():
            if peer.environment not in self.environments:
                raise ValueError(f"peers.{name}.environment: {', '.join(self.environments)} (got {peer.environment})")
        if OURS not in self.peers:
            raise ValueError(f"peers: {OURS} is what others are compared with")
        return self


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def plan(path: Path = FILE) -> Plan:
    """Raises UsageError where the file is not of this form."""
    return read_plan(path, Plan)
