"""One ONNX graph from history to top-k, written node by node so that the item table is in it once.

`torch.onnx.export` stores a table twice when it is both looked up and scored against, and takes a hundred times as long
for this small architecture. Equality with torch is checked for every graph (`parity.py`).
"""

from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.models.mix import ItemItem, Member, MemberFacts, Mix
from compress.models.sequence import Block, SequenceModel
from compress.quantize.builder import GraphBuilder
from compress.quantize.tables import Scored, Table, item_table

MASKED = -1e4
MORE = 20
"""`int8_rescored` looks at twice as many candidates as are asked for, and at so many more."""


def history_graph(
    model: SequenceModel | Mix, table: Table = "fp32", vectors_given: bool = False, products: bool = False
) -> onnx.ModelProto:
    """history (batch, length), exclude (batch, m), k (1,) int64 -> scores float32, rows int64, (batch, k) best first.

    `table` says how item tables are stored. With `vectors_given` the history's vectors are an input, (batch, length,
    dim) float32, in place of the look-up: a teacher that reads texts when asked. `products`: see `GraphBuilder`.
    """
    g = GraphBuilder(products)
    if isinstance(model, Mix):
        scored = Scored(_mixed_scores(g, model, table, vectors_given))
    else:
        scored = _sequence_scores(g, model, "history", table, "vectors" if vectors_given else None)
    padding = g.add("Sub", "history", "history", name="padding_rows")  # row 0, which is always excluded
    excluded = g.add("Concat", padding, "history", "exclude", name="excluded", axis=1)
    nothing = g.add(
        "ConstantOfShape",
        g.add("Shape", excluded, name="excluded_shape"),
        name="nothing",
        value=numpy_helper.from_array(np.array([-np.inf], np.float32)),
    )
    allowed = g.add("ScatterElements", scored.values, excluded, nothing, name="allowed", axis=1)
    _best_of(g, allowed, scored)
    info = helper.make_tensor_value_info
    inputs = [info("history", TensorProto.INT64, ["batch", "length"])]
    if vectors_given:
        inputs.append(info("vectors", TensorProto.FLOAT, ["batch", "length", text_dim(model)]))
    inputs += [info("exclude", TensorProto.INT64, ["batch", "m"]), info("k", TensorProto.INT64, [1])]
    outputs = [info("scores", TensorProto.FLOAT, ["batch", "top"]), info("rows", TensorProto.INT64, ["batch", "top"])]
    return g.model(inputs, outputs)


def _best_of(g: GraphBuilder, allowed: str, scored: Scored) -> None:
    """The outputs `scores` and `rows`."""

    def top(values: str, k: str, best: str, places: str) -> None:
        g.nodes.append(
            helper.make_node("TopK", [values, k], [best, places], name=f"top_{k}", axis=1, largest=1, sorted=1)
        )

    if scored.exact is not None:
        wanted = g.add("Add", g.add("Add", "k", "k", name="twice_k"), g.ints(MORE), name="wanted")
        items = g.add("Shape", allowed, name="items", start=1, end=2)
        top(allowed, g.add("Min", wanted, items, name="candidates"), "coarse", "candidate_rows")
        never = g.constant("never", np.float32(-np.inf))
        closed = g.add("Equal", "coarse", never, name="closed")
        open_ = g.add("Where", closed, never, scored.exact("candidate_rows"), name="rescored")
        top(open_, "k", "scores", "places")
        g.nodes.append(helper.make_node("GatherElements", ["candidate_rows", "places"], ["rows"], name="rows", axis=1))
    elif scored.unit is None:
        top(allowed, "k", "scores", "rows")
    else:
        top(allowed, "k", "best", "rows")
        g.nodes.append(helper.make_node("Mul", ["best", scored.unit], ["scores"], name="in_units"))


def text_dim(model: SequenceModel | Mix) -> int | None:
    """The width of the vectors that a text encoder may give in place of the look-up; None where nothing reads them."""
    if isinstance(model, SequenceModel):
        return model.shape.item_dim
    return next((m.shape.item_dim for m, f in _parts(model) if f.reads_text and isinstance(m, SequenceModel)), None)


def _parts(mix: Mix) -> list[tuple[Member, MemberFacts]]:
    return list(zip(mix.each_member(), mix.facts, strict=True))


