"""pydantic's errors in the user's words: hand-made models, exact lines."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from compress.explain import explain
from compress.stage import Entry, Shorthand, StageConfig


class Small(Entry):
    name: Literal["small"] = "small"
    width: int = 1


class Large(Entry):
    name: Literal["large"] = "large"
    height: int
    parts: tuple[Small, ...] = ()


class Probe(StageConfig):
    size: Annotated[Small | Large, Field(discriminator="name"), Shorthand] = Small()
    mode: Literal["fast", "slow"] = "fast"
    named: dict[str, Small] = Field(default={})
    shift: int = Field(default=0, alias="from")


def told(value):
    with pytest.raises(ValidationError) as caught:
        Probe.model_validate(value)
    return [(".".join(map(str, path)), message) for path, message in explain(caught.value, Probe, value)]


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"sise": 1}, "sise", "unknown field (got 1); did you mean size? allowed: seed, size, mode, named, from"),
        ({"zzz": 1}, "zzz", "unknown field (got 1); allowed: seed, size, mode, named, from"),
        ({"size": "medium"}, "size", "unknown name (got 'medium'); allowed: small, large"),
        ({"size": {"name": "medium"}}, "size", "unknown name (got 'medium'); allowed: small, large"),
        ({"size": {}}, "size", "needs a `name` (got {})"),
        ({"size": "large"}, "size.height", "is missing"),
        ({"size": {"name": "large"}}, "size.height", "is missing"),
        (
            {"size": {"name": "small", "widht": 2}},
            "size.widht",
            "unknown field (got 2); did you mean width? allowed: name, width",
        ),
        (
            {"size": {"name": "large", "height": 1, "parts": [{}, {"withd": 2}]}},
            "size.parts.1.withd",
            "unknown field (got 2); did you mean width? allowed: name, width",
        ),
        ({"mode": "quick"}, "mode", "allowed: 'fast' or 'slow' (got 'quick')"),
        (
            {"named": {"a": {"wide": 1}}},
            "named.a.wide",
            "unknown field (got 1); did you mean width? allowed: name, width",
        ),
        ({"from": "x"}, "from", "should be a valid integer, unable to parse string as an integer (got 'x')"),
        ({"seed": -1}, "seed", "should be greater than or equal to 0 (got -1)"),
        ({"size": 3}, "size", "should be a valid dictionary or object to extract fields from (got 3)"),
    ],
)
def test_one_mistake(value, path, message):
    assert told(value) == [(path, message)]


def test_a_section_that_is_no_mapping():
    [(path, message)] = told("all")
    assert path == "" and message.endswith("(got 'all')")


def test_several_mistakes_keep_their_order():
    paths = [path for path, _ in told({"size": {"name": "small", "width": "w"}, "mode": 1, "seed": "s", "x": 0})]
    assert paths == ["seed", "size.width", "mode", "x"]
