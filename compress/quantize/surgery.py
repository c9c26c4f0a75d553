"""Changing an exported graph's nodes: its linear maps and look-up tables are found and stored another way.

A linear map is a MatMul whose second input is a matrix of weights; a look-up table one that a Gather reads rows of.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.quantize.grids import activation_grid, quantize_columns, quantize_rows
from deploy.ranker import ONE_BY_ONE

Feed = Mapping[str, NDArray[Any]]
Range = tuple[float, float]


def linear_maps(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The MatMul nodes with float32 weights (in, out), in the graph's order."""
    matrices = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2}
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in matrices]


def map_groups(model: onnx.ModelProto) -> list[list[str]]:
    """Names of linear maps that read the same activations, which are quantized once for all of them."""
    groups: dict[str, list[str]] = {}
    for node in linear_maps(model):
        groups.setdefault(node.input[0], []).append(node.name)
    return list(groups.values())


def tables_to_int8(model: onnx.ModelProto) -> None:
    """Store float32 look-up tables in INT8 with a scale per row, in place. A table that anything else reads stays."""
    weights = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2}
    readers = Counter(name for node in model.graph.node for name in node.input)

    def replaced(node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        table = weights.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if table is None or axis or readers[table.name] > 1:
            return [node]
        values, scales = quantize_rows(numpy_helper.to_array(table))
        name, (rows, out) = table.name, (node.input[1], node.output[0])
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(values, f"{name}.int8"),
                numpy_helper.from_array(scales[:, None], f"{name}.scales"),
            ]
        )
        return [
            helper.make_node("Gather", [f"{name}.int8", rows], [f"{out}.int8"], name=f"{node.name}.int8"),
            helper.make_node("Gather", [f"{name}.scales", rows], [f"{out}.scales"], name=f"{node.name}.scales"),
            helper.make_node(
                "Cast", [f"{out}.int8"], [f"{out}.whole"], name=f"{node.name}.whole", to=TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{out}.whole", f"{out}.scales"], [out], name=node.name),
        ]

    replace_nodes(model, replaced)


def maps_to_qdq(model: onnx.ModelProto, names: Iterable[str], ranges: Mapping[str, Range]) -> None:
    """Store these linear maps in INT8 and let their inputs pass through uint8, in place. ranges: tensor -> (low, high).

    QuantizeLinear and DequantizeLinear around a float MatMul are how ONNX writes integer products; the runtime fuses.
    """
    chosen, seen = set(names), set[str]()
    weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def replaced(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.name not in chosen:
            yield node
            return
        x, name = node.input
        if x not in seen:
            seen.add(x)
            scale, zero = activation_grid(*ranges[x])
            model.graph.initializer.extend(
                [
                    numpy_helper.from_array(np.asarray(scale), f"{x}.grid_scale"),
                    numpy_helper.from_array(np.asarray(zero), f"{x}.grid_zero"),
                ]
            )
            parameters = [f"{x}.grid_scale", f"{x}.grid_zero"]
            yield helper.make_node("QuantizeLinear", [x, *parameters], [f"{x}.uint8"], name=f"{x}.quantize")
            yield helper.make_node("DequantizeLinear", [f"{x}.uint8", *parameters], [f"{x}.back"], name=f"{x}.back")
        if name not in seen:
            seen.add(name)
            values, scales = quantize_columns(numpy_helper.to_array(weights[name]))
            model.graph.initializer.extend(
                [numpy_helper.from_array(values, f"{name}.int8"), numpy_helper.from_array(scales, f"{name}.scales")]
            )
            stored = [f"{name}.int8", f"{name}.scales"]
            yield helper.make_node("DequantizeLinear", stored, [f"{name}.back"], name=f"{name}.back", axis=1)
        yield helper.make_node("MatMul", [f"{x}.back", f"{name}.back"], list(node.output), name=node.name)

    replace_nodes(model, replaced)


def scores_to_static(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
    """Give what DynamicQuantizeLinear scales per call a fixed grid, in place: answers no longer depend on the batch."""

    def replaced(node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        if node.op_type != "DynamicQuantizeLinear":
            return [node]
        whole, scale, zero = node.output
        grid = activation_grid(*ranges[node.input[0]])
        model.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for value, name in zip(grid, (scale, zero), strict=True)
        )
        return [helper.make_node("QuantizeLinear", [node.input[0], scale, zero], [whole], name=node.name)]

    replace_nodes(model, replaced)


def replace_nodes(
    model: onnx.ModelProto, replaced: Callable[[onnx.NodeProto], Iterable[onnx.NodeProto]]
) -> onnx.ModelProto:
    """Put what `replaced` gives in each node's place, and drop the weights that nothing reads any more, in place."""
    nodes = [new for node in list(model.graph.node) for new in replaced(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put each node after what it reads, in place, otherwise keeping their order: the format wants that."""
    known = {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input} | {""}
    waiting, nodes = list(model.graph.node), list[onnx.NodeProto]()
    while waiting:
        late: list[onnx.NodeProto] = []
        for node in waiting:
            ready = known.issuperset(node.input)
            (nodes if ready else late).append(node)
            known.update(node.output if ready else ())
        if len(late) == len(waiting):
            raise ValueError(f"{late[0].name} reads what no node writes")
        waiting = late
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def activations(model: onnx.ModelProto, wanted: Sequence[str], feeds: Iterable[Feed]) -> Iterator[list[NDArray[Any]]]:
    """The values of these tensors, inner ones too, for each feed."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    outputs = {value.name for value in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # sums in one order: the same bytes on every machine with as many cores or more
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        yield session.run(list(wanted), dict(feed))


def activation_ranges(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, Range]:
    """(smallest, largest) of all that linear maps and DynamicQuantizeLinear read, over the feeds."""
    read = [node.input[0] for node in linear_maps(model)]
    read += [node.input[0] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]
    wanted = list(dict.fromkeys(read))
    ranges = dict.fromkeys(wanted, (0.0, 0.0))
    for values in activations(model, wanted, feeds if wanted else ()):
        for name, value in zip(wanted, values, strict=True):
            low, high = ranges[name]
            ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return ranges


def marked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Tell the runtime where activations get one scale per call, so that it asks for one history or text at a time."""
    if not any(node.op_type == "DynamicQuantizeLinear" for node in model.graph.node):
        return model
    onnx.helper.set_model_props(model, {ONE_BY_ONE: "activations are scaled over the batch"})
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """ONNX Runtime's quantizers narrate to the root logger, one of them configures it: leave it as it was."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    disabled = root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)
        root.handlers[:] = handlers
