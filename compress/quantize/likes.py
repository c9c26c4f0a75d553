"""The like graphs of a student or teacher, fp32 and quantized, and how far each is from the model it was made from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.accuracy import auc, user_aucs
from compress.likes.model import LikesModel
from compress.likes.ratings import Ratings, ratings_before
from compress.likes.rows import LikeData, Rows
from compress.likes.training_rows import training_rows
from compress.quantize.parity import TOLERANCE, ParityError, relative
from compress.quantize.parts import LikePart, like_questions
from compress.quantize.quantizers import HistoryQuantizer
from deploy.likes import LikeScorer

BATCH = 1024


def export_likes(
    model: LikesModel,
    quantizers: Sequence[HistoryQuantizer],
    data: LikeData,
    seed: int,
    out: Path,
    parity: dict[str, dict[str, float]],
) -> dict[str, str]:
    """`like.<precision>.onnx` for fp32 and each quantizer: precision -> file. Fills `parity`."""
    ratings = ratings_before(data, training_rows(data), seed)
    part = LikePart.of(model, data, seed)
    graphs = {"fp32": "like.fp32.onnx"}
    onnx.save(part.graph(), out / graphs["fp32"])
    for quantizer in quantizers:
        file = graphs[quantizer.name] = f"like.{quantizer.name}.onnx"
        parity[file] = quantizer.history(part, out / file) or {}
    for precision, file in graphs.items():
        parity[file] = {**parity.get(file, {}), **like_parity(model, out / file, data, ratings, precision == "fp32")}
    return graphs


def like_parity(model: LikesModel, graph: Path, data: LikeData, ratings: Ratings, exact: bool) -> dict[str, float]:
    """How far a graph's logits of validation rows are from its fp32 model's.

    `relative_difference`: the largest over the largest logit; `mean_difference`: the mean, in nats; `auc` and `uauc` of
    the graph beside `fp32_auc` and `fp32_uauc` of the model. Raises ParityError as `history_parity`.
    """
    rows = data["valid"]
    expected = model.logits(rows, ratings["valid"])
    found = graph_logits(LikeScorer(graph), model.sequence.max_history, rows, ratings["valid"])
    difference = relative(found, expected)
    if exact and difference > TOLERANCE:
        raise ParityError(f"{graph.name}: logits differ from torch by {difference:.2e} of the largest")
    figures = {"relative_difference": difference, "mean_difference": float(np.abs(found - expected).mean())}
    for name, logits in (("", found), ("fp32_", expected)):
        own = user_aucs(logits, rows.labels, rows.users)
        figures[f"{name}auc"] = auc(logits, rows.labels) or 0.0
        figures[f"{name}uauc"] = float(own.mean()) if own.size else 0.0
    return {**figures, "rows": len(rows)}


def graph_logits(scorer: LikeScorer, max_history: int, rows: Rows, ratings: NDArray[np.int64]) -> NDArray[np.float64]:
    """A like graph's answers to rows, float64 (rows,)."""
    asked = like_questions(rows, ratings, max_history)
    found = [
        scorer.logits(*(array[start : start + BATCH] for array in asked.values()))
        for start in range(0, len(rows), BATCH)
    ]
    return np.concatenate(found).astype(np.float64) if found else np.zeros(0)
