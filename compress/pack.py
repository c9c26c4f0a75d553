"""Stage `pack`: the chosen candidate, its text encoder and the evidence as one bundle."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from pydantic import Field

from compress.baselines.models import recent_popularity
from compress.chain import Chain, gathered
from compress.data.dataset import Dataset
from compress.documents import documents
from compress.likes.bench import golden_likes
from compress.likes.rows import LikeData
from compress.models.folder import load_array, read_json, write_json
from compress.provenance import runtime_packages
from compress.quantize.user_vector import with_user_vector
from compress.stage import Inputs, RunOptions, StageConfig
from compress.store import sealed_config
from compress.task import valid_value
from deploy.bundle import write_bundle
from deploy.golden import Golden, record_case, record_text
from deploy.likes import LikeScorer
from deploy.manifest import EVIDENCE, GOLDEN, ITEMS, POPULAR, canonical_json
from deploy.ranker import Ranker
from deploy.signing import fingerprint, load_private
from deploy.text import TextEncoder

POPULAR_ROWS = 1000


class PackConfig(StageConfig):
    """How the bundle is called, and which private key signs it (a PEM file of `slimrec key new`).

    `graphs: chosen` leaves out all precisions but the chosen one: fewer bytes, nothing for a device to fall back on.
    `licence` is the bundle's own; `terms` maps a data set or language model to its licence or terms, where slimrec does
    not know them. Both are written into the bundle as they are.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=100)] = "slimrec"
    key: str | None = None
    domain: str = "target"
    graphs: Literal["all", "chosen"] = "all"
    golden_cases: Annotated[int, Field(ge=1, le=1000)] = 32
    golden_tolerance: Annotated[float, Field(gt=0.0)] = 1e-3
    licence: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    terms: dict[str, Annotated[str, Field(min_length=1, max_length=200)]] = Field(default_factory=dict)


def pack_fingerprint(config: PackConfig) -> Mapping[str, str]:
    """Another key under the same name signs again; another runtime records its own answers and packages. Raises
    UsageError where the key cannot be read."""
    runtime = {package.name: package.version for package in runtime_packages()}
    key = {} if config.key is None else {"key": fingerprint(load_private(Path(config.key)).public_key())}
    return {f"runtime.{name}": version for name, version in runtime.items()} | key


