"""The HTTP contract: request and response models, and the OpenAPI document made from them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

MAX_BODY_BYTES = 64 << 10

ItemId = Annotated[str, Field(min_length=1, max_length=256)]


class Message(BaseModel):
    """Unknown fields are refused: a misspelt option would otherwise be ignored in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RecommendRequest(Message):
    """What a user did, and what is wanted."""

    history: Annotated[list[ItemId], Field(max_length=10_000, description="item ids, oldest first")]
    k: Annotated[int, Field(ge=1, le=1000, description="how many items are wanted")] = 10
    exclude: Annotated[list[ItemId], Field(max_length=10_000, description="ids to leave out")] = []
    filter: Annotated[
        dict[str, list[str]], Field(max_length=16, description="attribute -> values, one of which an item must have")
    ] = {}
    user: Annotated[str | None, Field(max_length=256, description="opaque; not used for the answer")] = None


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
    request_id: str
    release: Annotated[str, Field(description="name and short digest of the bundle that answered")]


class FoundItem(Message):
    """An item of the catalogue."""

    id: str
    title: str


class ItemsResponse(Message):
    """Items whose title contains the query."""

    items: list[FoundItem]


class Status(Message):
    """The server's state."""

    status: Literal["ok", "ready"]
    release: str


class FieldError(Message):
    """One mistake in a request: the path of the field and what is wrong with it."""

    field: str
    detail: str


class Problem(Message):
    """An error as RFC 9457 describes it (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document of this server. Its version is the contract's (`/v1`), not the package's."""
    models = (RecommendRequest, RecommendResponse, ItemsResponse, Status, Problem)
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        (model, "validation") for model in models
    ]
    _, definitions = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    query = {"name": "query", "in": "query", "required": True, "schema": {"type": "string", "maxLength": 200}}
    limit = {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    }
    recommend = {
        "summary": "Recommend items for a history",
        "requestBody": {"required": True, "content": _json("RecommendRequest")},
        "responses": _responses("RecommendResponse", 400, 413, 422),
    }
    search = {
        "summary": "Find items by a part of their title",
        "parameters": [query, limit],
        "responses": _responses("ItemsResponse", 422),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "slimrec", "version": "1"},
        "paths": {
            "/v1/recommend": {"post": recommend},
            "/v1/items": {"get": search},
            "/healthz": {"get": {"summary": "The process is alive", "responses": _responses("Status")}},
            "/readyz": {"get": {"summary": "The bundle answers", "responses": _responses("Status")}},
        },
        "components": {"schemas": definitions["$defs"]},
    }


def _json(model: str, media_type: str = "application/json") -> Mapping[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{model}"}}}


def _responses(model: str, *problems: int) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "The answer", "content": _json(model)}}
    for status in problems:
        answers[str(status)] = {
            "description": "A mistake in the request",
            "content": _json("Problem", "application/problem+json"),
        }
    return answers