def _mixed_scores(g: GraphBuilder, mix: Mix, table: Table, vectors_given: bool) -> str:
    """Each member's nodes in a scope of its own; (batch, n_items + 1)."""
    weighted = []
    for index, (member, fact) in enumerate(_parts(mix)):
        g.scope = f"member{index}."
        own = _newest_events(g, "history", member.max_history)
        if isinstance(member, SequenceModel):
            given = _newest_events(g, "vectors", member.max_history) if vectors_given and fact.reads_text else None
            scored = _sequence_scores(g, member, own, table, given)
            unit = scored.unit
            scores = scored.values if unit is None else g.add("Mul", scored.values, unit, name="in_units")
        elif isinstance(member, ItemItem):
            rows = g.add("Gather", g.constant("item_item", member.weights), own, name="item_rows", axis=0)
            scores = g.add("ReduceSum", rows, g.ints(1), name="all_scores", keepdims=0)
        else:
            scores = g.constant("item_bias", member.bias[None])
        weighted.append(g.add("Mul", scores, g.constant("weight", np.float32(fact.weight)), name="weighted"))
    g.scope = ""
    return g.add("Sum", *weighted, name="all_scores")


def _newest_events(g: GraphBuilder, events: str, most: int) -> str:
    return g.add("Slice", events, g.ints(-most), g.ints(2**62), g.ints(1), name=events)


def _sequence_scores(g: GraphBuilder, model: SequenceModel, history: str, table: Table, vectors: str | None) -> Scored:
    items = item_table(g, model, table)
    return items.scores(encode(g, model, history, items.look_up(history) if vectors is None else vectors))


def encode(g: GraphBuilder, model: SequenceModel, history: str, vectors: str) -> str:
    """The nodes of `SequenceEncoder.last`: (batch, length, item_dim) -> user vectors (batch, item_dim)."""
    g.add("Shape", history, name="length", start=1, end=2)
    known = g.add("Greater", history, g.constant("zero", np.int64(0)), name="known")
    hidden = g.unbiased(vectors, model.encoder.lift, "lift")
    *earlier, final = model.encoder.each_block()
    if earlier:
        known_to_each = g.add("Unsqueeze", known, g.ints(1, 2), name="known_to_each")
        for index, block in enumerate(earlier):
            hidden = _block(g, block, hidden, known_to_each, f"block{index}")
    known_to_newest = g.add("Unsqueeze", known, g.ints(1), name="known_to_newest")
    newest = _newest(g, final, hidden, known_to_newest, f"block{len(earlier)}")
    normed = g.layer_norm(newest, model.encoder.norm, "user")
    return g.unbiased(normed, model.encoder.project, "user_projected", flat=True)


def _block(g: GraphBuilder, block: Block, hidden: str, known: str, name: str) -> str:
    """A block over all events: (batch, length, dim) -> the same. known: (batch, 1, 1, length) bool."""
    normed = g.layer_norm(hidden, block.attention_norm, f"{name}.attention_norm")
    query = _heads(g, block, g.linear(normed, block.query, f"{name}.query"), f"{name}.query_heads", [0, 2, 1, 3])
    key = _heads(g, block, g.linear(normed, block.key, f"{name}.key"), f"{name}.key_heads", [0, 2, 3, 1])
    value = _heads(g, block, g.linear(normed, block.value, f"{name}.value"), f"{name}.value_heads", [0, 2, 1, 3])
    scaling = g.constant(f"{name}.scaling", np.float32(block.head_dim**-0.5))
    similarity = g.add("MatMul", query, key, name=f"{name}.similarity")
    scaled = g.add("Mul", similarity, scaling, name=f"{name}.scaled")
    mixed = g.add("MatMul", _attention(g, scaled, _biases(g, block, name), known, name), value, name=f"{name}.mixed")
    by_event = g.add("Transpose", mixed, name=f"{name}.by_event", perm=[0, 2, 1, 3])
    flat = g.add("Reshape", by_event, g.ints(0, 0, block.heads * block.head_dim), name=f"{name}.flat")
    return _feed_forward(g, block, hidden, g.linear(flat, block.output, f"{name}.output"), name, g.linear)


def _heads(g: GraphBuilder, block: Block, x: str, name: str, order: list[int]) -> str:
    split = g.add("Reshape", x, g.ints(0, 0, block.heads, block.head_dim), name=f"{name}_split")
    return g.add("Transpose", split, name=name, perm=order)


def _biases(g: GraphBuilder, block: Block, name: str) -> str:
    """The bias by distance, the future masked, cut to the history: (heads, length, length)."""
    by_distance = block.distance_bias.detach().cpu().numpy()
    steps = np.arange(by_distance.shape[1])
    distance = steps[:, None] - steps[None, :]
    square = np.where(distance >= 0, by_distance[:, np.maximum(distance, 0)], MASKED).astype(np.float32)
    whole = g.constant(f"{name}.distance_bias", square)
    twice = g.add("Concat", f"{g.scope}length", f"{g.scope}length", name=f"{name}.bias_end", axis=0)
    return g.add("Slice", whole, g.ints(0, 0), twice, g.ints(1, 2), name=f"{name}.bias")


