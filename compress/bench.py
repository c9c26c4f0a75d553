"""Stage `bench`: every candidate's accuracy, and its latency, memory and size on this machine, interleaved."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from benchmarks.accuracy import at_once
from benchmarks.bench.devices import DEVICES, Device
from benchmarks.candidates import CachedPath, IdMap, LikePath, TextPath
from benchmarks.cold_start import ColdStart, fresh_process
from benchmarks.machine import describe_machine, fingerprint
from benchmarks.measure import Latency, latency, speedup
from compress.accuracy import DEPTH, accuracy_of, baseline_rows, given_rows
from compress.chain import Chain, gathered
from compress.data.dataset import Cases, Dataset
from compress.likes.bench import graphless_rows, like_accuracy, like_baseline_rows, logits_of, logits_of_graph
from compress.likes.rows import LikeData
from compress.models.folder import load_scorer, read_json, write_json
from compress.models.mix import Scorer
from compress.stage import Inputs, RunOptions, StageConfig
from compress.task import task_of, valid_value
from compress.text_bench import text_rows
from deploy.ranker import Ranker


class BenchConfig(StageConfig):
    """Conditions of the latency rows (DESIGN: batch 1, one thread, after warm-up, 1,000 runs or 10 s)."""

    skipped: ClassVar = None
    domain: str = "target"
    history: PositiveInt = 20
    k: PositiveInt = 10
    threads: PositiveInt = 1
    rounds: PositiveInt = 5
    min_runs: PositiveInt = 1000
    min_seconds: PositiveFloat = 10.0
    cold_starts: Annotated[int, Field(ge=1, le=20)] = 1


def bench_fingerprint(_config: BenchConfig) -> Mapping[str, str]:
    """A store copied to another machine measures again."""
    devices = ["cpu", *(["cuda"] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else [])]
    return {device: fingerprint(device) for device in devices}


@dataclass
class Candidate:
    """One chain in one precision, and what was measured of it."""

    chain: Chain
    precision: str  # the quantizer's name, or fp32
    folder: Path
    facts: Mapping[str, Any]
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.chain.name}-{self.precision}"

    @property
    def graph(self) -> Path:
        return self.folder / str(self.facts["graphs"]["history"][self.precision])

    @property
    def like_graph(self) -> Path | None:
        """What says how likely a like is; None of what only ranks."""
        file = self.facts["graphs"].get("like", {}).get(self.precision)
        return None if file is None else self.folder / str(file)


def candidates_of(inputs: Inputs) -> list[Candidate]:
    """Every chain with a history graph, in every precision it was exported in."""
    return [
        Candidate(chain, precision, folder, facts)
        for chain, folder in gathered(inputs, "quantize")
        for facts in [read_json(folder / "candidate.json")]
        for precision in facts["graphs"].get("history", {})
    ]


def bench(config: BenchConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, baselines, every chain's prune and quantize -> `measurements.json`, `ranks.npz`, `segments.npz`
    (which validation cases are in which), `latency.npz`."""
    dataset = Dataset.open(inputs["data"], config.domain)
    candidates = candidates_of(inputs)
    not_measured: list[dict[str, str]] = []
    if task_of(inputs["data"]) == "likes":
        candidates = [c for c in candidates if c.precision == "fp32" or c.like_graph is not None]
        others, evidence = _likes(candidates, inputs, dataset, config, not_measured)
    else:
        others, evidence = _ranking(candidates, inputs, dataset, not_measured, options)
    first = min((c.chain.seed for c in candidates), default=0)
    timed = [c for c in candidates if c.chain.seed == first]
    samples = _measure_latency(timed, inputs, dataset, config, not_measured, options)
    history = tuple(_queries(dataset, config)[0])
    for candidate in options.progress(timed, "bench: memory", len(timed)):
        items = str(inputs["data"] / "domains" / config.domain / "items.item")
        most = int(candidate.facts["max_history"])
        spec = ColdStart(str(candidate.graph), history, items, config.k, config.threads, most)
        rss, load = fresh_process(spec, repeats=config.cold_starts)
        candidate.row |= {"rss_mb": round(rss, 1), "load_ms": round(load, 1)}
    machine = describe_machine().model_dump(mode="json")
    models = [candidate.row for candidate in candidates] + others
    measured = {"machine": machine, "models": models, "not_measured": not_measured}
    measured["text_encoders"] = text_rows(inputs, dataset, models, config.threads, options)
    write_json(out / "measurements.json", measured)
    for name, arrays in evidence.items():
        np.savez(out / f"{name}.npz", **arrays)
    np.savez(out / "latency.npz", **samples)  # type: ignore[arg-type]


