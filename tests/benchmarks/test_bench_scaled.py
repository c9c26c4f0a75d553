"""Another catalogue size: the same graph over rows drawn from its own, read and written without the package onnx."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.bench import scaled as module
from benchmarks.bench.scaled import check, draw, resize, scaled
from benchmarks.bench.wire import FLOAT, INT8, INT32, UINT8, Tensor, encode, one_node, parse, tensors, with_tensors
from benchmarks.result import NotMeasured
from deploy.bundle import open_bundle
from deploy.errors import GateError, UsageError
from deploy.ranker import Ranker
from deploy.runtime import Recommender

N_ITEMS = 30


@pytest.mark.parametrize("n_items", [12, 100, 5000])
def test_a_resized_bundle_is_a_bundle(bundle: Path, tmp_path: Path, n_items: int) -> None:
    found = scaled(bundle, open_bundle(bundle), n_items, tmp_path / "out")
    assert not isinstance(found, NotMeasured)
    path, opened = found
    assert opened.manifest.model.n_items == n_items and opened.manifest.model.precisions.keys() == {"fp32", "int8"}
    recommender = Recommender.load(path)  # digests and golden answers
    answer = recommender.recommend(["i1", "i2"], 5)
    assert len({item.id for item in answer.items} - {"i1", "i2"}) == 5
    again = scaled(bundle, open_bundle(bundle), n_items, tmp_path / "again")
    assert not isinstance(again, NotMeasured) and again[1].digest == opened.digest


def test_its_own_size_is_the_bundle_itself(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    assert scaled(bundle, opened, N_ITEMS, tmp_path / "out") == (bundle, opened)
    assert not (tmp_path / "out").exists()


def test_rows_are_drawn_from_the_given() -> None:
    more, fewer = draw(10, 50, seed=0), draw(10, 4, seed=0)
    assert more[0] == fewer[0] == 0 and (len(more), len(fewer)) == (51, 5)
    assert set(more[1:]) <= set(range(1, 11)) and len(set(more[1:])) > 8
    assert len(set(fewer[1:])) == 4 and fewer.max() <= 10


def test_every_table_has_the_drawn_rows(history_graph: Path, table: NDArray[np.float32], tmp_path: Path) -> None:
    """By the package onnx, which a device does not have: the table by rows, by columns and the bias of each item."""
    source = draw(N_ITEMS, 200, seed=1)
    resize(history_graph, tmp_path / "out.onnx", N_ITEMS + 1, source)
    model = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(model, full_check=True)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(found["table"], table[source])
    np.testing.assert_array_equal(found["table_t"], table[source].T)
    assert found["bias"].shape == (201,) and np.isneginf(found["bias"]).tolist() == [True] + [False] * 200
    given = onnx.load(history_graph)
    assert model.graph.node == given.graph.node and model.opset_import == given.opset_import


def test_large_tables_lie_in_files_of_their_own(
    history_graph: Path, table: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_INLINE", 7000)  # the table by columns and by rows have 6432
    monkeypatch.setattr(module, "_PART", 50)
    source = draw(N_ITEMS, 200, seed=1)
    resize(history_graph, tmp_path / "inline.onnx", N_ITEMS + 1, source)
    assert [path.name for path in tmp_path.iterdir()] == ["inline.onnx"]
    single = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["table", "history"], ["out"])],
            "look_up",
            [helper.make_tensor_value_info("history", TensorProto.INT64, ["n"])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", table.shape[1]])],
            [numpy_helper.from_array(table, "table")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(single, tmp_path / "one.onnx")
    monkeypatch.setattr(module, "_INLINE", 0)
    resize(tmp_path / "one.onnx", tmp_path / "out.onnx", N_ITEMS + 1, source)
    assert (tmp_path / "out.onnx.0.bin").stat().st_size == table[source].nbytes
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"history": np.array([0, 7, 200])})
    np.testing.assert_array_equal(found, table[source[[0, 7, 200]]])
    with pytest.raises(UsageError, match="only a table by rows"):
        resize(history_graph, tmp_path / "columns.onnx", N_ITEMS + 1, source)


def test_what_cannot_be_resized_is_told(
    bundle: Path, history_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no table has a row per item"):
        resize(history_graph, tmp_path / "out.onnx", 77, draw(76, 100, 0))
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 1000)
    found = scaled(bundle, open_bundle(bundle), 1000, tmp_path / "large")
    assert isinstance(found, NotMeasured)
    assert found.what == "bundle.slim with 1000 items" and "would pass" in found.why


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (OSError(28, "No space left on device"), "cannot be written (No space left on device)"),
        (RuntimeError("Non-zero status code\nmore"), "fails with 50 items (Non-zero status code)"),
    ],
)
def test_what_goes_wrong_is_a_reason_and_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Exception, why: str
) -> None:
    def raises(*_arguments: object) -> None:
        raise wrong

    monkeypatch.setattr(module, "write_items" if isinstance(wrong, OSError) else "check", raises)
    found = scaled(bundle, open_bundle(bundle), 50, tmp_path / "out")
    assert isinstance(found, NotMeasured) and why in found.why
    assert not (tmp_path / "out").exists()


def test_the_proof_sees_other_scores(history_graph: Path, tmp_path: Path) -> None:
    source = draw(N_ITEMS, 60, seed=0)
    resize(history_graph, tmp_path / "out.onnx", N_ITEMS + 1, source)
    ranker, given = Ranker(tmp_path / "out.onnx"), Ranker(history_graph)
    check(ranker, given, [3, 4], N_ITEMS, source, 1e-5)
    with pytest.raises(GateError, match="does not score as the given one"):
        check(ranker, given, [3, 4], N_ITEMS, np.roll(source, 1), 1e-5)


def test_what_is_not_known_is_handed_on(history_graph: Path) -> None:
    data = history_graph.read_bytes()
    assert encode(parse(data)) == data
    assert with_tensors(data, []) == data  # a graph without recorded shapes


def test_recorded_shapes_are_dropped(history_graph: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(history_graph))
    assert model.graph.value_info
    assert not onnx.load_from_string(with_tensors(model.SerializeToString(), [])).graph.value_info


def test_tensors_as_onnx_reads_them(history_graph: Path) -> None:
    wanted = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(history_graph).graph.initializer}
    found = {tensor.name: tensor for tensor in tensors(history_graph.read_bytes())}
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.array, wanted[name])
    spelt = helper.make_tensor("spelt", TensorProto.INT8, [2], [1, 2])  # in another field than raw_data
    graph = helper.make_graph([], "one", [], [], [spelt])
    [tensor] = tensors(helper.make_model(graph).SerializeToString())
    with pytest.raises(UsageError, match="spelt: its values are not stored as plain bytes"):
        _ = tensor.array


@pytest.mark.parametrize("damage", [b"\x3a\xff", b"\x3a\x05ab", b"\x3b", b"\xff" * 12])
def test_refuses_what_is_no_model(damage: bytes) -> None:
    with pytest.raises(UsageError, match=r"cut short|not an ONNX file"):
        list(parse(damage))


def test_a_model_of_one_node_runs() -> None:
    weight = Tensor("b", INT8, (2, 2), np.array([[1, 2], [3, 4]], np.int8).tobytes())
    model = one_node("MatMulInteger", [("a", UINT8, (1, 2))], [weight], ("out", INT32, (1, 2)))
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert session.run(None, {"a": np.array([[10, 1]], np.uint8)})[0].tolist() == [[13, 24]]
    assert FLOAT == TensorProto.FLOAT and INT8 == TensorProto.INT8