def pack(config: PackConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, baselines, bench, select, every chain's stages -> `bundle/`, `bundle.slim`, `pack.json`."""
    dataset = Dataset.open(inputs["data"], config.domain)
    measured = read_json(inputs["bench"] / "measurements.json")
    chosen = read_json(inputs["select"] / "choice.json")["selected"]
    row = next(row for row in measured["models"] if row["name"] == chosen)
    chain = Chain(row["role"], row["variant"], row["seed"])
    folder = dict(gathered(inputs, "quantize"))[chain]
    facts = read_json(folder / "candidate.json")
    with tempfile.TemporaryDirectory() as scratch:
        graphs = bundled_graphs(row, measured["models"] if config.graphs == "all" else [], facts)
        files: dict[str, Path | bytes] = {f"history.{p}.onnx": folder / name for p, name in graphs.items()}
        likes = _like_graphs(graphs, facts)
        files |= {f"like.{p}.onnx": folder / name for p, name in likes.items()}
        student = dict(gathered(inputs, "prune"))[chain]
        text_from = _text_folder(inputs, facts.get("text_space"))
        text_map = load_array(student, "text_map")
        text = _text_part(text_from, text_map, Path(scratch), files) if text_from and text_map is not None else None
        if text is not None:
            domain = sealed_config(inputs["data"]).get("domains", {}).get(config.domain, {})
            text["template"] = domain.get("text")
            # Cold items are scored outside of the graph, against the user's vector.
            for name in [name for name in files if name.startswith("history.")]:
                onnx.save(with_user_vector(onnx.load(_path(files, name))), Path(scratch) / name)
                files[name] = Path(scratch) / name
        files[ITEMS] = inputs["data"] / "domains" / config.domain / "items.item"
        files[POPULAR] = canonical_json(_popular(inputs["baselines"], dataset))
        golden = _golden(config, dataset, files, graphs, facts, text)
        if likes:
            data = LikeData.open(inputs["data"], config.domain)
            scorers = {precision: LikeScorer(folder / name) for precision, name in likes.items()}
            recorded = golden_likes(data, dataset.item_ids, scorers, int(facts["max_history"]), config.golden_cases)
            golden = golden.model_copy(update={"likes": recorded})
        files[GOLDEN] = canonical_json(golden.model_dump(mode="json"))
        rows = [r for r in measured["models"] if (r["variant"], r["seed"]) == (row["variant"], row["seed"])]
        named = {facts["graphs"]["history"][r["quantizer"]]: r["name"] for r in rows}
        measured_as = {precision: named[file] for precision, file in graphs.items()}
        evidence = {"machine": measured["machine"], "chosen": chosen, "graphs": measured_as, "models": rows}
        files[EVIDENCE] = canonical_json(evidence)
        model = {
            "n_items": dataset.n_items,
            "dim": facts["dim"],
            "max_history": facts["max_history"],
            "precisions": {precision: f"history.{precision}.onnx" for precision in graphs},
            "default": row["precision"],
            "text": text,
            "likes": {precision: f"like.{precision}.onnx" for precision in likes} or None,
        }
        shipped = [inputs["data"], inputs["baselines"], folder, *([text_from] if text_from and text else [])]
        said = documents(config.name, model, files, evidence, inputs, shipped, config.licence, config.terms)
        bundle = write_bundle(
            {**files, **said},
            out,
            name=config.name,
            model=model,
            list_separators=dataset.list_separators,
            private_key=Path(config.key) if config.key else None,
        )
    text_bytes = 0
    if text is not None:
        text_bytes = sum(bundle.path(str(text[part])).stat().st_size for part in ("graph", "tokenizer"))
    size = (out / "bundle.slim").stat().st_size
    options.log(f"{bundle.release}: {size / 1e6:.2f} MB, of it text encoder {text_bytes / 1e6:.2f} MB")
    write_json(out / "pack.json", {"digest": bundle.digest, "size_bytes": size, "text_encoder_bytes": text_bytes})


def _popular(baselines: Path, dataset: Dataset) -> list[int]:
    """Rows by recent popularity, in the window that validation chose; for a history that names no known item."""
    chosen = read_json(baselines / "baselines.json").get("recent_popularity", {"settings": {"window": 0.1}})
    counts = recent_popularity(dataset, chosen["settings"]["window"])[1:]
    return [int(row) + 1 for row in np.argsort(-counts, kind="stable")[:POPULAR_ROWS]]


def bundled_graphs(row: Mapping[str, Any], rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> dict[str, str]:
    """The chosen graph, and of a model in `rows` fp32 and one INT8 graph (the chosen one, else the one that validates
    best) beside it. precision -> file."""
    own = [r for r in rows if (r["variant"], r["seed"]) == (row["variant"], row["seed"])]
    shipped = [r for r in own if r["precision"] == "fp32"]
    if int8 := max((r for r in own if r["precision"] == "int8"), key=valid_value, default=None):
        shipped.append(int8)
    return {r["precision"]: facts["graphs"]["history"][r["quantizer"]] for r in [*shipped, row]}


def _like_graphs(graphs: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, str]:
    """The like graph beside each history graph, precision -> file; empty where the model only ranks."""
    quantizer_of = {file: quantizer for quantizer, file in facts["graphs"]["history"].items()}
    found = facts["graphs"].get("like", {})
    return {precision: found[quantizer_of[file]] for precision, file in graphs.items()} if found else {}


def _text_folder(inputs: Inputs, space: str | None) -> Path | None:
    """The text encoder trained for the same space of item vectors that leaves least of them unexplained, quantized."""
    fitting = [
        (float(read_json(dict(gathered(inputs, "prune"))[chain] / "metrics.json")["unexplained_variance"]), folder)
        for chain, folder in gathered(inputs, "quantize")
        if chain.role == "text_encoder" and read_json(folder / "candidate.json")["text_space"] == space
    ]
    return min(fitting, key=lambda item: item[0])[1] if space is not None and fitting else None


def _text_part(
    folder: Path, text_map: NDArray[np.float32], scratch: Path, files: dict[str, Path | bytes]
) -> dict[str, Any]:
    """The text encoder of `folder` with the student's map folded in, put among `files`; the manifest's section of it.

    Of its graphs the smallest ships: what strayed too far from fp32 was left out when it was quantized.
    """
    facts = read_json(folder / "candidate.json")
    graphs = facts["graphs"]["text"]
    precision = min(graphs, key=lambda name: ((folder / graphs[name]).stat().st_size, name))
    short = precision.split("_")[0]
    folded = scratch / f"text.{short}.onnx"
    onnx.save(fold_map(onnx.load(folder / graphs[precision]), text_map), folded)
    files |= {folded.name: folded, "tokenizer.json": folder / "tokenizer.json"}
    return {
        "graph": folded.name,
        "precision": short,
        "tokenizer": "tokenizer.json",
        "max_tokens": facts["max_tokens"],
        "dim": text_map.shape[1],
    }


def fold_map(model: onnx.ModelProto, text_map: NDArray[np.float32]) -> onnx.ModelProto:
    """Multiply the graph's `vectors` (batch, teacher dim) by text_map (teacher dim, dim): the student's item space."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["teacher_vectors" if name == "vectors" else name for name in node.output]
        node.input[:] = ["teacher_vectors" if name == "vectors" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(text_map), "text_map"))
    graph.node.append(helper.make_node("MatMul", ["teacher_vectors", "text_map"], ["vectors"], name="fold_text_map"))
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = text_map.shape[1]
    onnx.checker.check_model(model)
    return model


def _golden(
    config: PackConfig,
    dataset: Dataset,
    files: Mapping[str, Path | bytes],
    graphs: Mapping[str, str],
    facts: Mapping[str, Any],
    text: Mapping[str, Any] | None,
) -> Golden:
    rankers = {precision: Ranker(_path(files, f"history.{precision}.onnx")) for precision in graphs}
    cases = dataset.cases("test")
    step = max(1, len(cases) // config.golden_cases)
    histories = cases.histories(int(facts["max_history"]))[::step][: config.golden_cases]
    ids = ["", *dataset.item_ids]
    k = min(10, dataset.n_items)
    recorded = [record_case([int(r) for r in row[row > 0]], k, rankers, ids) for row in histories]
    golden_text = None
    if text is not None:
        encoder = TextEncoder(_path(files, text["graph"]), _path(files, text["tokenizer"]), int(text["max_tokens"]))
        golden_text = record_text(dataset.texts[0], encoder.encode(dataset.texts[:1])[0])
    return Golden(tolerance=config.golden_tolerance, cases=recorded, text=golden_text)


def _path(files: Mapping[str, Path | bytes], name: str) -> Path:
    path = files[name]
    assert isinstance(path, Path)
    return path
