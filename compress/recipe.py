"""YAML -> frozen typed configs. Every mistake of a recipe is reported at once, with its path, before any work."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from compress.chain import Role
from compress.explain import explain
from compress.stage import Seed, Stage, StageConfig
from deploy.errors import UsageError

PATHS = ("from", "backbone", "key", "vectors", "ids", "user_vectors", "user_ids", "lists")
"""Fields that may name a file or folder."""
MAX_BYTES = 1_000_000
ROLES: tuple[Role, ...] = ("control", "teacher", "text_encoder", "student")
"""In the order they run: the gate compares teachers with controls before any student starts."""

Seeds = TypeAdapter(Annotated[tuple[Seed, ...], Field(min_length=1, max_length=32)])


@dataclass(frozen=True)
class Variant:
    """One chain through the table of stages: its role and its config of every per-variant stage."""

    name: str
    role: Role
    configs: Mapping[str, StageConfig]


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe. `shared` holds the configs of the stages that run once (`data`, `bench`, `select`, ...)."""

    name: str
    description: str
    seeds: tuple[int, ...]
    shared: Mapping[str, StageConfig]
    variants: tuple[Variant, ...]


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


def parse_recipe(raw: Mapping[str, Any], name: str, stages: Sequence[Stage]) -> Recipe:
    """Check every section of a recipe given as plain values. Raises UsageError with one line per mistake."""
    return _Parser(raw, stages).recipe(name)


