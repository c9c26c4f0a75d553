"""A recipe's YAML file -> plain values -> `compress.recipe`: bounded, strict, paths made absolute, `--set` applied."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from compress.recipe import Recipe, parse_recipe
from compress.stage import Stage
from deploy.errors import UsageError

MAX_BYTES = 1_000_000
PATHS = ("from", "backbone", "model", "adapter", "key", "vectors", "ids", "user_vectors", "user_ids", "lists")
"""Fields that may name a file or folder."""


def load_recipe(path: Path, stages: Sequence[Stage], overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file; `overrides` are `section.field=value` with YAML values. Raises UsageError."""
    try:
        raw_bytes = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot read the recipe: {error.strerror}; `slimrec recipes` lists those shipped"
        ) from error
    if len(raw_bytes) > MAX_BYTES:
        raise UsageError(f"{path}: a recipe has at most {MAX_BYTES} bytes (got {len(raw_bytes)})")
    try:
        raw = yaml.load(raw_bytes.decode("utf-8"), _UniqueKeys)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply to be a recipe") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: a recipe is a mapping of sections (got {type(raw).__name__})")
    mistakes = [mistake for override in overrides if (mistake := _override(raw, override))]
    if mistakes:
        raise UsageError(mistakes)
    return parse_recipe(_absolute(raw, path.parent.absolute()), path.stem, stages)


def _override(raw: dict[str, Any], text: str) -> str | None:
    """Apply one `section.field=value`; returns what is wrong with it, None where nothing is."""
    path, equals, value = text.partition("=")
    parts = path.split(".")
    if not equals or not all(parts):
        return f"--set: expected section.field=value (got {text!r})"
    try:
        parsed = yaml.load(value, _UniqueKeys)
    except (yaml.YAMLError, RecursionError):
        return f"--set {path}: the value is not valid YAML (got {value!r})"
    node: dict[str, Any] = raw
    for part in parts[:-1]:
        below = node.get(part)
        if isinstance(below, str):  # the shorthand `loss: kl` of {name: kl}
            below = {"name": below}
        node[part] = below if isinstance(below, dict) else {}
        node = node[part]
    node[parts[-1]] = parsed
    return None


def _absolute(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths in a recipe are relative to its folder; a name without a slash is looked up by name."""

    def walk(value: Any, key: Any) -> Any:
        if isinstance(value, dict):
            return {k: walk(v, k) for k, v in value.items()}
        if key in PATHS and isinstance(value, str) and value.startswith((".", "/", "~")):
            return str((folder / Path(value).expanduser()).resolve())
        return value

    walked: dict[str, Any] = walk(raw, None)
    return walked


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML, but a key given twice is a mistake and aliases, which can blow up, are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.value[index][0].start_mark
                )
        return super().construct_mapping(node, deep=deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported", mark)
        return super().compose_node(parent, index)