Evidence = dict[str, dict[str, Any]]
"""File -> arrays that comparisons are made of."""


def _ranking(
    candidates: Sequence[Candidate],
    inputs: Inputs,
    dataset: Dataset,
    not_measured: list[dict[str, str]],
    options: RunOptions,
) -> tuple[list[dict[str, Any]], Evidence]:
    """Fill the candidates' rows; returns the rows of what has no graph, and the ranks of all."""
    baselines, ranks = baseline_rows(inputs["baselines"], dataset)
    given, found = given_rows(inputs, dataset, not_measured)
    ranks |= found
    for candidate in options.progress(candidates, "bench: accuracy", len(candidates)):
        ranks |= _measure_accuracy(candidate, dataset)
    valid = dataset.cases("valid")
    return given + baselines, {"ranks": ranks, "segments": {"tail_items": valid.tail, "short_history": valid.short}}


def _likes(
    candidates: Sequence[Candidate],
    inputs: Inputs,
    dataset: Dataset,
    config: BenchConfig,
    not_measured: list[dict[str, str]],
) -> tuple[list[dict[str, Any]], Evidence]:
    """The same of like/dislike data. An fp32 row's accuracy is that of the model's logits, which its graph was shown to
    give; a quantized one's is its graph's."""
    data = LikeData.open(inputs["data"], config.domain)
    baselines, values = like_baseline_rows(inputs["baselines"], data)
    graphless, found = graphless_rows(inputs, data, not_measured)
    values |= found
    for candidate in candidates:
        graph, most = candidate.like_graph, int(candidate.facts["max_history"])
        if candidate.precision == "fp32" or graph is None:
            logits = logits_of(inputs, candidate.chain)
        else:
            logits = logits_of_graph(graph, most, data, candidate.chain.seed)
        accuracy, found = like_accuracy(candidate.name, logits, data)
        candidate.row |= _facts(candidate, dataset) | {"accuracy": accuracy}
        values |= found
    return graphless + baselines, {"values": values}


def _measure_accuracy(candidate: Candidate, dataset: Dataset) -> dict[str, NDArray[np.int32]]:
    ranker, most = Ranker(candidate.graph), int(candidate.facts["max_history"])

    def answer(_name: str, cases: Cases) -> NDArray[np.int32]:
        return answers(ranker, cases, most, min(DEPTH, dataset.n_items), at_once(dataset.n_items, 256))

    accuracy, ranks = accuracy_of(answer, dataset)
    candidate.row |= _facts(candidate, dataset) | {"accuracy": accuracy}
    return {f"{candidate.name}/{name}": found for name, found in ranks.items()}


def _facts(candidate: Candidate, dataset: Dataset) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "role": candidate.chain.role,
        "variant": candidate.chain.variant,
        "seed": candidate.chain.seed,
        "quantizer": candidate.precision,
        "precision": candidate.precision.split("_")[0],
        "params": sum(candidate.facts["params"].values()),
        "size_bytes": size_bytes(candidate, dataset),
        "top10_overlap": read_json(candidate.folder / "parity.json")[candidate.graph.name]["top10_overlap"],
        "latency": [],
    }


