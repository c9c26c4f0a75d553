"""`sbom.cdx.json`: what is in a bundle and what runs it, as CycloneDX 1.6 (ECMA-424)."""

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from compress.provenance import NOT_STATED, DataSet, LanguageModel, Package, Provenance
from deploy.manifest import ITEMS, POPULAR, FileEntry, canonical_json

NAMESPACE = uuid.UUID("5ba8b5ba-6b1d-5f0e-9d7b-1d0f3e6b2a11")
SPDX_IDS = frozenset({"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0", "PSF-2.0", "CC-BY-4.0",
                      "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC0-1.0", "Unlicense", "Zlib", "0BSD"})  # fmt: skip
BUNDLE = "bundle"

Component = dict[str, Any]


def sbom(
    name: str,
    files: Mapping[str, FileEntry],
    graphs: Mapping[str, Mapping[str, Any] | None],
    origin: Provenance,
) -> bytes:
    """The document's canonical bytes. Equal inputs give equal ones: no time is in it, its serial number is a digest.

    files: of the bundle, this one and the manifest left out. graphs: those of them that are graphs, each with its
    measured row (`evidence.json`'s models), None where it has none.
    """
    components = [_file(file, entry, file in graphs, graphs.get(file)) for file, entry in sorted(files.items())]
    libraries = [_library(package) for package in origin.runtime]
    ancestors = [*map(_model, origin.language_models), *map(_data_set, _each_once(origin.data))]
    refs = {package.name: library["bom-ref"] for package, library in zip(origin.runtime, libraries, strict=True)}
    runs = [refs[package] for package in ("slimrec",) if package in refs]
    dependencies = [{"ref": BUNDLE, "dependsOn": sorted([c["bom-ref"] for c in components] + runs)}]
    dependencies += [{"ref": refs[p.name], "dependsOn": sorted(refs[need] for need in p.needs)} for p in origin.runtime]
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": BUNDLE,
                "name": name,
                "description": "item recommender: history of item ids -> best items",
                "licenses": _licences(origin.licence),
                "pedigree": {"ancestors": ancestors},
            }
        },
        "components": [*components, *libraries],
        "dependencies": dependencies,
    }
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    return canonical_json({**document, "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}"})


def _file(name: str, entry: FileEntry, graph: bool, row: Mapping[str, Any] | None) -> Component:
    kind = "machine-learning-model" if graph else "data" if name in (ITEMS, POPULAR) else "file"
    component: Component = {
        "type": kind,
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
        "properties": [{"name": "slimrec:size", "value": str(entry.size)}],
    }
    if row is not None:
        measured = row["accuracy"]["test"]
        component["modelCard"] = {
            "modelParameters": {"task": "recommendation"},
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    {"type": metric, "value": repr(value), "slice": "test"}
                    for metric, value in sorted(measured.items())
                    if isinstance(value, float)
                ]
            },
        }
    return component


def _library(package: Package) -> Component:
    return {
        "type": "library",
        "bom-ref": (purl := f"pkg:pypi/{package.name}@{package.version}"),
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "licenses": _licences(package.licence),
        "scope": "required",
    }


def _model(model: LanguageModel) -> Component:
    hashes = [{"name": f"sha256:{name}", "value": digest} for name, digest in sorted(model.files.items())]
    return {
        "type": "machine-learning-model",
        "name": model.name,
        "licenses": _licences(model.licence),
        "properties": hashes,
    }


def _data_set(data: DataSet) -> Component:
    return {
        "type": "data",
        "name": data.name,
        "licenses": _licences(data.terms),
        "properties": [{"name": "slimrec:digest", "value": data.digest}],
    }


def _each_once(data: Sequence[DataSet]) -> list[DataSet]:
    return list({(found.name, found.digest): found for found in data}.values())


def _licences(text: str) -> list[dict[str, Any]]:
    """An SPDX identifier where it is one, an expression of several, else the words; none where nothing is stated."""
    if text == NOT_STATED:
        return []
    if text in SPDX_IDS:
        return [{"license": {"id": text}}]
    words = re.split(r"[\s()]+", text.strip("() "))
    if len(words) > 1 and all(w in SPDX_IDS if place % 2 == 0 else w in ("AND", "OR") for place, w in enumerate(words)):
        return [{"expression": text}]
    return [{"license": {"name": text}}]
