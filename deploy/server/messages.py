"""The HTTP contract: requests and answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_BODY_BYTES = 64 << 10
MAX_BATCH_BYTES = 1 << 20
MAX_BATCH = 32

ItemId = Annotated[str, Field(min_length=1, max_length=256)]
Ids = Annotated[list[ItemId], Field(max_length=10_000)]
RequestId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]

# JSON has one kind of number: 10.0 is the whole number 10.
WHOLE = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)

_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
LINE = rf"^[^{_CONTROL}]*$"
"""One line of text: item files keep one item a line."""
WRITTEN_LINE = rf"^[^{_CONTROL}]*[^{_CONTROL}\s][^{_CONTROL}]*$"
"""One line that is not blank."""
WRITTEN = rf"[^{_CONTROL}\s]"
"""Text that is not blank."""

Value = Annotated[str, Field(max_length=1000, pattern=LINE)]
Values = Annotated[
    list[Value], Field(max_length=100), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Message(BaseModel):
    """Unknown fields are refused: a misspelt option would otherwise be ignored in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RecommendRequest(Message):
    """What a user did, and what is wanted."""

    history: Annotated[Ids, Field(description="item ids, oldest first")]
    k: Annotated[int, Field(ge=1, le=1000, description="how many items are wanted"), WHOLE] = 10
    exclude: Annotated[Ids, Field(description="ids to leave out")] = []
    filter: Annotated[
        dict[str, Annotated[list[str], Field(max_length=1000)]],
        Field(max_length=16, description="attribute -> values, one of which an item must have"),
    ] = {}
    user: Annotated[str | None, Field(max_length=256, description="opaque; the model does not read it")] = None


class BatchRequest(Message):
    """Several requests that are answered together."""

    requests: Annotated[list[RecommendRequest], Field(min_length=1, max_length=MAX_BATCH)]


class Item(Message):
    """One answer; `score` is null where recent popularity answered."""

    id: str
    score: float | None
    title: str


class RecommendResponse(Message):
    """At most k items, best first."""

    items: list[Item]
    unknown: Annotated[list[str], Field(description="ids that the bundle does not have; they were skipped")]
    source: Annotated[Literal["model", "popularity"], Field(description="popularity: the history had no known id")]
    request_id: Annotated[RequestId, Field(description="names this answer to /v1/feedback")]
    release: Annotated[str, Field(description="name and short digest of the bundle that answered")]


class BatchResponse(Message):
    """One answer per request, in their order."""

    answers: list[RecommendResponse]


class Ratings(Message):
    """How many items the user is known to like and to dislike, as the model counted when it was trained."""

    liked: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] = 0
    disliked: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] = 0


class LikeRequest(Message):
    """How likely is it that a user likes these items?"""

    items: Annotated[list[ItemId], Field(min_length=1, max_length=1000, description="ids of items of the bundle")]
    history: Annotated[Ids, Field(description="rated item ids, oldest first")]
    liked: Annotated[
        list[bool] | None, Field(max_length=10_000, description="which of the history was liked; null: all of it")
    ] = None
    ratings: Ratings = Ratings()
    user: Annotated[str | None, Field(max_length=256, description="opaque; the model does not read it")] = None


class LikedItem(Message):
    """An item with the probability that the user likes it, and its log-odds."""

    id: str
    probability: Annotated[float, Field(ge=0, le=1)]
    log_odds: float


class LikeResponse(Message):
    """One answer per item asked about, in their order."""

    items: list[LikedItem]
    unknown: Annotated[list[str], Field(description="ids of the history that the bundle does not have")]
    request_id: RequestId
    release: str


class ItemRequest(BaseModel):
    """A cold item. Further fields are attributes of the bundle's items: a value, or a list of several."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Values] = Field(init=False)

    id: Annotated[str, Field(min_length=1, max_length=256, pattern=LINE)]
    title: Annotated[str, Field(min_length=1, max_length=1000, pattern=WRITTEN_LINE)]
    text: Annotated[
        str | None,
        Field(
            max_length=20_000,
            pattern=WRITTEN,
            description="what the encoder reads; null: the bundle's template of the fields",
        ),
    ] = None


class ItemResponse(Message):
    """An item that is ranked from now on."""

    id: str
    cold_items: Annotated[int, Field(ge=0, description="how many there are now")]
    kept: Annotated[bool, Field(description="whether it outlives the server's process (--state)")]
    request_id: RequestId
    release: str


class FoundItem(Message):
    """An item of the catalogue."""

    id: str
    title: str


class ItemsResponse(Message):
    """Items whose title contains the query."""

    items: list[FoundItem]


class FeedbackRequest(Message):
    """What a user did with an answer."""

    request_id: Annotated[RequestId, Field(description="of the answer that showed the item")]
    item_id: ItemId
    event: Literal["click", "like", "dislike", "purchase"]
    ts: Annotated[float | None, Field(ge=0, le=1e11, description="seconds since 1970; null: now")] = None


class FeedbackResponse(Message):
    """The event is on disk."""

    status: Literal["stored"] = "stored"


class Status(Message):
    """The server's state."""

    status: Literal["ok", "ready", "draining"]
    release: str
    precision: Annotated[str, Field(description="of the graph that answers")]
    accepts: Annotated[list[Literal["items", "likes", "feedback"]], Field(description="what else is offered")]


class FieldError(Message):
    """One mistake in a request: the path of the field and what is wrong with it."""

    field: str
    detail: str


class Problem(Message):
    """An error as RFC 9457 describes it (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    errors: list[FieldError] = []
