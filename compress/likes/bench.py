"""What the stage `bench` measures of like/dislike models: AUC, UAUC and the decision, from each model's logits."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import user_aucs
from benchmarks.likes import best_threshold, summarise_likes, user_values
from compress.chain import Chain, gathered
from compress.likes.ratings import ratings_before
from compress.likes.rows import LikeData, Split, read_logits
from compress.likes.stages import LOGITS
from compress.likes.training_rows import training_rows
from compress.models.folder import model_facts, read_json
from compress.quantize.likes import graph_logits
from compress.quantize.parts import like_questions, spread
from compress.stage import Inputs
from deploy.golden import GoldenLike
from deploy.likes import LikeScorer

Values = dict[str, NDArray[np.float64]]
"""`<model>/test` (users,) and `<model>/test/uauc` (users with both labels,): values whose means are AUC and UAUC."""


def like_accuracy(
    name: str, logits: Mapping[Split, NDArray[np.float64]], data: LikeData
) -> tuple[dict[str, Any], Values]:
    """(the accuracy section of `result.json`, what comparisons need). Validation chooses the decision's threshold."""
    threshold = best_threshold(logits["valid"], data["valid"].labels)
    accuracy: dict[str, Any] = {"segments": {}}
    values: Values = {}
    for split in ("valid", "test"):
        rows = data[split]
        accuracy[split] = summarise_likes(logits[split], rows.labels, rows.users, threshold)
        values[f"{name}/{split}"] = user_values(logits[split], rows.labels, rows.users)
        own = user_aucs(logits[split], rows.labels, rows.users)
        if own.size:
            values[f"{name}/{split}/uauc"] = own
    return accuracy, values


def like_baseline_rows(folder: Path, data: LikeData) -> tuple[list[dict[str, Any]], Values]:
    """The baselines as rows of `result.json`. They are references: nothing of them is exported or timed."""
    rows: list[dict[str, Any]] = []
    values: Values = {}
    for name, facts in read_json(folder / "baselines.json").items():
        accuracy, found = like_accuracy(name, read_logits(folder / f"{name}.npz"), data)
        values |= found
        sizes = {"params": facts["params"], "size_bytes": 4 * facts["params"]}
        row = {"name": name, "role": "baseline", "variant": name, "seed": None, "precision": "fp32"}
        rows.append({**row, **sizes, "accuracy": accuracy, "latency": []})
    return rows, values


def graphless_rows(
    inputs: Inputs, data: LikeData, not_measured: list[dict[str, str]]
) -> tuple[list[dict[str, Any]], Values]:
    """Rows of the chains that answer rows and have no graph: teachers that are a mix with baselines."""
    rows: list[dict[str, Any]] = []
    values: Values = {}
    for chain, folder in _graphless(inputs):
        name = f"{chain.name}-fp32"
        accuracy, found = like_accuracy(name, read_logits(folder / LOGITS), data)
        values |= found
        row = {"name": name, "role": chain.role, "variant": chain.variant, "seed": chain.seed, "precision": "fp32"}
        rows.append({**row, "params": None, "size_bytes": None, "accuracy": accuracy, "latency": []})
        why = "it is mixed with baselines whose features no graph computes; students are distilled from its answers"
        not_measured.append({"what": f"latency and size of {chain.name}", "why": why})
    return rows, values


def _graphless(inputs: Inputs) -> Iterator[tuple[Chain, Path]]:
    for chain, folder in gathered(inputs, "prune"):
        if (folder / LOGITS).exists() and "sequence" not in model_facts(folder)["parts"]:
            yield chain, folder


def logits_of_graph(graph: Path, max_history: int, data: LikeData, seed: int) -> dict[Split, NDArray[np.float64]]:
    """What a like graph says of validation and test rows."""
    scorer, ratings = LikeScorer(graph), ratings_before(data, training_rows(data), seed)
    asked: tuple[Split, ...] = ("valid", "test")
    return {split: graph_logits(scorer, max_history, data[split], ratings[split]) for split in asked}


def logits_of(inputs: Inputs, chain: Chain) -> dict[Split, NDArray[np.float64]]:
    """What a chain's model said of all rows."""
    return read_logits(dict(gathered(inputs, "prune"))[chain] / LOGITS)


def golden_likes(
    data: LikeData, ids: Sequence[str], scorers: Mapping[str, LikeScorer], max_history: int, most: int
) -> list[GoldenLike]:
    """At most `most` test rows spread over all, with the answer of each precision. `ids`: those of rows 1, 2, ..."""
    rows, train = data["test"], training_rows(data)
    index = np.array(spread(len(rows), most), np.int64)
    known, names = ratings_before(data, train, 0)["test"][index], ["", *ids]
    asked = like_questions(rows.take(index), known, max_history)
    found = []
    for i in range(len(index)):
        own = asked["history"][i] > 0
        history, liked = asked["history"][i][own], asked["liked"][i][own]
        one = (history[None], liked[None], asked["items"][i : i + 1], asked["ratings"][i : i + 1])
        found.append(
            GoldenLike(
                history=[names[row] for row in history],
                liked=liked.tolist(),
                item=names[asked["items"][i]],
                ratings=(int(known[i, 0]), int(known[i, 1])),
                logits={precision: float(scorer.logits(*one)[0]) for precision, scorer in scorers.items()},
            )
        )
    return found