def answers(ranker: Ranker, cases: Cases, max_history: int, depth: int, batch: int) -> NDArray[np.int32]:
    """The graph's answers to all cases with everything seen excluded: (cases, depth) int32 rows."""
    histories, seen = cases.histories(max_history), cases.seen
    parts = []
    for start in range(0, len(cases), batch):
        some = seen[start : start + batch]
        exclude = np.zeros((len(some), max(1, *(len(s) for s in some))), np.int64)
        for row, items in zip(exclude, some, strict=True):
            row[: len(items)] = items
        parts.append(ranker.rank(histories[start : start + batch], exclude, depth)[1].astype(np.int32))
    return np.concatenate(parts)


def size_bytes(candidate: Candidate, dataset: Dataset) -> int:
    """The history -> top-k part: graph with its table, and the id map; of like/dislike models the like graph, which has
    a table of its own, too. A teacher's is served with its LM."""
    graphs = [graph for graph in (candidate.graph, candidate.like_graph) if graph is not None]
    total = sum(graph.stat().st_size for graph in graphs) + sum(len(item.encode()) + 1 for item in dataset.item_ids)
    if candidate.chain.role == "teacher" and "text" in candidate.facts["graphs"]:
        total += (candidate.folder / str(candidate.facts["graphs"]["text"]["fp32"])).stat().st_size
    return total


def _queries(dataset: Dataset, config: BenchConfig, n: int = 64) -> list[list[str]]:
    """Real histories of the wanted length, as ids; shorter ones are repeated to it."""
    cases = dataset.cases("test")
    longest_first = np.argsort(cases.starts - cases.stops, kind="stable")[:n]
    rows = [np.resize(cases.items[cases.starts[i] : cases.stops[i]], config.history) for i in longest_first]
    return [[dataset.item_ids[row - 1] for row in items] for items in rows]


def _measure_latency(
    candidates: Sequence[Candidate],
    inputs: Inputs,
    dataset: Dataset,
    config: BenchConfig,
    not_measured: list[dict[str, str]],
    options: RunOptions,
) -> dict[str, NDArray[np.float64]]:
    """Fill the candidates' latency rows; returns the raw milliseconds by row name."""
    queries = _queries(dataset, config)
    teacher = max(
        (c for c in candidates if c.chain.role == "teacher" and c.precision == "fp32"),
        key=lambda c: valid_value(c.row),
        default=None,
    )
    samples: dict[str, NDArray[np.float64]] = {}
    for device in DEVICES.values():
        why = device.why_absent(candidates[0].graph) if candidates else None
        if why is not None:
            not_measured.append({"what": f"{device.name} latency", "why": why})
            continue
        paths = list(_paths(candidates, teacher, inputs, dataset, config, device, not_measured))
        options.log(f"latency of {len(paths)} paths on {device.name}, interleaved")
        calls = {path.name: path.call_on(queries) for path in paths}
        measured = latency(calls, rounds=config.rounds, min_runs=config.min_runs, min_seconds=config.min_seconds)
        for path in paths:
            found = measured[path.name]
            samples[path.name] = found.samples_ms
            k = 1 if path.path == "like" else config.k
            row = {"path": path.path, "runtime": path.runtime, "device": path.device}
            row |= _figures(found, config, dataset, k) | _ratios(found, measured, path, teacher)
            path.candidate.row["latency"].append(row)
    return samples


@dataclass(frozen=True)
class TimedPath:
    """One way to serve one candidate."""

    candidate: Candidate
    path: str
    runtime: str
    device: str
    recommend: Callable[[Sequence[Sequence[str]]], object]

    @property
    def name(self) -> str:
        return f"{self.candidate.name} {self.path} {self.runtime} {self.device}"

    def call_on(self, queries: Sequence[Sequence[str]]) -> Callable[[], object]:
        """A call that asks the queries in turn, so that no answer stays in the caches."""
        turn = cycle(queries)
        return lambda: self.recommend([next(turn)])


