"""Advice -> a recipe file that runs, each section under the reasons for it."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from compress.advise.facts import DomainFacts, Facts
from compress.advise.rules import Advice, has_text
from compress.recipe import merge
from compress.teacher.two_level import TwoLevel

Section = Any
NOTHING = {"distil": "none", "prune": "none", "quantize": "none"}
FROZEN = {"pretrain": {"objective": "none"}, "target": {"method": "frozen"}, "mix": "none"}


def recipe_values(facts: Facts, advice: Sequence[Advice]) -> dict[str, Section]:
    """The recipe as plain values."""
    merged: dict[str, Section] = {"data": {"domains": _domains(facts)}, **_base(facts)}
    for one in advice:
        for section, fields in one.settings.items():
            merged[section] = merge(merged.get(section, {}), fields)
    if not has_text(facts):
        merged |= {"pretrain": "none", "target": "none"}
    if not uses_source(facts):
        merged["source"] = "none"
    merged.setdefault("mix", "none")
    merged["variants"] = _variants(facts, [str(model) for model in _models(merged)])
    merged["pack"] = {"name": slug(facts)}
    return {"description": _description(facts), **{name: value for name, value in merged.items() if value != {}}}


def recipe_text(facts: Facts, advice: Sequence[Advice]) -> str:
    """The recipe as YAML: what a section follows from stands above it."""
    values = recipe_values(facts, advice)
    parts = []
    for section, value in values.items():
        reasons = [one for one in advice if next(iter(one.settings), None) == section]
        parts += [line for one in reasons for line in _comment(one)]
        flow = None if isinstance(value, dict) else False  # innermost mappings on one line, never the section itself
        dumped = yaml.dump({section: value}, Dumper=_Plain, sort_keys=False, default_flow_style=flow, width=110)
        parts.append(dumped.rstrip())
        parts.append("")
    elsewhere = [line for one in advice if not one.settings for line in _comment(one)]
    return "\n".join(["# Written by slimrec advise.", *elsewhere, "", *parts])


def uses_source(facts: Facts) -> bool:
    """Whether the teacher starts on a source: both domains need texts, the bridge between them."""
    return facts.source is not None and has_text(facts) and facts.source.texts.template is not None


def slug(facts: Facts) -> str:
    """A name for files: the target's."""
    return re.sub(r"[^a-z0-9_-]+", "-", facts.target.name.lower()).strip("-") or "recipe"


def _description(facts: Facts) -> str:
    source = f", from {facts.source.name}" if uses_source(facts) and facts.source else ""
    counts = f"{facts.target.users} users, {facts.target.items} items, {facts.target.events} events"
    return f"What slimrec advise recommends for {facts.target.name}{source}: {counts}."


def _domains(facts: Facts) -> dict[str, Section]:
    target = _domain(facts.target, facts.columns)
    if not uses_source(facts) or facts.source is None:
        return {"target": target}
    if facts.source.part.where == facts.target.part.where:
        target["not_in"] = "source"
    source = _domain(facts.source, facts.columns)
    if facts.target.ordered and not facts.source.ordered:
        source["order"] = "none"
    return {"source": source, "target": target}


def _domain(domain: DomainFacts, columns: Mapping[str, str]) -> dict[str, Section]:
    section: dict[str, Section] = {"from": domain.part.from_recipe()}
    if columns:
        section["columns"] = dict(columns)
    if domain.part.attribute is not None:
        section["items"] = {domain.part.attribute: list(domain.part.values)}
    if domain.separator != " ":
        section["list_separator"] = domain.separator
    if domain.texts.template is not None:
        section["text"] = domain.texts.template
    elif domain.title_column is None:
        section["text"] = "{item_id}"  # a catalogue without titles shows ids
    return section


def _base(facts: Facts) -> dict[str, Section]:
    """Lengths of training that a section with other fields must not lose."""
    if facts.rows is not None:
        return {}
    method = {"name": "two_level", "training": {"epochs": TwoLevel().training.epochs}}
    return {"source": {"method": method}, "target": {"method": method}}


def _models(merged: Mapping[str, Section]) -> list[str]:
    baselines = merged.get("baselines", {})
    return [model if isinstance(model, str) else model["name"] for model in baselines.get("models", [])]


def _variants(facts: Facts, baselines: Sequence[str]) -> dict[str, Section]:
    if facts.rows is not None:
        return _like_variants(facts, baselines)
    nothing = {"pretrain": "none", "source": "none", "target": "none", "mix": "none"}
    if not has_text(facts):
        return {"control": {"role": "control"}}
    variants: dict[str, Section] = {"control": {"role": "control", **nothing}}
    variants["control-text"] = {"role": "control", "source": "none", **FROZEN}
    variants["teacher"] = {"role": "teacher", **NOTHING}
    taught: dict[str, Section] = {}
    if uses_source(facts):
        variants["teacher-scratch"] = {"role": "teacher", "source": "none", **NOTHING}
        taught = {"teacher": ["teacher", "teacher-scratch"]}
    variants["text"] = {"role": "text_encoder", **taught, "distil": {"student": "text"}}
    variants["text-frozen"] = {"role": "text_encoder", "source": "none", **FROZEN, "distil": {"student": "text"}}
    variants["student"] = {"role": "student", **taught}
    return variants


def _like_variants(facts: Facts, baselines: Sequence[str]) -> dict[str, Section]:
    variants: dict[str, Section] = {"control": {"role": "control", "pretrain": "none", "target": "none"}}
    if has_text(facts):
        members = {"members": ["control", *baselines]}
        variants["teacher"] = {"role": "teacher", "mix": members, "distil": "none", "quantize": "none"}
        variants["student"] = {"role": "student", "mix": members}
    return variants


class _Plain(yaml.SafeDumper):
    """Says what is shared twice: recipes have no aliases."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _comment(advice: Advice) -> list[str]:
    return textwrap.wrap(
        f"{advice.about}: {advice.choice}. {advice.reason}", 118, initial_indent="# ", subsequent_indent="#   "
    )
