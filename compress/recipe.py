"""Plain values -> frozen typed configs. All mistakes of a recipe are reported at once, with paths, before any work."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from compress.chain import Role
from compress.explain import explain
from compress.search.space import Search, read_search
from compress.stage import Seed, Stage, StageConfig
from deploy.errors import UsageError

ROLES: tuple[Role, ...] = ("control", "teacher", "text_encoder", "student")
"""In the order they run: the gate compares teachers with controls before any student starts."""

TEACHER_STAGES = ("pretrain", "source", "target", "mix")
"""What a variant does not run itself where it names a teacher."""

Seeds = TypeAdapter(Annotated[tuple[Seed, ...], Field(min_length=1, max_length=32)])


@dataclass(frozen=True)
class Variant:
    """One chain through the table of stages: its role and its config of every per-variant stage.

    `teachers` names the variants it learns from in place of a teacher of its own; validation chooses among them.
    """

    name: str
    role: Role
    configs: Mapping[str, StageConfig]
    teachers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe. `shared` holds the configs of the stages that run once (`data`, `bench`, `select`, ...);
    `search` says how more variants are found while it runs."""

    name: str
    description: str
    seeds: tuple[int, ...]
    shared: Mapping[str, StageConfig]
    variants: tuple[Variant, ...]
    search: Search | None = None


def parse_recipe(raw: Mapping[str, Any], name: str, stages: Sequence[Stage]) -> Recipe:
    """Check every section of a recipe given as plain values. Raises UsageError with one line per mistake."""
    return _Parser(raw, stages).recipe(name)


class _Parser:
    """Collects the mistakes of all sections before it gives up."""

    def __init__(self, raw: Mapping[str, Any], stages: Sequence[Stage]) -> None:
        self.raw, self.stages = raw, stages
        self.errors: list[str] = []

    def recipe(self, name: str) -> Recipe:
        known = ["description", "seeds", "variants", "search", *(stage.name for stage in self.stages)]
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
        self._check_teachers(variants)
        search = self._search(variants)
        if self.errors:
            raise UsageError(dict.fromkeys(self.errors))
        return Recipe(name, " ".join(description.split()), seeds, shared, variants, search)

    def _search(self, variants: Sequence[Variant]) -> Search | None:
        """Checked once the variants are sound: it is one of them that a search changes."""
        raw = self.raw.get("variants")
        if "search" not in self.raw or not isinstance(raw, dict) or len(variants) < len(raw):
            return None
        search, mistakes = read_search(self.raw["search"], variants, self.stages)
        self.errors += mistakes
        return search

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

    def _check_teachers(self, variants: Sequence[Variant]) -> None:
        allowed = [variant.name for variant in variants if variant.role == "teacher"]
        for variant in variants:
            for name in variant.teachers:
                if name not in allowed:
                    self.errors.append(
                        f"variants.{variant.name}.teacher: no such teacher; allowed: {', '.join(allowed)} "
                        f"(got {name!r})"
                    )
            for stage, config in variant.configs.items():
                for need, what in config.wants.items():
                    without = [
                        name for name in variant.teachers or (variant.name,) if need not in _left(name, variants)
                    ]
                    if without:
                        self.errors.append(
                            f"variants.{variant.name}: {stage}.loss needs {what} (teacher: {', '.join(without)})"
                        )

    def _teachers(self, where: str, own: dict[str, Any]) -> tuple[str, ...]:
        """What `teacher: NAME` or `teacher: [NAME, ...]` says."""
        given = own.get("teacher", [])
        names = [given] if isinstance(given, str) else given
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)) or len(set(names)) < len(
            names
        ):
            self.errors.append(f"{where}.teacher: a teacher's name or a list of different ones (got {given!r})")
            return ()
        if names and own.get("role") not in ("student", "text_encoder"):
            self.errors.append(f"{where}.teacher: students and text encoders have one (got role {own.get('role')!r})")
        for stage in TEACHER_STAGES:
            if names and stage in own:
                self.errors.append(f"{where}.{stage}: comes from the teacher ({', '.join(names)}); leave it out")
        return tuple(names)

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
                if key not in ("role", "teacher") and key not in [stage.name for stage in stages]:
                    allowed = ", ".join(stage.name for stage in stages)
                    self.errors.append(f"{where}.{key}: unknown stage; allowed: role, teacher, {allowed}")
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
                yield Variant(name, role, configs, self._teachers(where, own))

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
        for field, unknown in self._unknown_domains(config):
            self.errors.append(f"{place((field,))}: {unknown}")
        return config

    def _unknown_domains(self, config: StageConfig) -> Iterator[tuple[str, str]]:
        """(field, mistake). A stage that is skipped may keep the default name of a domain that this recipe has not."""
        data = self.raw.get("data")
        known = data.get("domains") if isinstance(data, dict) else None
        several = getattr(config, "domains", None)
        named = [("domains", name) for name in several] if isinstance(several, tuple) else []
        for field, name in named or [("domain", getattr(config, "domain", None))]:
            if not isinstance(known, dict) or name is None or name in known:
                continue
            if name != type(config).model_fields[field].default or config.teaches:
                yield field, f"no such domain in data.domains; allowed: {', '.join(map(str, known))} (got {name!r})"


def _left(teacher: str, variants: Sequence[Variant]) -> frozenset[str]:
    """What a teacher's last teaching stage leaves; all there is where none teaches: a control's losses are not used."""
    for variant in variants:
        if variant.name == teacher:
            teaching = [variant.configs[stage] for stage in TEACHER_STAGES if variant.configs[stage].teaches]
            return teaching[-1].leaves if teaching else frozenset({"tail", "user_vectors"})
    return frozenset({"tail", "user_vectors"})


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
