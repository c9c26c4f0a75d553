"""Each grid by hand, equalization that changes no answer, and which maps stay fp32."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from compress.data.dataset import Dataset
from compress.models.folder import load_sequence
from compress.models.mix import Mix
from compress.quantize import compressor
from compress.quantize.aware import Aware, QuantizationAware, rounded_maps
from compress.quantize.compressor import Int4Gptq, blocks_of, nibbles, unpacked
from compress.quantize.equalize import Fold, equalized, folds
from compress.quantize.grids import activation_grid, fake_outputs, fake_rows, quantize_columns
from compress.quantize.half import half
from compress.quantize.parity import Questions, ndcg_of, neighbour_overlap
from compress.quantize.parts import HistoryPart, TextPart, spread
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.quantize.quantizers import Int8Dynamic, Int8PerRow
from compress.quantize.sensitivity import choose_maps
from compress.quantize.surgery import activations, in_order, maps_to_qdq, tables_to_int8
from compress.quantize.text_graph import export_text
from compress.quantize.weight_only import Int4WeightOnly, Int8WeightOnly
from compress.stage import RunOptions
from compress.teacher.backbone import Pretrained, RandomBert
from compress.training import Training, seed_everything, validation_ndcg, warm_items
from deploy.errors import UsageError
from tests.compress.test_quantize import TEXTS, random_model

WEIGHT = np.array([[63.0, 0.5], [-31.6, 2.0], [0.0, -126.0]], np.float32)


def graph(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    """x (batch, 3) float32 -> y."""
    info = helper.make_tensor_value_info
    inputs = [info("x", onnx.TensorProto.FLOAT, ["batch", 3])]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "g", inputs, [info("y", onnx.TensorProto.FLOAT, [None] * 2)], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def product() -> onnx.ModelProto:
    return graph(helper.make_node("MatMul", ["x", "w"], ["y"], name="map"), w=WEIGHT)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return next(activations(model, ["y"], [{"x": x}]))[0]


def test_columns_by_hand() -> None:
    values, scales = quantize_columns(WEIGHT)
    assert scales.tolist() == [1.0, 2.0]
    assert values.tolist() == [[63, 0], [-32, 1], [0, -63]]


def test_activation_grid_by_hand() -> None:
    assert activation_grid(-1.0, 1.55) == (np.float32(0.01), 100)
    assert activation_grid(2.0, 5.1) == (np.float32(0.02), 0)  # zero is always on the grid
    assert activation_grid(0.0, 0.0) == (1.0, 0)


def test_static_product_by_hand() -> None:
    """x on steps of .02 around 100, weights as in `test_columns_by_hand`."""
    model = product()
    maps_to_qdq(model, ["map"], {"x": (-2.0, 3.1)})
    onnx.checker.check_model(model, full_check=True)
    x = np.array([[1.009, 0.5, -9.0]], np.float32)  # -> 1.0, .5, clipped to -2
    np.testing.assert_allclose(answer(model, x), [[63 * 1.0 - 32 * 0.5, 2 * (0.5 - 63 * -2)]], rtol=1e-5)


def test_look_up_tables_by_hand() -> None:
    """(3, 2) read by rows: 63 steps of the row's largest; a table that is also multiplied with stays as it is."""
    rows = helper.make_node("Cast", ["x"], ["rows"], name="rows", to=onnx.TensorProto.INT64)
    read = helper.make_node("Gather", ["w", "rows"], ["y"], name="read")
    model = graph(rows, read, w=WEIGHT)
    tables_to_int8(model)
    found = answer(model, np.array([[0.0, 1.0, 2.0]], np.float32))
    unit = np.abs(WEIGHT).max(1, keepdims=True) / 63
    np.testing.assert_allclose(found[0], np.rint(WEIGHT / unit) * unit, rtol=1e-6)
    both = graph(rows, read, helper.make_node("MatMul", ["x", "w"], ["z"], name="map"), w=WEIGHT)
    before = both.SerializeToString()
    tables_to_int8(both)
    assert both.SerializeToString() == before


