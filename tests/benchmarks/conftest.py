"""A real tiny bundle: the user vector is the mean of the history's item vectors."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from deploy.bundle import write_bundle
from deploy.tables import write_items

N_ITEMS, DIM = 30, 8
IDS = [f"item-{row}" for row in range(1, N_ITEMS + 1)]
TITLES = [f"title {row}" for row in range(1, N_ITEMS + 1)]


@pytest.fixture(scope="session")
def table() -> NDArray[np.float32]:
    """Item vectors, row 0 zero, (n + 1, dim)."""
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS + 1, DIM)).astype(np.float32)
    vectors[0] = 0
    return vectors


@pytest.fixture(scope="session")
def history_graph(table: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "history.fp32.onnx"
    save_history_graph(path, table, from_vectors=False)
    return path


@pytest.fixture(scope="session")
def text_parts(table: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """history_vectors graph, text graph and tokenizer; a title's vector is exactly its item's row of the table."""
    folder = tmp_path_factory.mktemp("text")
    save_history_graph(folder / "history_vectors.fp32.onnx", table, from_vectors=True)
    vocabulary = {"title": 0, **{str(row): row for row in range(1, N_ITEMS + 1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="title"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_text_graph(folder / "text.fp32.onnx", table)
    return folder / "history_vectors.fp32.onnx", folder / "text.fp32.onnx", folder / "tokenizer.json"


@pytest.fixture(scope="session")
def bundle(history_graph: Path, table: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_items(folder / "items.item", IDS, TITLES, {})
    scores = table @ table[1]
    scores[[0, 1]] = -np.inf
    best = np.argsort(-scores)[:3]
    answer = {"items": [IDS[row - 1] for row in best], "scores": [float(scores[row]) for row in best]}
    golden = {
        "tolerance": 1e-4,
        "cases": [{"history": ["item-1"], "k": 3, "answers": {"fp32": answer, "int8": answer}}],
    }
    files: dict[str, Path | bytes] = {
        "items.item": folder / "items.item",
        "history.fp32.onnx": history_graph,
        "history.int8.onnx": history_graph,
        "popular.json": json.dumps(list(range(1, N_ITEMS + 1))).encode(),
        "golden.json": json.dumps(golden).encode(),
        **dict.fromkeys(("evidence.json", "provenance.json", "sbom.cdx.json", "card.md", "licences.md"), b"{}"),
    }
    model = {
        "n_items": N_ITEMS,
        "dim": DIM,
        "max_history": 20,
        "precisions": {"fp32": "history.fp32.onnx", "int8": "history.int8.onnx"},
        "default": "int8",
    }
    write_bundle(files, folder / "out", name="tiny", model=model)
    return folder / "out" / "bundle.slim"


def save_history_graph(path: Path, table: NDArray[np.float32], *, from_vectors: bool) -> None:
    bias = np.zeros(len(table), dtype=np.float32)
    bias[0] = -np.inf
    constants = {
        "table": table,
        "table_t": np.ascontiguousarray(table.T),
        "bias": bias,
        "axis": np.array([1], dtype=np.int64),
        "lowest": np.array(-np.inf, dtype=np.float32),
    }
    nodes = [
        *([] if from_vectors else [helper.make_node("Gather", ["table", "history"], ["vectors"])]),
        helper.make_node("ReduceMean", ["vectors", "axis"], ["user"], keepdims=0),
        helper.make_node("MatMul", ["user", "table_t"], ["dots"]),
        helper.make_node("Add", ["dots", "bias"], ["open"]),
        helper.make_node("Concat", ["history", "exclude"], ["seen"], axis=1),
        helper.make_node("Shape", ["seen"], ["seen_shape"]),
        helper.make_node("Expand", ["lowest", "seen_shape"], ["updates"]),
        helper.make_node("ScatterElements", ["open", "seen", "updates"], ["masked"], axis=1),
        helper.make_node("TopK", ["masked", "k"], ["scores", "rows"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("exclude", TensorProto.INT64, ["batch", "m"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
    ]
    if from_vectors:
        del constants["table"]
        inputs.append(helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", "length", DIM]))
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "best"]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["batch", "best"]),
    ]
    save(path, nodes, inputs, outputs, constants)


def save_text_graph(path: Path, table: NDArray[np.float32]) -> None:
    # "title" has token 0 and a zero vector, and the token of a number is its row: the sum is the item's vector.
    constants = {"table": table, "axis": np.array([1], dtype=np.int64), "last": np.array([-1], dtype=np.int64)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask"], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "last"], ["mask"]),
        helper.make_node("Mul", ["tokens", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["vectors"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens_n"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", DIM])]
    save(path, nodes, inputs, outputs, constants)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, NDArray[np.generic]],
) -> None:
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
