"""The OpenAPI 3.1 document of a server: what this bundle and this server offer, and every way they refuse."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from deploy.server import messages as m

Attributes = Sequence[tuple[str, str | None]]
"""The attributes of the bundle's items, each with what separates its values where it has several."""

_REQUESTS = (m.RecommendRequest, m.BatchRequest, m.LikeRequest, m.ItemRequest, m.FeedbackRequest)
_ANSWERS = (
    m.RecommendResponse,
    m.BatchResponse,
    m.LikeResponse,
    m.ItemResponse,
    m.ItemsResponse,
    m.FeedbackResponse,
    m.Status,
    m.Problem,
)
_PROBLEMS = {
    400: "The body is not JSON, or the request is not HTTP",
    401: "No token, or not the server's",
    403: "Asked by a page of another site",
    404: "Not there",
    408: "The body did not arrive in time",
    409: "Contradicts what is there",
    413: "The body is too large",
    421: "Without a token only this machine is answered",
    422: "A mistake in the request",
    503: "Too much at once, or stopping: try again later",
}


def openapi(attributes: Attributes, offered: Sequence[str], token: bool) -> dict[str, Any]:
    """The document. Its version is the contract's (`/v1`), not the package's."""
    security: list[dict[str, list[str]]] = [{"token": []}] if token else []
    refusals = [401] if token else [403, 421]
    asked = [400, 408, 413, 422, 503, *refusals]
    paths: dict[str, dict[str, Any]] = {
        "/v1/recommend": {"post": _post("Recommend items for a history", m.RecommendRequest, m.RecommendResponse)},
        "/v1/recommend/batch": {"post": _post("Several recommendations at once", m.BatchRequest, m.BatchResponse)},
        "/v1/items": {"get": _search()},
    }
    if "items" in offered:
        add = _post("Add a cold item from its text, or replace one", m.ItemRequest, m.ItemResponse)
        add["responses"]["201"] = {"description": "A new item", "content": _json(m.ItemResponse)}
        paths["/v1/items"]["post"] = add
        paths["/v1/items/{id}"] = {"delete": _remove()}
    if "likes" in offered:
        paths["/v1/like"] = {"post": _post("How likely a user likes items", m.LikeRequest, m.LikeResponse)}
    if "feedback" in offered:
        paths["/v1/feedback"] = {"post": _post("What a user did with an answer", m.FeedbackRequest, m.FeedbackResponse)}
    for path, operations in paths.items():
        for method, operation in operations.items():
            operation["security"] = security
            also = [409] if (path, method) == ("/v1/items", "post") else [404] if method == "delete" else []
            _refuse(operation, [*(asked if method == "post" else [400, 422, 503, *refusals]), *also])
    metrics = {"200": {"description": "Prometheus' text format", "content": {"text/plain": {"schema": _TEXT}}}}
    own = {
        "/healthz": _get("The process is alive", _ok(m.Status), refusals),
        "/readyz": _get("The bundle answers", _ok(m.Status), [*refusals, 503]),
        "/metrics": _get("Counters and latencies", metrics, refusals, security),
    }
    schemes = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "slimrec", "version": "1"},
        "paths": paths | own,
        "components": {"schemas": _schemas(attributes)} | schemes,
    }


_TEXT = {"type": "string"}


def _schemas(attributes: Attributes) -> dict[str, Any]:
    modes: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        *((model, "validation") for model in _REQUESTS),
        *((model, "serialization") for model in _ANSWERS),
    ]
    _, found = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = deepcopy(found["$defs"])
    # Which attributes there are is the bundle's to say.
    filters = schemas["RecommendRequest"]["properties"]["filter"]
    values = filters.pop("additionalProperties")
    filters |= {"properties": {name: values for name, _ in attributes}, "additionalProperties": False}
    item = schemas["ItemRequest"]
    several = item.pop("additionalProperties")
    single = several | {"minItems": 1, "maxItems": 1}
    for name, separator in attributes:
        array = single if separator is None else several
        item["properties"].setdefault(name, {"anyOf": [several["items"], array]})
    item["additionalProperties"] = False
    return schemas


def _post(summary: str, request: type[BaseModel], found: type[BaseModel]) -> dict[str, Any]:
    body = {"required": True, "content": _json(request)}
    return {"summary": summary, "requestBody": body, "responses": _ok(found)}


def _search() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    query = {"name": "query", "in": "query", "required": True, "schema": text}
    number = {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    limit = {"name": "limit", "in": "query", "schema": number}
    return {
        "summary": "Find items by a part of their title",
        "parameters": [query, limit],
        "responses": _ok(m.ItemsResponse),
    }


def _remove() -> dict[str, Any]:
    item = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    responses = {"204": {"description": "It is gone"}}
    return {"summary": "Forget a cold item", "parameters": [item], "responses": responses}


def _get(
    summary: str, responses: dict[str, Any], problems: Sequence[int], security: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    operation = {"summary": summary, "responses": responses, "security": list(security)}
    _refuse(operation, problems)
    return {"get": operation}


def _ok(model: type[BaseModel]) -> dict[str, Any]:
    return {"200": {"description": "The answer", "content": _json(model)}}


def _json(model: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


def _refuse(operation: dict[str, Any], statuses: Sequence[int]) -> None:
    retry = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    for status in sorted(statuses):
        problem: dict[str, Any] = {
            "description": _PROBLEMS[status],
            "content": _json(m.Problem, "application/problem+json"),
        }
        operation["responses"][str(status)] = problem | ({"headers": retry} if status == 503 else {})
