"""A tiny real bundle, made without torch: the mean of the history's vectors against the item table."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from deploy.bundle import write_bundle
from deploy.golden import Golden, GoldenCase, GoldenLike, record_case, record_text
from deploy.manifest import canonical_json
from deploy.ranker import Ranker
from deploy.releases import Releases
from deploy.signing import new_key
from deploy.tables import write_items
from deploy.text import TextEncoder

N_ITEMS, DIM, MAX_HISTORY = 20, 4, 5
IDS = [f"i{row}" for row in range(1, N_ITEMS + 1)]
TITLES = [f"Film {'odd' if row % 2 else 'even'} {row} é" for row in range(1, N_ITEMS + 1)]
GENRES = ["Drama|War" if row % 5 == 0 else "Drama" if row % 2 else "Comedy" for row in range(1, N_ITEMS + 1)]
POPULAR = [7, 3, 12, 1, 20, 5]
WORDS = ["film", "odd", "even", "drama"]


def item_table(step: float | None = None) -> npt.NDArray[np.float32]:
    """float32 (n + 1, dim), fixed; rounded to multiples of `step`."""
    table = np.random.default_rng(7).normal(size=(N_ITEMS + 1, DIM)).astype(np.float32)
    return table if step is None else (np.round(table / step) * step).astype(np.float32)


def history_graph(table: npt.NDArray[np.float32]) -> bytes:
    """An ONNX graph that keeps the contract of `docs/ARCHITECTURE.md`."""
    padding = np.zeros(len(table), np.float32)
    padding[0] = -np.inf
    constants = {
        "table": table,
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.float32),
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "masked": np.array(-np.inf, np.float32),
        "padding": padding,
    }
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["vectors"]),
        helper.make_node("Equal", ["history", "zero"], ["is_pad"]),
        helper.make_node("Not", ["is_pad"], ["is_item"]),
        helper.make_node("Cast", ["is_item"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weight", "axis2"], ["weight3"]),
        helper.make_node("Mul", ["vectors", "weight3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis1"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weight", "axis1"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["at_least_one"]),
        helper.make_node("Div", ["total", "at_least_one"], ["user"]),
        helper.make_node("Transpose", ["table"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["user", "columns"], ["all_scores"]),
        helper.make_node("Add", ["all_scores", "padding"], ["item_scores"]),
        helper.make_node("Concat", ["history", "exclude"], ["blocked"], axis=1),
        helper.make_node("Shape", ["blocked"], ["blocked_shape"]),
        helper.make_node("Expand", ["masked", "blocked_shape"], ["updates"]),
        helper.make_node("ScatterElements", ["item_scores", "blocked", "updates"], ["open_scores"], axis=1),
        helper.make_node("TopK", ["open_scores", "k"], ["scores", "rows"], axis=1),
        helper.make_node("Identity", ["user"], ["user_vector"]),
    ]
    inputs = [
        helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("exclude", TensorProto.INT64, ["batch", "m"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "top"]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["batch", "top"]),
        helper.make_tensor_value_info("user_vector", TensorProto.FLOAT, ["batch", DIM]),
    ]
    return _model("history", nodes, inputs, outputs, constants)


def text_graph() -> bytes:
    """Masked mean of token vectors: float32 (batch, dim)."""
    table = np.random.default_rng(8).normal(size=(len(WORDS) + 1, DIM)).astype(np.float32)
    constants = {"table": table, "axis1": np.array([1], np.int64), "axis2": np.array([2], np.int64)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weight", "axis2"], ["weight3"]),
        helper.make_node("Mul", ["tokens", "weight3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis1"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weight", "axis1"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["vectors"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens_"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", DIM])]
    return _model("text", nodes, inputs, outputs, constants)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, npt.NDArray[np.generic]],
) -> bytes:
    weights = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tokenizer_json() -> bytes:
    """Lower-cased words of WORDS have ids 1.., anything else id 0."""
    vocabulary = {"[UNK]": 0, **{word: place for place, word in enumerate(WORDS, start=1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


def model_section() -> dict[str, object]:
    """The manifest's `model`."""
    return {
        "n_items": N_ITEMS,
        "dim": DIM,
        "max_history": MAX_HISTORY,
        "precisions": {"fp32": "history.fp32.onnx", "int8": "history.int8.onnx"},
        "default": "int8",
        "text": {
            "graph": "text.fp32.onnx",
            "precision": "fp32",
            "tokenizer": "tokenizer.json",
            "max_tokens": 6,
            "dim": DIM,
            "template": "{title} {genre}",
        },
    }


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bundle's files by name, golden answers recorded from the graphs themselves."""
    folder = tmp_path_factory.mktemp("parts")
    files = {
        "history.fp32.onnx": history_graph(item_table()),
        "history.int8.onnx": history_graph(item_table(step=1 / 16)),
        "text.fp32.onnx": text_graph(),
        "tokenizer.json": tokenizer_json(),
        "popular.json": canonical_json(POPULAR),
        "evidence.json": canonical_json({}),
        "provenance.json": canonical_json({}),
        "sbom.cdx.json": canonical_json({}),
        "card.md": b"# tiny\n",
        "licences.md": b"# Licences and terms\n",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_items(folder / "items.item", IDS, TITLES, {"genre": GENRES})
    rankers = {precision: Ranker(folder / f"history.{precision}.onnx") for precision in ("fp32", "int8")}
    ids = ["", *IDS]
    cases: list[GoldenCase] = [record_case(history, 5, rankers, ids) for history in ([1], [2, 3], [4, 5, 6, 7, 8])]
    encoder = TextEncoder(folder / "text.fp32.onnx", folder / "tokenizer.json", 6)
    text = "film odd drama"
    golden = Golden(tolerance=1e-4, cases=cases, text=record_text(text, encoder.encode([text])[0]))
    files["items.item"] = (folder / "items.item").read_bytes()
    files["golden.json"] = canonical_json(golden.model_dump())
    return files


@dataclass(frozen=True)
class TinyBundle:
    """Where a written bundle lies, and its keys."""

    folder: Path
    archive: Path
    private_key: Path
    public_key: Path


WriteTiny = Callable[..., TinyBundle]


@pytest.fixture(scope="session")
def write_tiny(parts: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> WriteTiny:
    """Writes the tiny bundle into a fresh folder; `changes` replaces files (None removes one)."""
    keys = tmp_path_factory.mktemp("keys")
    public_key = new_key(keys / "vendor")

    def write(changes: dict[str, bytes | None] | None = None, signed: bool = True) -> TinyBundle:
        out = tmp_path_factory.mktemp("tiny")
        merged = {**parts, **(changes or {})}
        private_key = keys / "vendor"
        write_bundle(
            {name: data for name, data in merged.items() if data is not None},
            out,
            name="tiny",
            model=model_section(),
            list_separators={"genre": "|"},
            private_key=private_key if signed else None,
        )
        return TinyBundle(out / "bundle", out / "bundle.slim", private_key, public_key)

    return write


@pytest.fixture(scope="session")
def tiny(write_tiny: WriteTiny) -> TinyBundle:
    """The tiny bundle, signed. Tests must not change it."""
    return write_tiny()


@pytest.fixture
def device(write_tiny: WriteTiny, tmp_path: Path) -> tuple[Releases, list[str]]:
    """A releases folder with three releases, and their digests; the first is active."""
    releases = Releases(tmp_path / "device", health=lambda _: None)
    bundles = [write_tiny({"evidence.json": canonical_json({"version": number})}) for number in range(3)]
    digests = [releases.install(bundle.archive, None).digest for bundle in bundles]
    releases.activate(digests[0])
    return releases, digests


@pytest.fixture(scope="session")
def golden(parts: dict[str, bytes]) -> dict[str, object]:
    """The parsed golden.json, a fresh copy for each session."""
    document: dict[str, object] = json.loads(parts["golden.json"])
    return document


MakeRated = Callable[..., Path]


def like_graph() -> bytes:
    """logit = row asked / 10 + likes of the history - 100 * (known likes - known dislikes)."""
    constants = {
        "tenth": np.float32(0.1),
        "hundred": np.float32(-100),
        "axis1": np.array([1], np.int64),
        "first": np.array(0, np.int64),
        "second": np.array(1, np.int64),
    }
    cast, add = ("Cast", {"to": TensorProto.FLOAT}), "Add"
    nodes = [
        helper.make_node(cast[0], ["items"], ["row"], **cast[1]),
        helper.make_node("Mul", ["row", "tenth"], ["tenths"]),
        helper.make_node(cast[0], ["liked"], ["marks"], **cast[1]),
        helper.make_node("ReduceSum", ["marks", "axis1"], ["likes"], keepdims=0),
        helper.make_node(cast[0], ["ratings"], ["counts"], **cast[1]),
        helper.make_node("Gather", ["counts", "first"], ["known_likes"], axis=1),
        helper.make_node("Gather", ["counts", "second"], ["known_dislikes"], axis=1),
        helper.make_node("Sub", ["known_likes", "known_dislikes"], ["known"]),
        helper.make_node("Mul", ["known", "hundred"], ["hundreds"]),
        helper.make_node(add, ["tenths", "likes"], ["both"]),
        helper.make_node(add, ["both", "hundreds"], ["logits"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "likes",
        [
            info("history", TensorProto.INT64, ["b", "l"]),
            info("liked", TensorProto.BOOL, ["b", "l"]),
            info("items", TensorProto.INT64, ["b"]),
            info("ratings", TensorProto.INT64, ["b", 2]),
        ],
        [info("logits", TensorProto.FLOAT, ["b"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def recorded(logit: float = 1.3) -> GoldenLike:
    """i3 after a liked i1 and a disliked i2, with 4 likes and 4 dislikes known: .3 + 1."""
    return GoldenLike(
        history=["i1", "i2"], liked=[True, False], item="i3", ratings=(4, 4), logits={"fp32": logit, "int8": logit}
    )


@pytest.fixture
def rated(parts: dict[str, bytes], golden: dict[str, object], tiny: TinyBundle, tmp_path: Path) -> MakeRated:
    """rated(likes of golden.json, the manifest's likes) -> a bundle's folder."""

    def make(likes: list[GoldenLike] | None, graphs: dict[str, str] | None = None) -> Path:
        answers = Golden.model_validate({**golden, "likes": likes})
        files = {
            **parts,
            "like.fp32.onnx": like_graph(),
            "like.int8.onnx": like_graph(),
            "golden.json": canonical_json(answers.model_dump(mode="json")),
        }
        wanted = {"fp32": "like.fp32.onnx", "int8": "like.int8.onnx"} if graphs is None else graphs
        model = json.loads((tiny.folder / "manifest.json").read_bytes())["model"]
        write_bundle(files, tmp_path / "out", name="rated", model={**model, "likes": wanted})
        return tmp_path / "out" / "bundle"

    return make
