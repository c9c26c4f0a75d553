"""What a bundle descends from: sealed artifacts, data sets, language models, and the runtime that made its answers."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from compress.data.sources import source_terms
from compress.models.folder import read_json
from compress.stage import Inputs
from compress.store import SEAL
from compress.teacher.backbone import LICENCES
from deploy.manifest import Record

NOT_STATED = "not stated"


class DataSet(Record):
    """A domain of the recipe. `digest`: SHA-256 of the content read, or the pin of what was downloaded."""

    domain: str
    name: str
    users: int
    items: int
    interactions: int
    digest: str
    terms: str


class LanguageModel(Record):
    """A pretrained model that a teacher began with, with the SHA-256 of the files it was read from."""

    name: str
    licence: str
    files: Mapping[str, str]


class Origin(Record):
    """A sealed artifact: which stage made it, and the digest of its content. `read`: digests of files from outside."""

    stage: str
    version: int
    artifact: str
    read: Mapping[str, str]


class Package(Record):
    """An installed distribution that the runtime needs."""

    name: str
    version: str
    licence: str
    needs: tuple[str, ...]


class Provenance(Record):
    """`provenance.json`. `licence`: of the bundle as a whole, as its maker states it."""

    version: int = Field(default=1, alias="schema")
    licence: str
    data: tuple[DataSet, ...]
    language_models: tuple[LanguageModel, ...]
    artifacts: tuple[Origin, ...]
    runtime: tuple[Package, ...]


def provenance(inputs: Inputs, shipped: Iterable[Path], licence: str | None, terms: Mapping[str, str]) -> Provenance:
    """What the artifacts `shipped` descend from, among the sealed folders `inputs`.

    terms: name of a data set or language model -> its licence or terms, where the recipe's author knows better.
    """
    seals = list(lineage(inputs, shipped))
    return Provenance(
        licence=licence or NOT_STATED,
        data=tuple(_data(inputs["data"], next(s for s in seals if s["stage"] == "data"), terms)),
        language_models=tuple(_language_models(seals, terms)),
        artifacts=tuple(
            Origin(stage=s["stage"], version=s["version"], artifact=s["digest"], read=s["fingerprint"]) for s in seals
        ),
        runtime=runtime_packages(),
    )


def lineage(inputs: Inputs, shipped: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The seals of `shipped` and of all that they were made from, each once, what was made first before the rest."""
    seals = [(name, read_json(path / SEAL)) for name, path in inputs.items() if (path / SEAL).is_file()]
    told: set[str] = set()

    def walk(seal: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for name, digest in seal["inputs"].items():
            # two chains may have made the same bytes; a stage's own name decides, except for members of a mix
            equal = [found for _, found in seals if found["digest"] == digest]
            yield from walk(next((found for found in equal if found["stage"] == name), equal[0]))
        key = json.dumps([seal["stage"], seal["digest"], seal["config"]], sort_keys=True)
        if key not in told:
            told.add(key)
            yield seal

    for path in shipped:
        yield from walk(read_json(path / SEAL))


def _data(folder: Path, seal: Mapping[str, Any], terms: Mapping[str, str]) -> Iterator[DataSet]:
    described = read_json(folder / "dataset.json")["domains"]
    for domain, facts in described.items():
        name = facts["source"]
        known = source_terms(seal["config"]["domains"][domain]["source"]["name"])
        yield DataSet(
            domain=domain,
            name=name,
            **{count: facts[count] for count in ("users", "items", "interactions")},
            digest=seal["fingerprint"][domain],
            terms=terms.get(name, known or NOT_STATED),
        )


def _language_models(seals: Iterable[Mapping[str, Any]], terms: Mapping[str, str]) -> Iterator[LanguageModel]:
    found: dict[str, LanguageModel] = {}
    for seal in seals:
        backbone = seal["config"].get("backbone", {})
        if seal["stage"] != "pretrain" or backbone.get("name") != "pretrained":
            continue
        model = backbone["model"]
        name = model if model in LICENCES else Path(model).name if Path(model).is_absolute() else model
        licence = terms.get(name, LICENCES.get(name, NOT_STATED))
        found.setdefault(name, LanguageModel(name=name, licence=licence, files=seal["fingerprint"]))
    yield from found.values()


@cache
def runtime_packages() -> tuple[Package, ...]:
    """slimrec's base install as it is here: its distributions, those they need included, by name."""
    found: dict[str, Package] = {}
    waiting = ["slimrec"]
    while waiting:
        name = waiting.pop()
        try:
            facts = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system or Python
        needs = sorted({_plain(line) for line in facts.requires or () if "extra ==" not in line})
        found[name] = Package(name=name, version=facts.version, licence=_licence(facts), needs=tuple(needs))
        waiting += [need for need in needs if need not in found]
    packages = [found[name] for name in sorted(found)]
    return tuple(p.model_copy(update={"needs": tuple(n for n in p.needs if n in found)}) for p in packages)


def _plain(requirement: str) -> str:
    """A requirement's normalized name (PEP 503)."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def _licence(facts: metadata.Distribution) -> str:
    def stated(field: str) -> list[str]:
        return [str(value) for value in facts.metadata.get_all(field) or ()]

    if expression := stated("License-Expression"):
        return expression[0]
    classified = [line.rpartition(" :: ")[2] for line in stated("Classifier") if line.startswith("License :: ")]
    named = ", ".join(classified or stated("License"))
    return named.strip().partition("\n")[0][:100] or NOT_STATED
