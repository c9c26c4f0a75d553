"""What a bundle says of itself: where it comes from, under which terms, how good it is; all of it inside what is
signed, and the same bytes from the same artifacts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from compress.data.sources import PUBLIC, source_terms
from compress.models.folder import read_json, write_json
from compress.pack import PackConfig, pack
from compress.provenance import DataSet, LanguageModel, Provenance, lineage, provenance, runtime_packages
from compress.sbom import sbom
from compress.store import SEAL
from deploy.bundle import file_entry
from deploy.manifest import DOCUMENTS

Run = Callable[..., Path]
ROOT = Path(__file__).parents[2]
STUDENT = "student:student:0"


@pytest.fixture(scope="module")
def packed(
    build: Run, film_inputs: dict[str, Path], film_bench: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    choice = tmp_path_factory.mktemp("select")
    write_json(choice / "choice.json", {"selected": "student-int8_per_row"})
    config = PackConfig(name="films", licence="CC-BY-4.0", terms={"synthetic": "ours"})
    return build(pack, config, **film_inputs, bench=film_bench, select=choice) / "bundle"


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_bytes())


def test_the_bill_of_materials_is_cyclonedx(packed: Path) -> None:
    text = (packed / "sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"specVersion":"1.6"', '"specVersion":"1.6","unheard_of":1')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_it_lists_every_file_and_every_package(packed: Path) -> None:
    document, manifest = read(packed, "sbom.cdx.json"), read(packed, "manifest.json")
    hashes = {c["name"]: c["hashes"][0]["content"] for c in document["components"] if "hashes" in c}
    listed = {name: entry["sha256"] for name, entry in manifest["files"].items() if name != "sbom.cdx.json"}
    assert hashes == listed
    packages = {c["name"]: c for c in document["components"] if c["type"] == "library"}
    assert {"slimrec", "numpy", "onnxruntime", "tokenizers", "starlette", "cffi"} <= packages.keys()
    assert not {"torch", "transformers", "pytest"} & packages.keys()
    refs = {c["bom-ref"] for c in document["components"]} | {"bundle"}
    assert all({d["ref"], *d["dependsOn"]} <= refs for d in document["dependencies"])


def test_models_carry_their_measured_accuracy(packed: Path) -> None:
    rows = {row["name"]: row for row in read(packed, "evidence.json")["models"]}
    component = next(c for c in read(packed, "sbom.cdx.json")["components"] if c["name"] == "history.int8.onnx")
    told = {m["type"]: float(m["value"]) for m in component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    assert told["ndcg@10"] == rows["student-int8_per_row"]["accuracy"]["test"]["ndcg@10"]


def test_provenance_is_the_seals(packed: Path, film_inputs: dict[str, Path], film_teacher: dict[str, Path]) -> None:
    told = read(packed, "provenance.json")
    artifacts = {(a["stage"], a["artifact"]) for a in told["artifacts"]}
    ancestors = [film_inputs[name] for name in ("data", "baselines", f"quantize/{STUDENT}", f"distil/{STUDENT}")]
    ancestors += [film_inputs["quantize/text_encoder:text:0"], *film_teacher.values()]
    assert {(s["stage"], s["digest"]) for s in (read(folder, SEAL) for folder in ancestors)} <= artifacts
    assert not [a for a in artifacts if a[0] in ("bench", "select", "pack")]
    control = read(film_inputs["quantize/control:control:0"], SEAL)["digest"]
    assert control not in {digest for _, digest in artifacts}
    assert {(d["domain"], d["terms"]) for d in told["data"]} == {("source", "ours"), ("target", "ours")}
    assert told["licence"] == "CC-BY-4.0"


def test_what_was_made_first_is_told_first(film_inputs: dict[str, Path]) -> None:
    seals = list(lineage(film_inputs, [film_inputs[f"quantize/{STUDENT}"]]))
    assert [s["stage"] for s in seals] == ["data", "pretrain", "source", "target", "distil", "prune", "quantize"]


def test_a_language_model_is_named_with_its_licence_and_files(film_inputs: dict[str, Path], tmp_path: Path) -> None:
    """The seal's word is taken: a hub name, and the digests of what was read."""

    def named(model: str, **terms: str) -> LanguageModel:
        shutil.rmtree(tmp_path / "pretrain", ignore_errors=True)
        folder = shutil.copytree(film_inputs["pretrain/teacher:teacher:0"], tmp_path / "pretrain")
        seal = read_json(folder / SEAL)
        seal["config"]["backbone"] = {"name": "pretrained", "model": model}
        write_json(folder / SEAL, {**seal, "fingerprint": {"model.safetensors": "ab" * 32}})
        inputs = {**film_inputs, "pretrain/teacher:teacher:0": folder}
        (found,) = provenance(inputs, [inputs[f"quantize/{STUDENT}"]], None, terms).language_models
        return found

    mini = named("sentence-transformers/all-MiniLM-L6-v2")
    assert (mini.licence, mini.files) == ("Apache-2.0", {"model.safetensors": "ab" * 32})
    ours = named("/srv/models/own-lm")
    assert (ours.name, ours.licence) == ("own-lm", "not stated")
    assert named("org/own-lm", **{"org/own-lm": "MIT"}).licence == "MIT"


