"""Graphs: every way to store weights keeps the same contract, says what torch says, and holds the table once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.data.dataset import Dataset
from compress.models.folder import load_sequence, load_text, model_facts, read_json, write_model
from compress.models.narrow import narrowed
from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.models.text import TextEncoder
from compress.prune.table import principal_axes
from compress.quantize.builder import GraphBuilder
from compress.quantize.compressor import Int4Gptq
from compress.quantize.graph import absorbed, history_graph
from compress.quantize.grids import quantize_rows
from compress.quantize.half import Half
from compress.quantize.parity import ParityError, Questions, centred_cosine, history_parity, text_parity
from compress.quantize.parts import HistoryPart, TextPart
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.quantize.quantizers import HistoryQuantizer, Int8Dynamic, Int8PerRow, Int8Rescored, TextQuantizer
from compress.quantize.static import Int8Smooth, Int8Static
from compress.quantize.text_graph import export_text
from compress.quantize.weight_only import Int4WeightOnly, Int8WeightOnly
from compress.teacher.backbone import RandomBert
from deploy.ranker import Ranker
from deploy.text import TextEncoder as GraphTextEncoder

Run = Callable[..., Path]
LONGEST = 10


def write_fp32(model: SequenceModel, out: Path) -> None:
    onnx.save(history_graph(model), out)


def by(quantizer: HistoryQuantizer) -> Callable[[SequenceModel, Path], None]:
    def write(model: SequenceModel, out: Path) -> None:
        quantizer.history(HistoryPart(model, some_histories(64, model.n_items, seed=1)), out)

    return write


WRITERS: dict[str, Callable[[SequenceModel, Path], None]] = {
    "fp32": write_fp32,
    "int8_per_row": by(Int8PerRow()),
    "int8_rescored": by(Int8Rescored()),
    "int8_dynamic": by(Int8Dynamic()),
    "int8_weight_only": by(Int8WeightOnly()),
    "int4_weight_only": by(Int4WeightOnly(block_size=16)),
    "int8_static": by(Int8Static()),
    "fp16": by(Half()),
}
TOLERANCE = dict.fromkeys(WRITERS, 0.05) | {"fp32": 1e-4, "int8_rescored": 1e-3, "int4_weight_only": 0.3, "fp16": 5e-3}
"""Of a score, relative to the largest."""
LEAST_SCORES_COSINE = dict.fromkeys(WRITERS, 0.95) | {"fp32": 0.999999, "int4_weight_only": 0.85, "fp16": 0.9999}
STORED = dict.fromkeys(WRITERS, np.dtype(np.int8)) | {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}
"""What the item table is made of."""


def test_every_history_quantizer_is_here() -> None:
    members = get_args(get_args(HistoryQuantizer)[0])
    assert set(WRITERS) == {"fp32", *(entry.model_fields["name"].default for entry in members)}


def random_model(n_items: int, dim: int = 16, blocks: int = 2, table_dim: int | None = None) -> SequenceModel:
    torch.manual_seed(n_items + blocks)
    shape = SequenceShape(
        n_items=n_items,
        dim=dim,
        head_dim=4,
        blocks=(BlockShape(heads=2, neurons=12), BlockShape(heads=3, neurons=8), BlockShape(heads=1, neurons=4))[
            :blocks
        ],
        max_history=LONGEST,
        table_dim=table_dim,
    )
    model = SequenceModel(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
        model.item_table[0] = 0.0
    return model.eval()


@torch.no_grad()
def reference(model: SequenceModel, history: NDArray[np.int64], exclude: NDArray[np.int64]) -> NDArray[np.float32]:
    """All scores in torch, (batch, n_items + 1), padding, history and `exclude` at -inf."""
    rows = torch.from_numpy(history)
    scores = model.user_vectors(rows) @ model.item_table.T
    for excluded in (rows, torch.from_numpy(exclude), torch.zeros(len(rows), 1, dtype=torch.int64)):
        scores.scatter_(1, excluded, -torch.inf)
    return scores.numpy()


def some_histories(cases: int, n_items: int, length: int = LONGEST, seed: int = 0) -> NDArray[np.int64]:
    """Left-padded histories of every length from 1 on."""
    rng = np.random.default_rng(seed)
    history = rng.integers(1, n_items + 1, (cases, length))
    for i, row in enumerate(history):
        row[: length - 1 - i % length] = 0
    return history.astype(np.int64)


def nothing(cases: int) -> NDArray[np.int64]:
    return np.zeros((cases, 1), np.int64)


@pytest.fixture(scope="module", params=sorted(WRITERS))
def precision(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def graph(precision: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / f"history.{precision}.onnx"
    WRITERS[precision](MODEL, path)
    return path


@pytest.fixture(scope="module")
def ranker(graph: Path) -> Ranker:
    return Ranker(graph)


MODEL = random_model(50)


class TestEveryHistoryGraph:
    """The contract of docs/ARCHITECTURE.md, "quantize", for each quantizer."""

    def test_it_is_valid_onnx_with_the_agreed_inputs_and_outputs(self, graph: Path) -> None:
        onnx.checker.check_model(onnx.load(graph), full_check=True)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
        outputs = [(value.name, value.type, value.shape) for value in session.get_outputs()]
        assert inputs == {
            "history": ("tensor(int64)", ["batch", "length"]),
            "exclude": ("tensor(int64)", ["batch", "m"]),
            "k": ("tensor(int64)", [1]),
        }
        assert outputs == [
            ("scores", "tensor(float)", ["batch", "top"]),
            ("rows", "tensor(int64)", ["batch", "top"]),
        ]

    def test_scores_are_torchs(self, ranker: Ranker, precision: str) -> None:
        history = some_histories(40, 50)
        exclude = np.random.default_rng(1).integers(0, 51, (40, 5))
        scores, rows = ranker.rank(history, exclude, 30)
        expected = reference(MODEL, history, exclude)
        assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
        largest = np.abs(expected[np.isfinite(expected)]).max()
        assert np.abs(np.take_along_axis(expected, rows, 1) - scores).max() < TOLERANCE[precision] * largest
        assert (np.diff(scores) <= 0).all()
        if precision == "fp32":
            assert np.array_equal(rows, np.argsort(-expected, kind="stable")[:, :30])

    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def test_padding_history_and_exclude_are_never_among_the_answers(self, data: st.DataObject, graph: Path) -> None:
        ranker = RANKERS.setdefault(graph, Ranker(graph))
        row = st.integers(1, 50)
        events = data.draw(st.lists(row, min_size=1, max_size=LONGEST))
        padding = data.draw(st.integers(0, LONGEST - len(events)))
        exclude = data.draw(st.lists(st.integers(0, 50), max_size=20))
        left_out = {0, *events, *exclude}
        allowed = sorted(set(range(51)) - left_out)
        scores, rows = ranker.rank(
            np.array([[0] * padding + events], np.int64), np.array(exclude, np.int64).reshape(1, -1), 51
        )
        assert sorted(rows[0].tolist()) == list(range(51))
        assert sorted(rows[0, : len(allowed)].tolist()) == allowed
        assert np.isfinite(scores[0, : len(allowed)]).all()
        assert (scores[0, len(allowed) :] == -np.inf).all()

    def test_k_is_asked_not_built_in(self, ranker: Ranker) -> None:
        history = some_histories(3, 50)
        scores, rows = ranker.rank(history, nothing(3), 20)
        for k in (1, 2, 7):
            fewer_scores, fewer = ranker.rank(history, nothing(3), k)
            assert fewer.shape == fewer_scores.shape == (3, k)
            assert np.array_equal(fewer, rows[:, :k])
            assert np.array_equal(fewer_scores, scores[:, :k])

    def test_a_batch_of_different_lengths_answers_as_one_by_one(self, ranker: Ranker, precision: str) -> None:
        history = some_histories(10, 50)
        together, rows = ranker.rank(history, nothing(10), 50 - LONGEST)
        for i, row in enumerate(history):
            events = row[row > 0]
            alone, alone_rows = ranker.rank(events[None], nothing(1), 50 - LONGEST)
            by_row = dict(zip(alone_rows[0].tolist(), alone[0].tolist(), strict=True))
            same = [(s, by_row[r]) for s, r in zip(together[i].tolist(), rows[i].tolist(), strict=True) if r in by_row]
            assert len(same) >= 35
            largest = max(abs(score) for score in by_row.values() if np.isfinite(score))
            assert max(abs(a - b) for a, b in same) < (2e-3 * largest if precision == "fp16" else 1e-5)

    def test_the_amount_of_padding_is_without_effect(self, ranker: Ranker, precision: str) -> None:
        events = np.array([[7, 3, 41]], np.int64)
        bare, rows = ranker.rank(events, nothing(1), 10)
        for padding in (1, 4, 7):
            scores, padded_rows = ranker.rank(np.pad(events, ((0, 0), (padding, 0))), nothing(1), 10)
            np.testing.assert_allclose(scores, bare, atol=5e-2 if precision.startswith("int8") else 1e-4)
            assert precision != "fp32" or np.array_equal(rows, padded_rows)

    def test_an_answer_stays_as_it_was_when_others_are_asked(self, graph: Path) -> None:
        """Outputs are bound once per shape: what was handed out must not be written over."""
        ranker = Ranker(graph)
        first, rows = ranker.rank(np.array([[3, 4]], np.int64), nothing(1), 10)
        kept = first.copy(), rows.copy()
        others, _ = ranker.rank(np.array([[9, 17, 5]], np.int64), nothing(1), 10)
        assert not np.array_equal(others, first)
        assert np.array_equal(first, kept[0]) and np.array_equal(rows, kept[1])

    def test_the_table_is_in_the_file_once(self, precision: str, tmp_path: Path) -> None:
        n_items, dim = 4000, 16
        model, path = random_model(n_items, dim), tmp_path / "history.onnx"
        WRITERS[precision](model, path)
        stored = STORED[precision]
        copies = 2 if precision == "int8_rescored" else 1  # what is scanned, and what that leaves over
        table = copies * (n_items + 1) * (dim * stored.itemsize + 4 * (stored == np.int8))
        rest = 4 * sum(p.numel() for p in model.encoder.parameters())
        rest += 4 * sum(part.weight.numel() for part in absorbed(model.encoder.each_block()[-1]))
        weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        assert table < sum(array.nbytes for array in weights) < table + rest + 4 * 2 * LONGEST**2 + 2000
        assert path.stat().st_size < table + rest + 30_000
        with_items = [array for array in weights if array.shape in ((n_items + 1, dim), (dim, n_items + 1))]
        assert [array.dtype for array in with_items] == [stored] * copies

    def test_export_is_the_same_byte_for_byte(self, graph: Path, precision: str, tmp_path: Path) -> None:
        WRITERS[precision](MODEL, tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == graph.read_bytes()

    @pytest.mark.parametrize(("blocks", "table_dim"), [(1, None), (3, None), (1, 6), (2, 8)])
    def test_any_number_and_width_of_blocks_and_of_the_table(
        self, precision: str, blocks: int, table_dim: int | None, tmp_path: Path
    ) -> None:
        model = random_model(30, blocks=blocks)
        if table_dim is not None:
            model = narrowed(model, principal_axes(model.item_table, np.ones(31, np.int64), table_dim))
        WRITERS[precision](model, tmp_path / "history.onnx")
        history = some_histories(20, 30)
        scores, rows = Ranker(tmp_path / "history.onnx").rank(history, nothing(20), 15)
        expected = reference(model, history, nothing(20))
        largest = np.abs(expected[np.isfinite(expected)]).max()
        assert np.abs(np.take_along_axis(expected, rows, 1) - scores).max() < TOLERANCE[precision] * largest

    def test_a_trained_students_first_ten_stay(
        self, precision: str, film_inputs: dict[str, Path], film_dataset: Dataset, tmp_path: Path
    ) -> None:
        model = load_sequence(film_inputs["prune/student:student:0"])
        assert model is not None
        path = tmp_path / "history.onnx"
        WRITERS[precision](model, path)
        cases = film_dataset.cases("test")
        questions = Questions.of(cases, model.max_history, len(cases))
        found = history_parity(model, path, questions, exact=precision == "fp32")
        assert found["cases"] == len(cases)
        assert found["top10_overlap"] >= (1.0 if precision == "fp32" else 0.9)
        assert found["centred_cosine"] > LEAST_SCORES_COSINE[precision]
        assert found["relative_difference"] < TOLERANCE[precision]
        assert precision != "fp32" or found["ndcg@10"] == found["fp32_ndcg@10"] > 0


RANKERS: dict[Path, Ranker] = {}


def test_a_teachers_graph_takes_the_vectors_of_its_history() -> None:
    """The same answers as by look-up, and the table is asked for scores alone."""
    model = history_graph(MODEL, vectors_given=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert {value.name for value in session.get_inputs()} == {"history", "vectors", "exclude", "k"}
    history = some_histories(10, 50)
    vectors = MODEL.item_table.detach().numpy()[history]
    feed = {"history": history, "exclude": nothing(10), "k": np.array([8], np.int64)}
    scores, rows = session.run(["scores", "rows"], feed | {"vectors": vectors})
    expected = reference(MODEL, history, nothing(10))
    assert np.array_equal(rows, np.argsort(-expected, kind="stable")[:, :8])
    shown = session.run(["scores"], feed | {"vectors": vectors * 2})[0]
    assert not np.allclose(shown, scores)


ROWS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(-1e4, 1e4, width=32))


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_a_quantized_row_is_within_half_a_step(table: NDArray[np.float32]) -> None:
    values, scales = quantize_rows(table)
    assert (values.dtype, scales.dtype) == (np.int8, np.float32)
    assert np.abs(values.astype(int)).max() <= 63
    largest = np.abs(table).max(1)
    np.testing.assert_allclose(scales * 63, largest, rtol=1e-5, atol=1e-37)
    error = np.abs(values.astype(np.float64) * scales[:, None] - table).max(1)
    assert (error <= largest / 63 / 2 * (1 + 1e-4) + 1e-37).all()


def test_quantize_rows_by_hand() -> None:
    table = np.array([[0, 0, 0], [63, -31.6, 1.4], [-126, 2, 3.2]], np.float32)
    values, scales = quantize_rows(table)
    assert scales.tolist() == [0.0, 1.0, 2.0]
    assert values.tolist() == [[0, 0, 0], [63, -32, 1], [-63, 1, 2]]


def test_an_outlier_item_does_not_coarsen_the_others() -> None:
    table = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    alone, _ = quantize_rows(table)
    table[7] *= 1000
    beside, _ = quantize_rows(table)
    assert np.array_equal(np.delete(alone, 7, 0), np.delete(beside, 7, 0))


TEXTS = [f"the {a} {n}" for a in ("silent", "golden", "broken", "frozen") for n in ("river", "empire", "mirror of x")]
TEXT_QUANTIZERS: dict[str, TextQuantizer] = {
    "int8_dynamic": Int8Dynamic(),
    "int8_weight_only": Int8WeightOnly(),
    "int4_weight_only": Int4WeightOnly(),
    "int4_gptq": Int4Gptq(),
    "int8_static": Int8Static(),
    "int8_smooth": Int8Smooth(),
    "fp16": Half(),
}
LEAST_COSINE = dict.fromkeys(TEXT_QUANTIZERS, 0.97) | {"int4_weight_only": 0.8, "int4_gptq": 0.8, "fp16": 0.99999}


def test_every_text_quantizer_is_here() -> None:
    members = get_args(get_args(TextQuantizer)[0])
    assert set(TEXT_QUANTIZERS) == {entry.model_fields["name"].default for entry in members}


@pytest.fixture(scope="module")
def text_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    encoder = text_encoder()
    (folder / "tokenizer.json").write_text(encoder.tokenizer.to_str())
    export_text(encoder, folder / "text.fp32.onnx")
    return folder


def text_encoder() -> TextEncoder:
    """Weights large enough for layers to matter: fresh ones are small beside the residual."""
    encoder = RandomBert(layers=2)(TEXTS, 8, 0)
    with torch.no_grad():
        for parameter in encoder.lm.encoder.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return encoder


@pytest.mark.parametrize("precision", ["fp32", *TEXT_QUANTIZERS])
def test_text_graphs_keep_their_contract_and_the_vectors(text_graphs: Path, precision: str, tmp_path: Path) -> None:
    if precision == "int4_gptq":
        pytest.importorskip("neural_compressor")
    path, encoder = text_graphs / f"text.{precision}.onnx", text_encoder()
    part = TextPart(encoder, text_graphs / "text.fp32.onnx", TEXTS)
    if precision != "fp32":
        TEXT_QUANTIZERS[precision].text(part, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert {value.name: value.type for value in session.get_inputs()} == dict.fromkeys(
        ("input_ids", "attention_mask"), "tensor(int64)"
    )
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape[1]) == ("vectors", "tensor(float)", 32)
    found = text_parity(encoder, path, text_graphs / "tokenizer.json", TEXTS, exact=precision == "fp32")
    if precision == "fp32":
        assert found["relative_difference"] < 1e-4
        assert found["centred_cosine"] > 0.99999
    else:
        assert LEAST_COSINE[precision] < found["centred_cosine"] < 1 - 1e-9
        # word embeddings and linear maps in INT8: about a quarter of the bytes, and the node names
        weights = [numpy_helper.to_array(t).nbytes for t in onnx.load(path).graph.initializer]
        whole = [numpy_helper.to_array(t).nbytes for t in onnx.load(text_graphs / "text.fp32.onnx").graph.initializer]
        assert sum(weights) < (0.52 if precision == "fp16" else 0.45) * sum(whole)
    graph = GraphTextEncoder(path, text_graphs / "tokenizer.json", 8)
    alone = np.concatenate([graph.encode([text]) for text in TEXTS])
    within = {"fp32": 1e-5, "fp16": 0.02}.get(precision, 0.1)
    np.testing.assert_allclose(graph.encode(TEXTS), alone, atol=within)
    export_text(encoder, tmp_path / "text.fp32.onnx")
    if precision != "fp32":
        again = TextPart(encoder, tmp_path / "text.fp32.onnx", TEXTS)
        TEXT_QUANTIZERS[precision].text(again, tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_an_export_that_lies_is_an_error(film_dataset: Dataset, text_graphs: Path, tmp_path: Path) -> None:
    history = Questions.of(film_dataset.cases("valid"), LONGEST, 50)
    path = tmp_path / "history.fp32.onnx"
    other = random_model(film_dataset.n_items)
    with torch.no_grad():
        other.encoder.norm.bias[0] += 0.5
    write_fp32(other, path)
    with pytest.raises(ParityError, match=r"^history.fp32.onnx: scores differ"):
        history_parity(random_model(film_dataset.n_items), path, history, exact=True)
    inexact = history_parity(random_model(film_dataset.n_items), path, history, exact=False)
    assert inexact["relative_difference"] > 1e-3
    with pytest.raises(ParityError, match=r"^text.fp32.onnx: vectors differ"):
        text_parity(
            RandomBert(layers=2)(TEXTS, 8, 1),
            text_graphs / "text.fp32.onnx",
            text_graphs / "tokenizer.json",
            TEXTS,
            True,
        )


def test_centred_cosine_takes_the_common_part_out() -> None:
    common = np.full((3, 2), 100.0)
    a = common + np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    turned = common + np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    assert centred_cosine(turned, a) == pytest.approx(0.0)
    assert centred_cosine(a, a) == pytest.approx(2 / 3)  # the row that is the mean itself counts 0
    shifted = a + 5.0
    assert centred_cosine(shifted, a) < 0.5


def test_the_stage_describes_what_it_wrote(film_inputs: dict[str, Path], film_dataset: Dataset) -> None:
    folder = film_inputs["quantize/student:student:0"]
    facts, model = read_json(folder / "candidate.json"), load_sequence(film_inputs["prune/student:student:0"])
    assert model is not None
    assert facts["graphs"] == {
        "history": {name: f"history.{name}.onnx" for name in ("fp32", "int8_per_row", "int8_dynamic")}
    }
    assert (facts["max_history"], facts["dim"]) == (10, 8)
    assert facts["params"] == {"sequence": sum(p.numel() for p in model.parameters())}
    assert facts["text_space"] == model_facts(film_inputs["prune/student:student:0"])["text_space"]
    parity = read_json(folder / "parity.json")
    assert set(parity) == set(facts["graphs"]["history"].values())
    assert all(found["cases"] == len(film_dataset.cases("valid")) for found in parity.values())


def test_a_teacher_gets_all_three_graphs_and_its_tokenizer(film_inputs: dict[str, Path], film_dataset: Dataset) -> None:
    folder = film_inputs["quantize/teacher:teacher:0"]
    facts = read_json(folder / "candidate.json")
    assert facts["graphs"] == {
        "history": {"fp32": "history.fp32.onnx"},
        "text": {"fp32": "text.fp32.onnx"},
        "history_vectors": {"fp32": "history_vectors.fp32.onnx"},
    }
    assert (facts["max_tokens"], facts["text_dim"]) == (16, 16)
    assert set(facts["params"]) == {"sequence", "text"}
    text = GraphTextEncoder(folder / "text.fp32.onnx", folder / "tokenizer.json", 16)
    encoder = load_text(film_inputs["prune/teacher:teacher:0"])
    assert encoder is not None
    np.testing.assert_allclose(text.encode(film_dataset.texts), encoder.encode(film_dataset.texts), atol=1e-4)
    json.loads((folder / "tokenizer.json").read_text())


@torch.no_grad()
def test_a_user_vector_of_zeros_scores_zero(tmp_path: Path) -> None:
    """Its scale, which INT8 scores are multiplied with, must not be 0: -inf would become no number."""
    model = random_model(50)
    model.encoder.norm.weight.zero_()
    model.encoder.norm.bias.zero_()
    onnx.save(history_graph(model, "int8"), tmp_path / "zero.onnx")
    scores, rows = Ranker(tmp_path / "zero.onnx").rank(np.array([[7, 3]], np.int64), nothing(1), 51)
    assert (scores[0, :48] == 0).all() and (scores[0, 48:] == -np.inf).all()
    assert sorted(rows[0, 48:].tolist()) == [0, 3, 7]


def test_a_constant_is_not_written_over() -> None:
    g = GraphBuilder()
    assert g.constant("one", np.float32(1)) == g.constant("one", np.float32(1))
    with pytest.raises(ValueError, match="one is another constant already"):
        g.constant("one", np.float32(2))


def test_rescored_candidates_come_in_the_order_of_fp32(tmp_path: Path) -> None:
    """Of 3,000 items the first 50, which one INT8 table alone puts in another order."""
    model, histories = random_model(3000), some_histories(20, 3000)
    best = {}
    for name in ("fp32", "int8_per_row", "int8_rescored"):
        WRITERS[name](model, tmp_path / "graph.onnx")
        ranker = Ranker(tmp_path / "graph.onnx")
        best[name] = [ranker.rank(history[None], nothing(1), 50)[1][0].tolist() for history in histories]
    same = {name: np.mean(np.array(found) == np.array(best["fp32"])) for name, found in best.items()}
    assert same["int8_per_row"] < 0.9 < 0.99 < same["int8_rescored"]


def test_int8_scores_are_not_fused_with_their_unit(tmp_path: Path) -> None:
    """ONNX Runtime's DynamicQuantizeMatMul with a scale per item is what made INT8 slow."""
    onnx.save(history_graph(MODEL, "int8"), tmp_path / "history.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "history.onnx", options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "MatMulInteger" in operators
    assert not operators & {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def test_the_stage_writes_the_same_bytes_again(build: Run, film_data: Path, film_inputs: dict[str, Path]) -> None:
    folder = film_inputs["quantize/student:student:0"]
    again = build(quantize, QuantizeConfig(), data=film_data, prune=film_inputs["prune/student:student:0"])
    for file in sorted(path.name for path in folder.iterdir()):
        assert (again / file).read_bytes() == (folder / file).read_bytes()


def test_scores_of_nothing_agree(tmp_path: Path) -> None:
    model, path, history = random_model(30), tmp_path / "graph.onnx", np.array([[0, 1, 2]])
    with torch.no_grad():
        model.item_table[3:] = 0.0  # two items were ever seen, and they are the history
    write_fp32(model, path)
    questions = Questions(history, np.zeros((1, 0), np.int64), np.array([5], np.int32))
    assert history_parity(model, path, questions, exact=True)["relative_difference"] == 0.0


def test_a_model_without_parts_leaves_no_graph(build: Run, film_data: Path, tmp_path: Path) -> None:
    write_model(tmp_path)
    folder = build(quantize, QuantizeConfig(), data=film_data, prune=tmp_path)
    assert read_json(folder / "candidate.json") == {"graphs": {}, "params": {}, "text_space": None}