def _paths(
    candidates: Sequence[Candidate],
    teacher: Candidate | None,
    inputs: Inputs,
    dataset: Dataset,
    config: BenchConfig,
    device: Device,
    not_measured: list[dict[str, str]],
) -> Iterator[TimedPath]:
    providers = device.providers
    for candidate in candidates:
        most = int(candidate.facts["max_history"])
        cached = CachedPath(
            candidate.graph, dataset.item_ids, max_history=most, threads=config.threads, providers=providers
        )
        yield TimedPath(candidate, "cached", "onnxruntime", device.name, partial(cached.recommend, k=config.k))
        if candidate.like_graph is not None:
            like = LikePath(
                candidate.like_graph, dataset.item_ids, max_history=most, threads=config.threads, providers=providers
            )
            yield TimedPath(candidate, "like", "onnxruntime", device.name, like.ask)
    if teacher is not None:
        yield from _teacher_paths(teacher, inputs, dataset, config, device.name, not_measured)


def _figures(found: Latency, config: BenchConfig, dataset: Dataset, k: int) -> dict[str, Any]:
    return {
        "threads": config.threads,
        "batch": 1,
        "history": config.history,
        "items": dataset.n_items,
        "k": k,
        "p50_ms": found.p50_ms,
        "p95_ms": found.p95_ms,
        "p99_ms": found.p99_ms,
        "per_second": found.per_second,
        "runs": found.runs,
    }


def _ratios(
    found: Latency, measured: Mapping[str, Latency], timed: TimedPath, teacher: Candidate | None
) -> dict[str, dict[str, float]]:
    """How many times faster than the teacher's two paths, and than the candidate's own fp32 graph: of the path `like`
    than the fp32 graph alone."""
    like = timed.path == "like"
    references = {"ratio_to_fp32": f"{timed.candidate.chain.name}-fp32 {'like' if like else 'cached'}"}
    if teacher is not None and not like:
        references |= {"ratio_to_teacher": f"{teacher.name} cached", "ratio_to_teacher_text": f"{teacher.name} text"}
    ratios = {}
    for key, name in references.items():
        reference = measured.get(f"{name} onnxruntime {timed.device}")
        if reference is not None:
            ratio = speedup(reference, found)
            ratios[key] = {"median": ratio.median, "low": ratio.low, "high": ratio.high}
    return ratios


def _teacher_paths(
    teacher: Candidate,
    inputs: Inputs,
    dataset: Dataset,
    config: BenchConfig,
    device: str,
    not_measured: list[dict[str, str]],
) -> Iterator[TimedPath]:
    """The other ways to serve the teacher: texts through its LM when asked, and torch."""
    graphs, most = teacher.facts["graphs"], int(teacher.facts["max_history"])
    if device == "cpu" and "history_vectors" in graphs:
        text = TextPath(
            teacher.folder / graphs["history_vectors"]["fp32"],
            teacher.folder / graphs["text"]["fp32"],
            teacher.folder / "tokenizer.json",
            dict(zip(dataset.item_ids, dataset.texts, strict=True)),
            max_tokens=int(teacher.facts["max_tokens"]),
            max_history=most,
            threads=config.threads,
        )
        yield TimedPath(teacher, "text", "onnxruntime", device, partial(text.recommend, k=config.k))
    model = load_scorer(dict(gathered(inputs, "prune"))[teacher.chain])
    if device == "cuda" and not torch.cuda.is_available():
        not_measured.append({"what": "cuda latency in torch", "why": "this torch sees no CUDA device"})
    elif model is not None:
        yield TimedPath(teacher, "cached", "torch", device, _in_torch(model.to(device), dataset, config))


def _in_torch(model: Scorer, dataset: Dataset, config: BenchConfig) -> Callable[[Sequence[Sequence[str]]], object]:
    items, device = IdMap(dataset.item_ids), model.device

    @torch.inference_mode()
    def recommend(queries: Sequence[Sequence[str]]) -> object:
        threads = torch.get_num_threads()
        torch.set_num_threads(config.threads)
        history, _ = items.rows(queries, model.max_history)
        rows = torch.from_numpy(history).to(device)
        scores = model.scores(rows)
        scores[:, 0] = -torch.inf
        best = scores.scatter_(1, rows, -torch.inf).topk(config.k)
        torch.set_num_threads(threads)
        return items.ids(best.indices.cpu().numpy(), best.values.cpu().numpy())

    return recommend
