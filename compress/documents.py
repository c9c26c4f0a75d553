"""What a bundle says of itself beside its manifest: card, licences, provenance and bill of materials."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compress.card import card, licences, shipped_rows
from compress.provenance import provenance
from compress.sbom import sbom
from compress.stage import Inputs
from deploy.bundle import file_entry
from deploy.manifest import CARD, LICENCES, PROVENANCE, SBOM, canonical_json


def documents(
    name: str,
    model: Mapping[str, Any],
    files: Mapping[str, Path | bytes],
    evidence: Mapping[str, Any],
    inputs: Inputs,
    shipped: Iterable[Path],
    licence: str | None,
    terms: Mapping[str, str],
) -> dict[str, bytes]:
    """File name -> bytes, for the bundle that `files` and the manifest's section `model` make.

    inputs: every sealed folder of the run, of which `shipped` are what the bundle was made from. licence, terms: as
    `PackConfig` has them.
    """
    origin = provenance(inputs, shipped, licence, terms)
    made = {
        PROVENANCE: canonical_json(origin.model_dump(mode="json", by_alias=True)),
        CARD: card(name, model, evidence, origin),
        LICENCES: licences(origin),
    }
    graphs: dict[str, Mapping[str, Any] | None] = {
        model["precisions"][precision]: row for precision, row in shipped_rows(evidence)
    }
    graphs |= dict.fromkeys((model["likes"] or {}).values())
    if model["text"]:
        graphs[model["text"]["graph"]] = None
    entries = {file: file_entry(content) for file, content in {**files, **made}.items()}
    return {**made, SBOM: sbom(name, entries, graphs, origin)}