def test_blocks_of_eight_and_four_bits_by_hand() -> None:
    """Values on the grid of 16 steps between a block's extremes come through 4 bits whole, and 8 bits lose 1 / 255."""
    on_grid = np.tile(np.arange(-5, 11, dtype=np.float32), (1, 1)).T * 0.5  # one block of 16: zero point 5, scale .5
    x = np.eye(16, dtype=np.float32)
    model = graph(helper.make_node("MatMul", ["x", "w"], ["y"], name="map"), w=on_grid)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    four = Int4WeightOnly(block_size=16, accuracy_level=1).packed(onnx.ModelProto.FromString(model.SerializeToString()))
    np.testing.assert_allclose(answer(four, x), on_grid, atol=1e-6)
    packed = next(t for t in four.graph.initializer if t.name.endswith("Q4"))
    assert numpy_helper.to_array(packed).shape == (1, 1, 8)
    assert np.array_equal(numpy_helper.to_array(packed)[0, 0], nibbles(np.arange(16, dtype=np.uint8)))
    eight = Int8WeightOnly(block_size=16, accuracy_level=1).packed(model)
    np.testing.assert_allclose(answer(eight, x), on_grid, atol=0.5 * 7.5 / 255 + 1e-6)


def test_half_by_hand() -> None:
    found = answer(half(product()), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32))
    assert found.dtype == np.float32
    assert found.tolist() == [[63.0, 0.5], [float(np.float16(-31.6)), 2.0]]


def test_nodes_are_put_in_order() -> None:
    last = helper.make_node("Neg", ["z"], ["y"], name="last")
    model = graph(last, helper.make_node("Abs", ["x"], ["z"], name="first"))
    assert [node.name for node in in_order(model).graph.node] == ["first", "last"]
    with pytest.raises(ValueError, match="last reads what no node writes"):
        in_order(graph(last))


def test_gptq_words_by_hand() -> None:
    """Eight values of 4 bits in an int32, the first lowest; zero points stored less one."""
    values = np.arange(16).reshape(8, 2) % 16
    words = torch.tensor([[sum(int(v) << 4 * i for i, v in enumerate(column)) for column in values.T]])
    words = torch.where(words >= 2**31, words - 2**32, words).int()
    zeros = torch.tensor([[7 | 2 << 4]], dtype=torch.int32)
    sizes = {"in_features": 8, "out_features": 2}
    linear = SimpleNamespace(qweight=words, qzeros=zeros, scales=torch.tensor([[0.5, 2.0]]), **sizes)
    found, scales, zero = unpacked(linear)
    assert found.tolist() == values.tolist()
    assert (scales.tolist(), zero.tolist()) == ([[0.5, 2.0]], [[8, 3]])
    assert blocks_of(np.arange(1, 4, dtype=np.uint8)[:, None], 4).tolist() == [[[1 | 2 << 4, 3]]]


def test_gptq_graph_is_the_rounded_model_and_beats_plain_rounding(tmp_path: Path) -> None:
    """Its packed weights answer as neural-compressor's own module does, closer to fp32 than rounding to the nearest."""
    pytest.importorskip("neural_compressor")
    encoder = RandomBert(layers=1, hidden=64, neurons=128)(TEXTS, 8, 0)
    export_text(encoder, tmp_path / "fp32.onnx")
    part = TextPart(encoder, tmp_path / "fp32.onnx", TEXTS)
    assert Int4Gptq().text(part, tmp_path / "gptq.onnx") == {"map_groups": 6, "rounded_with_examples": 6}
    rounded = compressor._gptq(encoder.lm, part.feeds, 32)
    node = next(n for n in onnx.load(tmp_path / "gptq.onnx").graph.node if n.op_type == "MatMulNBits")
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "gptq.onnx").graph.initializer}
    values, scales, zeros = unpacked(rounded["encoder.layer.0.attention.self.query"])
    assert np.array_equal(weights[node.input[1]], blocks_of(values, 32))
    assert np.array_equal(weights[node.input[2]], scales.T)
    assert np.array_equal(weights[node.input[3]], nibbles(np.ascontiguousarray(zeros.T)))


def test_without_neural_compressor_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "neural_compressor.torch.quantization", None)
    encoder = RandomBert(layers=1)(TEXTS, 8, 0)
    with pytest.raises(UsageError, match=r"^quantize.text: int4_gptq needs neural-compressor; pip install"):
        Int4Gptq().text(TextPart(encoder, tmp_path / "none.onnx", TEXTS), tmp_path / "out.onnx")


