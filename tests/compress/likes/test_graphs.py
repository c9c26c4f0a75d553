"""Like graphs: every quantizer keeps the contract, and says what torch says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from compress.likes.model import LikesHead, LikesModel, hold_leaning, with_leanings
from compress.likes.ratings import ratings_before
from compress.likes.rows import LikeData
from compress.likes.training_rows import training_rows
from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.quantize.half import Half
from compress.quantize.likes import graph_logits, like_parity
from compress.quantize.parity import ParityError
from compress.quantize.parts import LikePart
from compress.quantize.quantizers import HistoryQuantizer, Int8Dynamic, Int8PerRow, Int8Rescored
from compress.quantize.static import Int8Static
from compress.quantize.weight_only import Int4WeightOnly, Int8WeightOnly
from deploy.likes import LikeScorer

N_ITEMS, DIM, LONGEST = 40, 16, 8
Asked = dict[str, NDArray[Any]]


def random_likes(rated: bool, blocks: int = 2) -> LikesModel:
    torch.manual_seed(blocks)
    shapes = (BlockShape(heads=2, neurons=12), BlockShape(heads=3, neurons=8))[:blocks]
    sequence = SequenceModel(SequenceShape(n_items=N_ITEMS, dim=DIM, head_dim=4, blocks=shapes, max_history=LONGEST))
    head = LikesHead(DIM, 0.2, rated)
    with torch.no_grad():
        for parameter in [*sequence.parameters(), *head.parameters()]:
            parameter.normal_(std=0.4)
        sequence.item_table.copy_(with_leanings(sequence.item_table))
        sequence.item_table[0] = 0.0
    hold_leaning(sequence.encoder)
    return LikesModel(sequence, head).eval()


def questions(cases: int, seed: int = 0) -> Asked:
    """Histories of every length from none on, left-padded, with likes and dislikes."""
    rng = np.random.default_rng(seed)
    history = rng.integers(1, N_ITEMS + 1, (cases, LONGEST))
    for i, row in enumerate(history):
        row[: LONGEST - i % (LONGEST + 1)] = 0
    liked = (rng.random(history.shape) < 0.6) & (history > 0)
    return {
        "history": history,
        "liked": liked,
        "items": rng.integers(1, N_ITEMS + 1, cases),
        "ratings": rng.integers(0, 50, (cases, 2)),
    }


@torch.no_grad()
def expected(model: LikesModel, asked: Asked) -> NDArray[np.float32]:
    history, liked, items, ratings = (torch.from_numpy(array) for array in asked.values())
    logits: NDArray[np.float32] = model.head(
        model.sequence.item_table, model.sequence.encoder, history, liked.float(), items, ratings
    ).numpy()
    return logits


def fp32(model: LikesModel, out: Path) -> None:
    onnx.save(LikePart(model, []).graph(), out)


def by(quantizer: HistoryQuantizer) -> Callable[[LikesModel, Path], None]:
    def write(model: LikesModel, out: Path) -> None:
        quantizer.history(LikePart(model, [questions(32, seed) for seed in (1, 2)]), out)

    return write


WRITERS: dict[str, Callable[[LikesModel, Path], None]] = {
    "fp32": fp32,
    "int8_per_row": by(Int8PerRow()),
    "int8_rescored": by(Int8Rescored()),
    "int8_dynamic": by(Int8Dynamic()),
    "int8_weight_only": by(Int8WeightOnly()),
    "int4_weight_only": by(Int4WeightOnly(block_size=16)),
    "int8_static": by(Int8Static()),
    "fp16": by(Half()),
}
TOLERANCE = dict.fromkeys(WRITERS, 0.05) | {"fp32": 1e-5, "int4_weight_only": 0.3, "fp16": 5e-3}
"""Of a logit, relative to the largest."""


def test_every_history_quantizer_is_here() -> None:
    members = get_args(get_args(HistoryQuantizer)[0])
    assert set(WRITERS) == {"fp32", *(entry.model_fields["name"].default for entry in members)}


@pytest.mark.parametrize("precision", sorted(WRITERS))
@pytest.mark.parametrize(("rated", "blocks"), [(True, 1), (True, 2), (False, 1)])
class TestLikeGraph:
    def test_it_says_what_torch_says(self, precision: str, rated: bool, blocks: int, tmp_path: Path) -> None:
        model, asked = random_likes(rated, blocks), questions(60)
        WRITERS[precision](model, tmp_path / "like.onnx")
        found = LikeScorer(tmp_path / "like.onnx").logits(**asked)
        wanted = expected(model, asked)
        assert (found.shape, found.dtype) == ((60,), np.float32)
        assert np.abs(found - wanted).max() < TOLERANCE[precision] * np.abs(wanted).max()
        again = random_likes(rated, blocks)
        WRITERS[precision](again, tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "like.onnx").read_bytes()

    def test_neighbours_change_no_answer(self, precision: str, rated: bool, blocks: int, tmp_path: Path) -> None:
        WRITERS[precision](random_likes(rated, blocks), tmp_path / "like.onnx")
        scorer, asked = LikeScorer(tmp_path / "like.onnx"), questions(9)
        whole = scorer.logits(**asked)
        some = [3, 8, 0]
        found = scorer.logits(**{name: array[some] for name, array in asked.items()})
        assert np.allclose(found, whole[some], atol=1e-2 if precision == "fp16" else 1e-5)


def test_int8_holds_the_table_in_bytes(tmp_path: Path) -> None:
    for precision in ("fp32", "int8_per_row"):
        WRITERS[precision](random_likes(True), tmp_path / f"{precision}.onnx")
    tables = {
        name: [t.data_type for t in onnx.load(tmp_path / f"{name}.onnx").graph.initializer if t.name == "item_table"]
        for name in ("fp32", "int8_per_row")
    }
    assert tables == {"fp32": [onnx.TensorProto.FLOAT], "int8_per_row": [onnx.TensorProto.INT8]}


def test_a_graph_of_another_model_is_no_parity(taste_data: Path, tmp_path: Path) -> None:
    data = LikeData.open(taste_data)
    ratings = ratings_before(data, training_rows(data), 0)
    model, other = random_likes(True), random_likes(False)
    fp32(model, tmp_path / "like.onnx")
    found = like_parity(model, tmp_path / "like.onnx", data, ratings, exact=True)
    assert found["relative_difference"] < 1e-5 and found["auc"] == pytest.approx(found["fp32_auc"])
    assert 0.0 < found["uauc"] < 1.0 and found["rows"] == len(data["valid"])
    logits = graph_logits(LikeScorer(tmp_path / "like.onnx"), LONGEST, data["test"], ratings["test"])
    assert np.allclose(logits, model.logits(data["test"], ratings["test"]), atol=1e-4)
    with pytest.raises(ParityError, match="differ from torch"):
        like_parity(other, tmp_path / "like.onnx", data, ratings, exact=True)
