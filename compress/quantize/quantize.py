"""Stage `quantize`: export each part as fp32 and quantized graphs, with a parity report."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import onnx
from pydantic import Field, field_validator
from torch import nn

from compress.data.dataset import Dataset
from compress.likes.model import LikesModel
from compress.likes.rows import LikeData
from compress.models.encoder import ItemEncoder
from compress.models.folder import load_item_encoder, load_scorer, model_facts, write_json
from compress.models.mix import Mix
from compress.models.sequence import SequenceModel
from compress.quantize.aware import QuantizationAware
from compress.quantize.graph import history_graph, text_dim
from compress.quantize.likes import export_likes
from compress.quantize.parity import Questions, history_parity, text_parity
from compress.quantize.parts import HistoryPart, TextPart
from compress.quantize.quantizers import HistoryQuantizer, Int8Dynamic, Int8PerRow, TextQuantizer
from compress.quantize.text_graph import export_text
from compress.stage import Entry, Inputs, RunOptions, Shorthand, Skip, StageConfig
from compress.task import task_of
from compress.training import seed_everything
from deploy.errors import UsageError

PARITY_CASES = 512


class QuantizeConfig(StageConfig):
    """The quantized candidates beside fp32, of each part."""

    skipped: ClassVar = {"history": [], "text": []}
    history: tuple[HistoryQuantizer, ...] = (Int8PerRow(), Int8Dynamic())
    text: tuple[TextQuantizer, ...] = (Int8Dynamic(),)
    min_text_cosine: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9  # centred, with fp32; what is below does not ship
    aware: Annotated[QuantizationAware | Skip, Field(discriminator="name"), Shorthand] = Skip()
    domain: str = "target"

    @field_validator("history", "text")
    @classmethod
    def _each_once(cls, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        names = [str(getattr(entry, "name", "")) for entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each quantizer once, a graph is named after it (twice: {', '.join(twice)})")
        return entries


def quantize(config: QuantizeConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, prune -> graphs, `candidate.json`, `parity.json`."""
    dataset = Dataset.open(inputs["data"], config.domain)
    sequence, text = load_scorer(inputs["prune"]), load_item_encoder(inputs["prune"])
    graphs: dict[str, dict[str, str]] = {}
    parity: dict[str, dict[str, float]] = {}
    facts: dict[str, Any] = {"text_space": model_facts(inputs["prune"]).get("text_space"), "params": {}}
    if sequence is not None and not isinstance(config.aware, Skip) and task_of(inputs["data"]) == "likes":
        raise UsageError("quantize.aware: like/dislike models are not trained here; give their variants aware: none")
    if sequence is not None:
        graphs["history"] = _export_history(sequence, config, dataset, out, parity, options)
        facts |= {"max_history": sequence.max_history, "dim": text_dim(sequence)}
        facts["params"]["sequence"] = count_parameters(sequence)
    likes = LikesModel.load(inputs["prune"])
    if likes is not None:
        data = LikeData.open(inputs["data"], config.domain)
        graphs["like"] = export_likes(likes, config.history, data, config.seed, out, parity)
        facts["params"]["head"] = count_parameters(likes.head)
    if text is not None:
        graphs["text"] = _export_text(text, config, dataset, out, parity, options)
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
    model: SequenceModel | Mix,
    config: QuantizeConfig,
    dataset: Dataset,
    out: Path,
    parity: dict[str, dict[str, float]],
    options: RunOptions,
) -> dict[str, str]:
    questions = Questions.of(dataset.cases("valid"), model.max_history, PARITY_CASES)
    trained = model
    if isinstance(config.aware, QuantizationAware):
        trained = config.aware(model, dataset, seed_everything(config.seed, options), options)
    part = HistoryPart.of(trained, dataset)
    graphs = {"fp32": "history.fp32.onnx"}
    onnx.save(history_graph(model), out / graphs["fp32"])
    for quantizer in config.history:
        file = graphs[quantizer.name] = f"history.{quantizer.name}.onnx"
        parity[file] = quantizer.history(part, out / file) or {}
    for precision, file in graphs.items():
        parity[file] = {**parity.get(file, {}), **history_parity(model, out / file, questions, precision == "fp32")}
    return graphs


def _export_text(
    encoder: ItemEncoder,
    config: QuantizeConfig,
    dataset: Dataset,
    out: Path,
    parity: dict[str, dict[str, float]],
    options: RunOptions,
) -> dict[str, str]:
    """Graphs below the bound are measured and not kept."""
    tokenizer = out / "tokenizer.json"
    tokenizer.write_text(encoder.tokenizer.to_str())
    graphs = {"fp32": "text.fp32.onnx"}
    export_text(encoder, out / graphs["fp32"])
    part, texts = TextPart.of(encoder, out / graphs["fp32"], dataset), dataset.texts[:PARITY_CASES]
    for quantizer in config.text:
        file = graphs[quantizer.name] = f"text.{quantizer.name}.onnx"
        parity[file] = quantizer.text(part, out / file) or {}
    for precision, file in list(graphs.items()):
        parity[file] = {
            **parity.get(file, {}),
            **text_parity(encoder, out / file, tokenizer, texts, precision == "fp32"),
        }
        found = parity[file]["centred_cosine"]
        if precision != "fp32" and found < config.min_text_cosine:
            options.log(f"quantize: {file} is left out: centred cosine {found:.3f}, wanted {config.min_text_cosine:g}")
            (out / graphs.pop(precision)).unlink()
    return graphs


def count_parameters(module: nn.Module) -> int:
    """Everything learned: parameters, and the matrices a mix holds as buffers."""
    return sum(tensor.numel() for tensor in module.state_dict().values())
