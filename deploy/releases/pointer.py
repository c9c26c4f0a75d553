"""The pointer: the one small file that says which release is active. Replaced whole, never changed in place."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from deploy.disk import write_whole
from deploy.errors import UsageError
from deploy.lines import MAX_LINE, decode_line, encode_line
from deploy.manifest import Record, canonical_json, parse_record
from deploy.releases.split import Digest, Experiment

POINTER = "pointer"
LOCK = "lock"  # held while the pointer or the releases change
MAX_GOOD = 8
TRIES = 3


class Pointer(Record):
    """Which release is active, and where to go back to.

    active: its digest, None before the first activation. confirmed: a server has opened it. tries: how often one began
    to, since it was activated; at `TRIES` without a confirmation it is passed over. good: releases that were active and
    worked, the most recent first, the active one not among them. left: releases that were gone back from, the
    newest such first; only who names one activates it again. serial: counts changes of the active release or the
    experiment, so that a server sees one by reading this file. why: one line for people.
    """

    version: Literal[1] = Field(default=1, alias="schema")
    active: Digest | None = None
    confirmed: bool = False
    tries: Annotated[int, Field(ge=0, le=TRIES)] = 0
    good: list[Digest] = Field(default_factory=list, max_length=MAX_GOOD)
    left: list[Digest] = Field(default_factory=list, max_length=MAX_GOOD)
    experiment: Experiment | None = None
    serial: Annotated[int, Field(ge=0)] = 0
    why: Annotated[str, Field(max_length=500)] = "nothing activated yet"

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        named = self.good if self.active is None else [self.active, *self.good]
        if len(set(named)) != len(named):
            raise ValueError("the active and the good releases must be different")
        return self

    def activated(self, digest: str) -> "Pointer":
        """`digest` becomes the active release, the one before it the first to go back to. Ends an experiment."""
        good = [one for one in (self.active, *self.good) if one is not None and one != digest]
        left = [one for one in self.left if one != digest]
        return self._moved(digest, good[:MAX_GOOD], left, "activated")

    def returned(self, digest: str, why: str) -> "Pointer":
        """Back to the good release `digest`; those tried before it are not good any more. Ends an experiment."""
        place = self.good.index(digest) if digest in self.good else len(self.good)
        gone = [one for one in (self.active, *self.good[:place], *self.left) if one is not None and one != digest]
        return self._moved(digest, self.good[place + 1 :], list(dict.fromkeys(gone))[:MAX_GOOD], why)

    def experimenting(self, experiment: Experiment | None) -> "Pointer":
        """An experiment beside the active release begins, or ends (None)."""
        return self.model_copy(update={"experiment": experiment, "serial": self.serial + 1})

    def trying(self) -> "Pointer":
        """A server begins to open the active release."""
        return self.model_copy(update={"tries": min(self.tries + 1, TRIES)})

    def worked(self) -> "Pointer":
        """A server opened the active release."""
        return self.model_copy(update={"confirmed": True, "tries": 0})

    def needs(self) -> list[str]:
        """The releases that must not be removed: the active one, the one before it, and an experiment's."""
        active = [self.active] if self.active else []
        return [*active, *self.good[:1], *sorted(self.experiment.digests() if self.experiment else ())]

    def _moved(self, digest: str, good: list[str], left: list[str], why: str) -> "Pointer":
        return Pointer(active=digest, good=good, left=left, serial=self.serial + 1, why=why[:500])


def read_pointer(root: Path) -> Pointer:
    """The pointer of the releases folder `root`; an empty one where nothing was activated. Raises UsageError."""
    path = root / POINTER
    try:
        with path.open("rb") as stream:
            line = stream.read(MAX_LINE + 1)
    except FileNotFoundError:
        return Pointer()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    payload = decode_line(line)
    if payload is None:
        raise UsageError(f"{path}: damaged; `slimrec release activate {root} RELEASE` writes it anew")
    return parse_record(Pointer, payload, str(path))


def write_pointer(root: Path, pointer: Pointer) -> None:
    """Replace the pointer in one step, durably. Raises OSError."""
    write_whole(root / POINTER, encode_line(canonical_json(pointer.model_dump(mode="json", by_alias=True))[:-1]))