def test_equalization_by_hand() -> None:
    """Strength 1/2: s = sqrt(largest input / largest weight), per channel; a channel that was never on stays."""
    norm, reader = nn.LayerNorm(3), nn.Linear(3, 2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([8.0, 1.0, 5.0]))
        reader.weight.copy_(torch.tensor([[1.0, 4.0, 1.0], [-2.0, 1.0, 1.0]]))
        fold = Fold([norm], [reader])
        scale = fold.scale(torch.tensor([8.0, 1.0, 0.0]), 0.5)
        assert scale.tolist() == [2.0, 0.5, 1.0]
        fold.apply(scale)
    assert norm.weight.tolist() == [4.0, 2.0, 5.0]
    assert reader.weight.tolist() == [[2.0, 2.0, 1.0], [-4.0, 0.5, 1.0]]


@pytest.mark.parametrize("kind", ["random", "bert", "roberta", "llama", "qwen3"])
def test_equalization_changes_no_answer_and_evens_out_what_is_read(kind: str, lm_folder: Callable[..., Path]) -> None:
    if kind == "random":
        encoder = RandomBert(layers=2)(TEXTS, 8, 0)
    else:
        encoder = Pretrained(model=str(lm_folder(kind)))(TEXTS, 16, 0)
    with torch.no_grad():  # outlier channels, as language models have them
        first = next(folds(encoder.lm, encoder.family.causal)).makers[0]
        first.weight[:3] *= 30
    before = encoder.encode(TEXTS)
    changed = equalized(encoder, TEXTS, 0.5)
    np.testing.assert_allclose(changed.encode(TEXTS), before, atol=1e-5 * np.abs(before).max(), rtol=1e-5)
    assert np.array_equal(encoder.encode(TEXTS), before)  # the one given is as it was
    norm = next(folds(changed.lm, changed.family.causal)).makers[0]
    spreads = [float(part.weight.detach().abs().max() / part.weight.detach().abs().median()) for part in (norm, first)]
    assert spreads[0] < 0.5 * spreads[1]


def test_choice_of_maps_by_hand() -> None:
    """Losses add up; groups b (5) and d (3) are the worst of six."""
    losses = {"a": 1.0, "b1": 4.0, "b2": 1.0, "c": 0.5, "d": 3.0, "e": 0.2}
    groups = [["a"], ["b1", "b2"], ["c"], ["d"], ["e"]]
    asked: list[list[str]] = []

    def loss(names: list[str]) -> float:
        asked.append(names)
        return sum(losses[name] for name in names)

    choice = choose_maps(groups, loss, 2.0)
    assert (choice.quantized, choice.left_out) == (["a", "c", "e"], 2)
    assert choice.measured == len(asked) <= 1 + len(groups) + 3
    assert choose_maps(groups, loss, 10.0).measured == 1
    assert choose_maps(groups, loss, -1.0).quantized == []


def test_examples_are_of_the_training_part(film_dataset: Dataset) -> None:
    part = HistoryPart.of(random_model(film_dataset.n_items), film_dataset)
    known = [events for events in film_dataset.train_sequences() if len(events)]
    assert len(part.histories) == len(known)
    for row, events in zip(part.histories, known, strict=True):
        assert row[row > 0].tolist() == events[-10:].tolist()
    encoder = RandomBert(layers=1)(TEXTS, 8, 0)
    texts = TextPart.of(encoder, Path("none"), film_dataset).texts
    cold = {film_dataset.texts[row - 1] for row in film_dataset.cold_items}
    assert texts and cold and not cold & set(texts)
    assert spread(10, 4) == [0, 3, 6, 9] and spread(2, 4) == [0, 1] and spread(0, 4) == []
    widths = {feed["input_ids"].shape[1] for feed in TextPart(encoder, Path("none"), TEXTS * 5).feeds}
    assert len(widths) == 1


def test_questions_exclude_all_that_was_seen(film_dataset: Dataset) -> None:
    cases = film_dataset.cases("test")
    questions = Questions.of(cases, 2, 5)
    assert questions.histories.shape == (5, 2)
    for row, seen in zip(questions.exclude, cases.seen[:5], strict=True):
        assert row[row > 0].tolist() == seen.tolist()
    assert np.array_equal(questions.targets, cases.targets[:5])


