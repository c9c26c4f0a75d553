"""Stage `quantize`: export each part as fp32 and quantized graphs, with a parity report."""

from pathlib import Path
from typing import Any, ClassVar

import onnx
from torch import nn

from compress.data.dataset import Dataset
from compress.models.encoder import ItemEncoder
from compress.models.folder import load_item_encoder, load_scorer, model_facts, write_json
from compress.models.mix import Mix
from compress.models.sequence import SequenceModel
from compress.quantize.graph import history_graph, text_dim
from compress.quantize.parity import history_parity, text_parity
from compress.quantize.quantizers import HistoryQuantizer, Int8Dynamic, Int8PerRow, TextQuantizer
from compress.quantize.text_graph import export_text
from compress.stage import Inputs, RunOptions, StageConfig

PARITY_CASES = 512


class QuantizeConfig(StageConfig):
    """The quantized candidates beside fp32, of each part."""

    skipped: ClassVar = {"history": [], "text": []}
    history: tuple[HistoryQuantizer, ...] = (Int8PerRow(), Int8Dynamic())
    text: tuple[TextQuantizer, ...] = (Int8Dynamic(),)
    domain: str = "target"


def quantize(config: QuantizeConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, prune -> graphs, `candidate.json`, `parity.json`."""
    dataset = Dataset.open(inputs["data"], config.domain)
    sequence, text = load_scorer(inputs["prune"]), load_item_encoder(inputs["prune"])
    graphs: dict[str, dict[str, str]] = {}
    parity: dict[str, dict[str, float]] = {}
    facts: dict[str, Any] = {"text_space": model_facts(inputs["prune"]).get("text_space"), "params": {}}
    if sequence is not None:
        graphs["history"] = _export_history(sequence, config, dataset, out, parity)
        facts |= {"max_history": sequence.max_history, "dim": text_dim(sequence)}
        facts["params"]["sequence"] = count_parameters(sequence)
    if text is not None:
        graphs["text"] = _export_text(text, config, dataset.texts[:PARITY_CASES], out, parity)
        facts |= {"max_tokens": text.max_tokens, "text_dim": text.dim}
        facts["params"]["text"] = count_parameters(text)
    if sequence is not None and text is not None and text.dim == text_dim(sequence):
        onnx.save(history_graph(sequence, vectors_given=True), out / "history_vectors.fp32.onnx")
        graphs["history_vectors"] = {"fp32": "history_vectors.fp32.onnx"}
    for graph, found in parity.items():
        options.log(f"quantize: {graph} " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    write_json(out / "parity.json", parity)
    write_json(out / "candidate.json", {"graphs": graphs, **facts})


def _export_history(
    model: SequenceModel | Mix, config: QuantizeConfig, dataset: Dataset, out: Path, parity: dict[str, dict[str, float]]
) -> dict[str, str]:
    histories = dataset.cases("valid").histories(model.max_history)[:PARITY_CASES]
    graphs = {"fp32": "history.fp32.onnx"}
    onnx.save(history_graph(model), out / graphs["fp32"])
    for quantizer in config.history:
        graphs[quantizer.name] = f"history.{quantizer.name}.onnx"
        quantizer.history(model, out / graphs[quantizer.name])
    for precision, file in graphs.items():
        parity[file] = history_parity(model, out / file, histories, exact=precision == "fp32")
    return graphs


def _export_text(
    encoder: ItemEncoder, config: QuantizeConfig, texts: list[str], out: Path, parity: dict[str, dict[str, float]]
) -> dict[str, str]:
    tokenizer = out / "tokenizer.json"
    tokenizer.write_text(encoder.tokenizer.to_str())
    graphs = {"fp32": "text.fp32.onnx"}
    export_text(encoder, out / graphs["fp32"])
    for quantizer in config.text:
        graphs[quantizer.name] = f"text.{quantizer.name}.onnx"
        quantizer.text(out / graphs["fp32"], out / graphs[quantizer.name])
    for precision, file in graphs.items():
        parity[file] = text_parity(encoder, out / file, tokenizer, texts, exact=precision == "fp32")
    return graphs


def count_parameters(module: nn.Module) -> int:
    """Everything learned: parameters, and the matrices a mix holds as buffers."""
    return sum(tensor.numel() for tensor in module.state_dict().values())
