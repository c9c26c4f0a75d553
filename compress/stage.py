"""What a stage is: a function from sealed folders to a folder, and the two kinds of settings it takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Inputs = Mapping[str, Path]


class Entry(BaseModel):
    """A registry entry: a small typed thing, told apart by its literal `name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def without_default(written: dict[str, object], entry: BaseModel, *names: str) -> dict[str, object]:
    """What a serializer wrote of `entry`, less the fields `names` where they are the default: fields added later change
    no digest of what recipes already said."""
    fields = type(entry).model_fields
    return {k: v for k, v in written.items() if k not in names or getattr(entry, k) != fields[k].default}


class Skip(Entry):
    """The entry `none`: the step is skipped and hands its input on."""

    name: Literal["none"] = "none"


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Shorthand = BeforeValidator(_by_name, json_schema_input_type=Any)
"""Lets a recipe write `loss: kl` for `loss: {name: kl}`; put it around a union of entries."""


def _listed(value: Any) -> Any:
    """Lets a recipe write one entry where a list of them may stand."""
    return value if isinstance(value, list | tuple) else [value]


OneOrSeveral = BeforeValidator(_listed, json_schema_input_type=Any)
"""Put it around a tuple of entries."""


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class StageConfig(BaseModel):
    """What a stage computes. Every field, the seed included, enters the cache key.

    A recipe may write `none` for a whole section: it means `skipped`, the fields that make the stage hand its input
    on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    skipped: ClassVar[Mapping[str, Any] | None] = None
    seed: Seed = 0

    @property
    def teaches(self) -> bool:
        """Whether the stage trains a recommender for others to learn from: what no control may have."""
        return False

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of variants and baselines whose models the stage reads beside its own chain's inputs."""
        return ()

    @property
    def wants(self) -> Mapping[str, str]:
        """What the stage must find of its teacher beyond what every teacher leaves, with what to do about it."""
        return {}

    @property
    def leaves(self) -> frozenset[str]:
        """What of that the stage leaves for students."""
        return frozenset()

    @model_validator(mode="before")
    @classmethod
    def _none_skips(cls, value: Any) -> Any:
        return dict(cls.skipped) if value == "none" and cls.skipped is not None else value


@dataclass(frozen=True)
class RunOptions:
    """How a stage computes it. No field enters the cache key."""

    device: str = "cpu"
    threads: int = 0  # 0: what torch chooses
    log: Callable[[str], None] = lambda _line: None
    progress: Callable[[Iterable[Any], str, int | None], Iterator[Any]] = lambda items, _what, _total: iter(items)
    scratch: Path | None = None  # survives a kill; gone once the stage is sealed
    checkpoint_seconds: float = 30.0  # at least, between two checkpoints of a training; 0: after every epoch


@dataclass(frozen=True)
class Stage:
    """One row of the table in `pipeline.py`.

    `inputs` are names of earlier stages. `scope` says how often it runs: once per recipe (`shared`), once per
    variant and seed (`variant`), or once over all variants (`gather`). `fingerprint` adds what the bytes depend on
    beside config and inputs (data files outside the store, the machine for measurements).
    """

    name: str
    inputs: tuple[str, ...]
    config: type[StageConfig]
    run: Callable[..., None]
    scope: Literal["shared", "variant", "gather"] = "variant"
    version: int = 1
    fingerprint: Callable[[Any], Mapping[str, str]] = field(default=lambda _config: {})
