"""pydantic's errors -> one line each: what is wrong, the value, and what would be allowed."""

import difflib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]


def explain(error: ValidationError, model: type[BaseModel], value: Any) -> Iterator[tuple[Path, str]]:
    """(path, message) of every mistake. The path is the user's: without the tags pydantic adds for unions."""
    for item in error.errors(include_url=False):
        kind, got = item["type"], item.get("input")
        path = _users_path(item["loc"], value)
        if kind == "extra_forbidden":
            fields = _fields_at(model, item["loc"][:-1])
            close = difflib.get_close_matches(str(path[-1]), fields, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield path, f"unknown field (got {got!r}); {hint}allowed: {', '.join(fields)}"
        elif kind == "union_tag_invalid":
            tag, allowed = item["ctx"]["tag"], item["ctx"]["expected_tags"].replace("'", "")
            yield path, f"unknown name (got {tag!r}); allowed: {allowed}"
        elif kind == "union_tag_not_found":
            yield path, f"needs a `name` (got {got!r})"
        elif kind == "missing":
            yield path, "is missing"
        elif kind == "literal_error":
            yield path, f"allowed: {item['ctx']['expected']} (got {got!r})"
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            yield (
                path,
                f"should be {message} (got {got!r})"
                if item["msg"].startswith("Input should")
                else (f"{message} (got {got!r})"),
            )


def _users_path(loc: Path, value: Any) -> Path:
    path: list[str | int] = []
    for index, part in enumerate(loc):
        inside = part in value if isinstance(value, dict) else isinstance(part, int) and isinstance(value, list)
        if inside:
            value = value[part]
        elif isinstance(part, int) and not isinstance(value, list):
            continue  # the only entry of a list, written without one
        elif index < len(loc) - 1 or _is_tag(value, part):
            continue
        path.append(part)
    return tuple(path)


def _is_tag(value: Any, part: str | int) -> bool:
    return value == part or (isinstance(value, dict) and value.get("name") == part)


def _fields_at(model: type[BaseModel], loc: Path) -> list[str]:
    annotation: Any = model
    for part in loc:
        inner = _descend(annotation, part)
        annotation = annotation if inner is None else inner
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return [f.alias or name for name, f in member.model_fields.items()]
    return []


def _descend(annotation: Any, part: str | int) -> Any:
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            if part in member.model_fields:
                return member.model_fields[str(part)].annotation
            for name, field in member.model_fields.items():
                if field.alias == part:
                    return member.model_fields[name].annotation
            tag = member.model_fields.get("name")
            if tag is not None and get_origin(tag.annotation) is Literal and part in get_args(tag.annotation):
                return member
        elif get_origin(member) in (dict, tuple, list):
            arguments = [a for a in get_args(member) if a is not Ellipsis]
            return arguments[-1] if arguments else None
    return None


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) not in (None, dict, tuple, list, Literal):
        return [leaf for member in get_args(annotation) for leaf in _members(member)]
    return [annotation]