def test_ndcg_and_neighbours_by_hand() -> None:
    assert ndcg_of(np.array([[4, 7], [1, 2], [9, 8]]), np.array([7, 1, 5], np.int32)) == pytest.approx(
        (1 / np.log2(3) + 1) / 3
    )
    line = np.array([[0.0, 1.0], [1.0, 0.1], [0.9, 0.0], [-1.0, 0.0]])
    assert neighbour_overlap(line, line, 1) == 1.0
    assert neighbour_overlap(line[:1], line[:1]) == 1.0
    assert neighbour_overlap(line[[0, 3, 2, 1]], line, 1) < 1.0


def test_a_quantizer_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="each quantizer once"):
        QuantizeConfig.model_validate({"text": ["int8_dynamic", {"name": "int8_dynamic", "reduce_range": False}]})


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e20])
def test_fake_weights_are_the_exported_ones_bit_for_bit(scale: float, tmp_path: Path) -> None:
    model = random_model(50, blocks=3, table_dim=6)
    with torch.no_grad():
        model.item_table *= scale
        model.encoder.blocks[0].up.weight[2] = 0.0
    Int8Dynamic().history(HistoryPart(model, np.ones((1, 10), np.int64)), tmp_path / "graph.onnx")
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "graph.onnx").graph.initializer}
    table = weights["item_table"].astype(np.float32) * weights["item_scales"]
    assert fake_rows(model.item_table.detach()).numpy().tobytes() == table.tobytes()
    linears = rounded_maps(model)
    assert len(linears) == 13
    maps = ("query", "key", "value", "output", "up", "down")
    names = ["lift.weight", *(f"block{block}.{part}.weight" for block in (0, 1) for part in maps)]
    for name, linear in zip(names, linears, strict=True):
        exported = weights[f"{name}_quantized"].astype(np.float32) * weights[f"{name}_scale"]
        assert np.array_equal(fake_outputs(linear.weight.detach()).numpy(), exported.T)


def test_gradient_passes_a_rounded_weight_whole() -> None:
    weight = torch.tensor([[63.0, -31.6, 1.4]], requires_grad=True)
    rounded = fake_rows(weight)
    assert rounded.tolist() == [[63.0, -32.0, 1.0]]
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1.0, 2.0, 3.0]]


def test_training_on_the_grid_ends_in_what_is_exported(
    build: Callable[..., Path], film_data: Path, film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    """What validates best on the grid is what ships; cold items and the fp32 graph stay."""
    before = load_sequence(film_inputs["prune/control:control:0"])
    assert before is not None
    training = Training(epochs=3, learning_rate=1e-2, weight_decay=0.0, warmup_epochs=0, validate_every=1)
    aware = QuantizationAware(training=training)
    options = RunOptions(threads=1)
    after = aware(before, film_dataset, seed_everything(0, options), options)
    cold = film_dataset.popularity == 0
    assert np.array_equal(before.item_table.detach().numpy()[cold], after.item_table.detach().numpy()[cold])
    on_grid = [
        validation_ndcg(Aware(deepcopy(m), warm_items(film_dataset), True), film_dataset) for m in (before, after)
    ]
    assert on_grid[1] >= on_grid[0]
    config = QuantizeConfig(history=(Int8PerRow(),), aware=aware)
    folder = build(quantize, config, data=film_data, prune=film_inputs["prune/control:control:0"])
    plain = film_inputs["quantize/control:control:0"]
    assert (folder / "history.fp32.onnx").read_bytes() == (plain / "history.fp32.onnx").read_bytes()
    stored = onnx.load(folder / "history.int8_per_row.onnx").graph.initializer
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}
    table = weights["item_table"].astype(np.float32) * weights["item_scales"]
    assert np.array_equal(table, fake_rows(after.item_table.detach()).numpy())


def test_a_training_step_moves_the_weights_behind_the_grid(film_dataset: Dataset) -> None:
    model = random_model(film_dataset.n_items)
    aware = Aware(model, warm_items(film_dataset), True)
    aware.scores(torch.tensor([[1, 2, 3]])).square().sum().backward()
    assert model.item_table.grad is not None and model.item_table.grad[aware.warm].abs().sum() > 0
    assert not model.item_table.grad[~aware.warm].any()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.blocks[0].query.parameters())


def test_a_mix_is_not_trained(film_dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"^quantize.aware: a mix is not trained as one model"):
        QuantizationAware()(Mix([], []), film_dataset, np.random.default_rng(0), RunOptions())