class _Parser:
    """Collects the mistakes of all sections before it gives up."""

    def __init__(self, raw: Mapping[str, Any], stages: Sequence[Stage]) -> None:
        self.raw, self.stages = raw, stages
        self.errors: list[str] = []

    def recipe(self, name: str) -> Recipe:
        known = ["description", "seeds", "variants", *(stage.name for stage in self.stages)]
        for key in self.raw:
            if key not in known:
                self.errors.append(f"{key}: unknown section; allowed: {', '.join(known)}")
        description = self.raw.get("description", "")
        if not isinstance(description, str):
            self.errors.append(f"description: must be text (got {description!r})")
        seeds = self._seeds()
        shared = {
            stage.name: config
            for stage in self.stages
            if stage.scope != "variant" and (config := self._config(stage, self.raw.get(stage.name, {}), stage.name))
        }
        variants = tuple(self._variants())
        self._check_roles()
        self._check_members(variants, shared)
        if self.errors:
            raise UsageError(dict.fromkeys(self.errors))
        return Recipe(name, " ".join(description.split()), seeds, shared, variants)

    def _seeds(self) -> tuple[int, ...]:
        given = self.raw.get("seeds", [0])
        try:
            seeds = Seeds.validate_python(given, strict=False)
        except ValidationError:
            seeds = ()
        if not seeds or len(set(seeds)) < len(seeds):
            self.errors.append(f"seeds: must be a list of 1 to 32 different whole numbers from 0 (got {given!r})")
        return seeds

    def _check_roles(self) -> None:
        """A student is compared with a control, which ships in its place where the gate fails; something must ship."""
        raw = self.raw.get("variants")
        roles = [own.get("role") for own in raw.values() if isinstance(own, dict)] if isinstance(raw, dict) else []
        if not roles or any(role not in ROLES for role in roles) or "control" in roles:
            return
        if "student" in roles:
            self.errors.append("variants: a student needs a control to be compared with; add one with role: control")
        else:
            self.errors.append("variants: nothing can ship; add one with role: control, or a student and a control")

    def _check_members(self, variants: Sequence[Variant], shared: Mapping[str, StageConfig]) -> None:
        baselines = [model.name for model in getattr(shared.get("baselines"), "models", ())]
        for variant in variants:
            for stage, config in variant.configs.items():
                allowed = [v.name for v in variants if v.role in ("control", "teacher") and v is not variant]
                for name in config.reads:
                    if name not in [*allowed, *baselines]:
                        self.errors.append(
                            f"variants.{variant.name}: {stage}.members: no such control, teacher or baseline; allowed: "
                            f"{', '.join([*allowed, *baselines])} (got {name!r})"
                        )

    def _variants(self) -> Iterator[Variant]:
        raw = self.raw.get("variants")
        if not isinstance(raw, dict) or not raw:
            some = "`control: {role: control, source: none, target: none}`"
            self.errors.append(f"variants: name at least one, such as {some} (got {raw!r})")
            return
        for name, own in raw.items():
            where = f"variants.{name}"
            if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", name):
                self.errors.append(f"{where}: a name has a-z, 0-9, '.', '_' and '-', at most 64 (got {name!r})")
                continue
            if not isinstance(own, dict):
                self.errors.append(f"{where}: must be a mapping with a `role` (got {own!r})")
                continue
            role = own.get("role")
            if role not in ROLES:
                self.errors.append(f"{where}.role: allowed: {', '.join(ROLES)} (got {role!r})")
            stages = [stage for stage in self.stages if stage.scope == "variant"]
            for key in own:
                if key != "role" and key not in [stage.name for stage in stages]:
                    allowed = ", ".join(stage.name for stage in stages)
                    self.errors.append(f"{where}.{key}: unknown stage; allowed: role, {allowed}")
            configs = {}
            for stage in stages:
                merged = merge(self.raw.get(stage.name, {}), own.get(stage.name, {}))
                if isinstance(merged, dict) and "seed" in merged:
                    place = f"{where}." if _states(own.get(stage.name), ("seed",)) else ""
                    self.errors.append(f"{place}{stage.name}.seed: comes from `seeds` at the top of the recipe")
                config = self._config(stage, merged, stage.name, own.get(stage.name), where)
                if config is not None:
                    configs[stage.name] = config
            if role == "control" and (taught := [name for name, config in configs.items() if config.teaches]):
                told = ", ".join(f"{name}: none" for name in taught)
                self.errors.append(f"{where}: a control is trained without a teacher; add {told}")
            if role in ROLES and len(configs) == len(stages):
                yield Variant(name, role, configs)

    def _config(
        self, stage: Stage, value: Any, section: str, own: Any = None, variant: str | None = None
    ) -> StageConfig | None:
        # a mistake in a default belongs to the section, one in an override to the variant
        def place(path: tuple[str | int, ...]) -> str:
            return ".".join([*([variant] if variant and _states(own, path) else []), section, *map(str, path)])

        try:
            config = stage.config.model_validate(value)
        except ValidationError as error:
            self.errors += [f"{place(path)}: {message}" for path, message in explain(error, stage.config, value)]
            return None
        if unknown := self._unknown_domain(config):
            self.errors.append(f"{place(('domain',))}: {unknown}")
        return config

    def _unknown_domain(self, config: StageConfig) -> str | None:
        """A stage that is skipped may keep the default name of a domain that this recipe has not."""
        data = self.raw.get("data")
        domains = data.get("domains") if isinstance(data, dict) else None
        name = getattr(config, "domain", None)
        if not isinstance(domains, dict) or name is None or name in domains:
            return None
        if name == type(config).model_fields["domain"].default and not config.teaches:
            return None
        return f"no such domain in data.domains; allowed: {', '.join(map(str, domains))} (got {name!r})"


def merge(default: Any, own: Any) -> Any:
    """Overlay a variant's section on the default one; a mapping with another `name` replaces its default whole."""
    if not (isinstance(default, dict) and isinstance(own, dict)):
        return own if own != {} else default
    if "name" in own and own["name"] != default.get("name", own["name"]):
        return own
    return {**default, **{key: merge(default.get(key, {}), value) for key, value in own.items()}}


def _states(own: Any, path: tuple[str | int, ...]) -> bool:
    for part in path:
        if not isinstance(own, dict):
            break
        if part not in own:
            return False
        own = own[part]
    return own is not None


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
