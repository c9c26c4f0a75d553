"""What the stage `bench` measures of text encoders: bytes, time per text, and how well they place cold items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import at_once, ranks_of, summarise, top_rows
from benchmarks.measure import latency, speedup
from compress.accuracy import DEPTH
from compress.chain import Chain, gathered
from compress.data.dataset import Dataset
from compress.models.folder import load_array, load_sequence, model_facts, read_json, text_kind
from compress.models.sequence import SequenceModel
from compress.stage import Inputs, RunOptions
from compress.store import file_sha256
from compress.task import valid_value
from deploy.text import TextEncoder

BATCH = 256
TEXTS = 256
"""Texts that latency is measured on, one by one and in turn."""


@dataclass(frozen=True)
class Encoder:
    """One text encoder in one precision; `space` names the item vectors it was trained to give."""

    chain: Chain
    precision: str  # the quantizer's name, or fp32
    folder: Path
    space: str | None

    @property
    def name(self) -> str:
        return f"{self.chain.name}-{self.precision}"

    @property
    def files(self) -> tuple[Path, Path]:
        """Graph and tokenizer: what a device has to store."""
        graph = read_json(self.folder / "candidate.json")["graphs"]["text"][self.precision]
        return self.folder / str(graph), self.folder / "tokenizer.json"

    def open(self, threads: int) -> TextEncoder:
        return TextEncoder(*self.files, int(read_json(self.folder / "candidate.json")["max_tokens"]), threads=threads)


@dataclass(frozen=True)
class ColdRanking:
    """A ranker whose cold items are placed by text alone: their vectors times `text_map` (teacher dim, dim)."""

    name: str
    model: SequenceModel
    text_map: NDArray[np.float32]
    dataset: Dataset

    def metrics(self, vectors: NDArray[np.float32] | None) -> dict[str, Any]:
        """Of all cases whose target is cold, ranked in the full catalogue, with the cold items' vectors (cold, teacher
        dim) in their places; None: with those the model has."""
        cases, cold = self.dataset.cases("cold"), self.dataset.cold_items.astype(np.int64)
        table = self.model.item_table.detach().clone()
        if vectors is not None:
            table[torch.from_numpy(cold)] = torch.from_numpy(vectors @ self.text_map)
        histories, seen, parts = cases.histories(self.model.max_history), cases.seen, []
        step = at_once(self.dataset.n_items, BATCH)
        with torch.inference_mode():
            for start in range(0, len(cases), step):
                users = self.model.user_vectors(torch.from_numpy(histories[start : start + step]))
                scores = (users @ table.T).numpy()
                parts.append(top_rows(scores, seen[start : start + step], min(DEPTH, self.dataset.n_items)))
        top = np.concatenate(parts)
        return summarise(ranks_of(top, cases.targets), top, self.dataset.n_items)


def text_rows(
    inputs: Inputs, dataset: Dataset, models: Sequence[Mapping[str, Any]], threads: int, options: RunOptions
) -> list[dict[str, Any]]:
    """A row per text encoder and precision. `models`: the rows of what ranks; the first seed's encoders are timed,
    interleaved, beside the text graph of the teacher whose vectors they learned."""
    encoders = [e for e in _encoders(inputs) if e.chain.role == "text_encoder"]
    if not encoders:
        return []
    first = min(encoder.chain.seed for encoder in encoders)
    ratios = _timed([e for e in encoders if e.chain.seed == first], _teachers(inputs), dataset, threads, options)
    cold_texts = [dataset.texts[row - 1] for row in dataset.cold_items] if len(dataset.cases("cold")) else []
    rankings: dict[str | None, ColdRanking | None] = {}
    models_of = dict(gathered(inputs, "prune"))
    rows = []
    for encoder in options.progress(encoders, "bench: text encoders", len(encoders)):
        if encoder.space not in rankings:
            rankings[encoder.space] = _ranking(inputs, encoder.space, models, dataset) if cold_texts else None
        row: dict[str, Any] = {
            "name": encoder.name,
            "variant": encoder.chain.variant,
            "seed": encoder.chain.seed,
            "precision": encoder.precision.split("_")[0],
            "kind": text_kind(models_of[encoder.chain]),
            "size_bytes": sum(file.stat().st_size for file in encoder.files),
            **ratios.get(encoder.name, {}),
        }
        if (ranking := rankings[encoder.space]) is not None:
            row |= {
                "ranked_by": ranking.name,
                "cold_items": ranking.metrics(encoder.open(threads).encode(cold_texts)),
                "cold_items_of_teacher": ranking.metrics(None),
            }
        rows.append(row)
    return rows


def _encoders(inputs: Inputs) -> list[Encoder]:
    return [
        Encoder(chain, precision, folder, facts["text_space"])
        for chain, folder in gathered(inputs, "quantize")
        for facts in [read_json(folder / "candidate.json")]
        for precision in facts["graphs"].get("text", {})
    ]


def _teachers(inputs: Inputs) -> dict[str | None, Encoder]:
    """The LMs in fp32 by the space of their item vectors, and under None one for spaces that no teacher here has."""
    folders = dict(gathered(inputs, "prune"))
    found: dict[str | None, Encoder] = {}
    for encoder in _encoders(inputs):
        vectors = folders[encoder.chain] / "item_vectors.npy"
        if encoder.chain.role == "teacher" and encoder.precision == "fp32" and vectors.exists():
            found[file_sha256(vectors)] = encoder
            found.setdefault(None, encoder)
    return found


def _timed(
    encoders: Sequence[Encoder],
    teachers: Mapping[str | None, Encoder],
    dataset: Dataset,
    threads: int,
    options: RunOptions,
) -> dict[str, dict[str, Any]]:
    """Milliseconds of one text, and times faster than the teacher's LM, by the encoder's name."""
    beside = {e.name: teacher for e in encoders if (teacher := teachers.get(e.space) or teachers.get(None))}
    calls = {}
    for encoder in [*encoders, *{teacher.name: teacher for teacher in beside.values()}.values()]:
        opened, turn = encoder.open(threads), cycle(dataset.texts[:TEXTS])
        calls[encoder.name] = lambda opened=opened, turn=turn: opened.encode([next(turn)])
    options.log(f"latency of {len(calls)} text encoders, interleaved")
    measured = latency(calls, min_runs=TEXTS, min_seconds=2.0)
    found: dict[str, dict[str, Any]] = {}
    for encoder in encoders:
        own = found[encoder.name] = {"p50_ms": measured[encoder.name].p50_ms}
        if (teacher := beside.get(encoder.name)) is not None:
            ratio = speedup(measured[teacher.name], measured[encoder.name])
            own["ratio_to_teacher"] = {"median": ratio.median, "low": ratio.low, "high": ratio.high}
    return found


def _ranking(
    inputs: Inputs, space: str | None, models: Sequence[Mapping[str, Any]], dataset: Dataset
) -> ColdRanking | None:
    """The student or control in this space that validates best; where none was made, such as after a failed gate, the
    teacher whose space it is; None where there is neither."""
    valid = {
        (row["role"], row["variant"], row["seed"]): valid_value(row) for row in models if row["precision"] == "fp32"
    }
    best: tuple[bool, float, ColdRanking] | None = None
    for chain, folder in gathered(inputs, "prune"):
        value = valid.get((chain.role, chain.variant, chain.seed))
        if value is None or (best and (chain.role != "teacher", value) <= best[:2]):
            continue
        model, text_map = load_sequence(folder), _text_map(chain, folder, space)
        if model is not None and text_map is not None:
            best = chain.role != "teacher", value, ColdRanking(f"{chain.name}-fp32", model, text_map, dataset)
    return None if best is None else best[2]


def _text_map(chain: Chain, folder: Path, space: str | None) -> NDArray[np.float32] | None:
    """What folds vectors of the space into a ranker's item table, the identity for the teacher's own; None where the
    ranker is of another space."""
    if chain.role != "teacher":
        return load_array(folder, "text_map") if model_facts(folder).get("text_space") == space else None
    vectors = folder / "item_vectors.npy"
    if not vectors.exists() or file_sha256(vectors) != space:
        return None
    return np.eye(np.load(vectors, mmap_mode="r").shape[1], dtype=np.float32)
