"""The records of the log, and the lines that hold them."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from deploy.lines import encode_line
from deploy.manifest import Record

EventName = Literal["click", "like", "dislike", "purchase"]
RequestId = Annotated[str, Field(min_length=1, max_length=64)]
ItemId = Annotated[str, Field(min_length=1, max_length=256)]


class ShownItem(Record):
    """One item of an answer; `score` is None where recent popularity answered."""

    id: ItemId
    score: FiniteFloat | None = None


class Shown(Record):
    """One answer. `time`: Unix seconds of this device. `release`: as `Bundle.release`. `user`: as the request had it.

    experiment: the one under way, if any. role: `shadow` where the answer was recorded beside the one that was shown.
    """

    kind: Literal["shown"] = "shown"
    request_id: RequestId
    user: Annotated[str | None, Field(max_length=256)] = None
    release: Annotated[str, Field(max_length=200)]
    items: Annotated[list[ShownItem], Field(max_length=1000)]
    time: FiniteFloat
    experiment: Annotated[str | None, Field(max_length=64)] = None
    role: Literal["answer", "shadow"] = "answer"


class Event(Record):
    """What a user did with an item of an answer. `ts`: Unix seconds as the client says, `time`: as this device does."""

    kind: Literal["event"] = "event"
    request_id: RequestId
    item_id: ItemId
    event: EventName
    ts: FiniteFloat
    time: FiniteFloat


class Begin(Record):
    """The first line of a segment."""

    kind: Literal["segment"] = "segment"
    version: Literal[1] = Field(default=1, alias="schema")
    number: Annotated[int, Field(ge=1)]


class End(Record):
    """The last line of a segment that takes no more: how many records it holds."""

    kind: Literal["end"] = "end"
    records: Annotated[int, Field(ge=0)]


Line = Annotated[Shown | Event | Begin | End, Field(discriminator="kind")]
_LINE: TypeAdapter[Shown | Event | Begin | End] = TypeAdapter(Line)


def encode_record(record: Shown | Event | Begin | End) -> bytes:
    """The checksummed line of a record; the longest that is valid fits into one."""
    return encode_line(record.model_dump_json(by_alias=True).encode())


def parse_payload(payload: bytes) -> Shown | Event | Begin | End | None:
    """The record of a line's payload; None where it is none (a newer version may have written it)."""
    try:
        return _LINE.validate_json(payload)
    except ValidationError:
        return None