def _newest(g: GraphBuilder, block: Block, hidden: str, known: str, name: str) -> str:
    """The last block for the newest event alone: (batch, length, dim) -> (batch, dim). known: (batch, 1, length) bool.

    One event asks, so no event needs a key or a value of its own: see `absorbed`. Two dimensions, so that a linear map
    and its bias are one node.
    """
    normed = g.layer_norm(hidden, block.attention_norm, f"{name}.attention_norm")
    newest = g.constant("newest", np.int64(-1))
    residual = g.add("Gather", hidden, newest, name=f"{name}.newest", axis=1)
    asked = g.add("Gather", normed, newest, name=f"{name}.newest_normed", axis=1)
    asks, answers = absorbed(block)
    dim = block.query.in_features
    query = g.flat_linear(asked, asks, f"{name}.query")
    query = g.add("Reshape", query, g.ints(0, block.heads, dim), name=f"{name}.query_heads")
    events = g.add("Transpose", normed, name=f"{name}.events", perm=[0, 2, 1])
    similarity = g.add("MatMul", query, events, name=f"{name}.similarity")
    weights = _attention(g, similarity, _newest_bias(g, block, name), known, name)
    mixed = g.add("MatMul", weights, normed, name=f"{name}.mixed")
    flat = g.add("Reshape", mixed, g.ints(0, block.heads * dim), name=f"{name}.flat")
    return _feed_forward(g, block, residual, g.flat_linear(flat, answers, f"{name}.output"), name, g.flat_linear)


def absorbed(block: Block) -> tuple[nn.Linear, nn.Linear]:
    """(query, output) of attention whose keys and values are the normed events themselves, for each head.

    A key's map goes into the query, q . (Wk n) = (Wk^T q) . n, with the scaling; a value's into the output, after the
    weighted sum (DeepSeek-V2, section 2.1.2, "absorbed"). A key's bias adds the same to every event, which the softmax
    does not see; a value's passes through it, since weights sum to 1. Query: dim -> heads * dim; output: back.
    """
    heads, size, dim = block.heads, block.head_dim, block.query.in_features
    with torch.no_grad():
        query, key, value = (
            part.weight.double().view(heads, size, dim) for part in (block.query, block.key, block.value)
        )
        output = block.output.weight.double().view(dim, heads, size)
        asks, answers = nn.Linear(dim, heads * dim), nn.Linear(heads * dim, dim)
        scaled_key = key * size**-0.5
        asks.weight.copy_(torch.einsum("hsk,hsq->hkq", scaled_key, query).flatten(0, 1))
        asks.bias.copy_(torch.einsum("hsk,hs->hk", scaled_key, block.query.bias.double().view(heads, size)).flatten())
        answers.weight.copy_(torch.einsum("ohs,hsv->ohv", output, value).flatten(1))
        answers.bias.copy_(block.output.bias + block.output.weight @ block.value.bias)
    return asks, answers


def _newest_bias(g: GraphBuilder, block: Block, name: str) -> str:
    """The bias by distance from the newest event, cut to the history: (heads, length)."""
    start = g.add("Neg", f"{g.scope}length", name=f"{name}.bias_start")
    whole = g.constant(f"{name}.distance_bias", block.distance_bias.detach().cpu().numpy()[:, ::-1])
    end = g.constant("end", np.array([2**62], np.int64))
    return g.add("Slice", whole, start, end, g.ints(1), name=f"{name}.bias")


def _attention(g: GraphBuilder, similarity: str, bias: str, known: str, name: str) -> str:
    """How much each event is listened to; padding, where anything is known, not at all."""
    masked = g.constant("masked", np.float32(MASKED))
    shown = g.add("Add", similarity, g.add("Where", known, bias, masked, name=f"{name}.shown"), name=f"{name}.biased")
    return g.add("Softmax", shown, name=f"{name}.attention", axis=-1)


def _feed_forward(
    g: GraphBuilder, block: Block, residual: str, output: str, name: str, linear: Callable[[str, nn.Linear, str], str]
) -> str:
    attended = g.add("Add", residual, output, name=f"{name}.attended")
    up = linear(g.layer_norm(attended, block.neuron_norm, f"{name}.neuron_norm"), block.up, f"{name}.up")
    down = linear(g.add("Gelu", up, name=f"{name}.gelu"), block.down, f"{name}.down")
    return g.add("Add", attended, down, name=f"{name}.out")