def origin(licence: str = "not stated", lm: str = "Apache-2.0") -> Provenance:
    data = DataSet(domain="target", name="d", users=1, items=2, interactions=3, digest="x", terms="research")
    model = LanguageModel(name="org/lm", licence=lm, files={})
    return Provenance(licence=licence, data=(data,), language_models=(model,), artifacts=(), runtime=runtime_packages())


@pytest.mark.parametrize("licence", ["not stated", "MIT", "MIT AND BSD-3-Clause", "(MIT OR ISC)", "ask us", "A B"])
def test_any_licence_is_said_as_cyclonedx_has_it(licence: str) -> None:
    made = sbom("x", {"card.md": file_entry(b"")}, {}, origin(licence, licence))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode()) is None


def test_a_licence_that_asks_for_its_text_has_it() -> None:
    from compress.card import licences

    assert b"Version 2.0, January 2004" in licences(origin())
    assert b"Version 2.0, January 2004" not in licences(origin(lm="MIT"))
    assert "| data d | research |" in licences(origin()).decode()
    assert (ROOT / "compress/licences/Apache-2.0.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_card_has_the_evidences_numbers(packed: Path) -> None:
    text, evidence = (packed / "card.md").read_text("utf-8"), read(packed, "evidence.json")
    rows = {row["name"]: row for row in evidence["models"]}
    assert evidence["graphs"] == {"fp32": "student-fp32", "int8": "student-int8_per_row"}
    for precision, name in evidence["graphs"].items():
        test = rows[name]["accuracy"]["test"]
        low, high = test["ndcg@10_ci95"]
        assert f"| {precision} | all | {test['cases']} | {test['ndcg@10']:.4f} [{low:.4f}, {high:.4f}] |" in text
        assert f"| {rows[name]['latency'][0]['p50_ms']:.3f} |" in text
    assert "synthetic as domain `target`" in text and "(ours)" in text


def test_all_of_it_is_inside_what_is_signed(packed: Path) -> None:
    assert read(packed, "manifest.json")["files"].keys() >= DOCUMENTS


def test_nothing_says_where_it_was_made(packed: Path) -> None:
    for name in DOCUMENTS:
        assert str(Path.home()).encode() not in (packed / name).read_bytes()
        assert b"/tmp" not in (packed / name).read_bytes()


def test_the_terms_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "DATA.md").read_text("utf-8")
    for source in PUBLIC:
        name = source.model_fields["name"].default
        assert f"| `{name}` | {source_terms(name)} |" in page
    assert source_terms("files") is None
