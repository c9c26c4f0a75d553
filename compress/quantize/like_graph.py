"""One ONNX graph from a rated history and an item to the log-odds of a like: `LikesHead` node by node.

The user's vector is the history graph's (`graph.py`); of the item table only the rows asked about are read. Nothing is
scaled over a batch, and as no INT8 rows are multiplied they may have 8 bits: coordinates near 0 stand beside leanings.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from compress.likes.model import LikesModel
from compress.likes.ratings import IMAGINED, UserLeaning
from compress.quantize.builder import GraphBuilder
from compress.quantize.graph import encode
from compress.quantize.tables import Table, item_table


def like_graph(model: LikesModel, table: Table = "fp32", products: bool = False) -> onnx.ModelProto:
    """history int64 (batch, length), liked bool (batch, length), items int64 (batch,), ratings int64 (batch, 2) ->
    logits float32 (batch,). A head that is not `rated` does not read `ratings`. The rest is as for `history_graph`."""
    g = GraphBuilder(products)
    sequence, head = model.sequence, model.head
    rows = item_table(g, sequence, table, largest=127)
    vectors = _rated(g, rows.look_up("history"), head.disliked.detach().cpu().numpy())
    user = encode(g, sequence, "history", vectors)
    agreed = g.add("Mul", user, rows.look_up("items", "asked"), name="agreed")
    logits = g.add("ReduceSum", agreed, g.ints(1), name="dot", keepdims=0)
    if head.leaning is not None:
        logits = g.add("Add", logits, _leaning(g, head.leaning), name="with_leaning")
    g.add("Add", logits, g.constant("bias", head.bias), name="logits")
    info = helper.make_tensor_value_info
    inputs = [
        info("history", TensorProto.INT64, ["batch", "length"]),
        info("liked", TensorProto.BOOL, ["batch", "length"]),
        info("items", TensorProto.INT64, ["batch"]),
        info("ratings", TensorProto.INT64, ["batch", 2]),
    ]
    return g.model(inputs, [info("logits", TensorProto.FLOAT, ["batch"])], "rated_history_to_logit")


def _rated(g: GraphBuilder, vectors: str, disliked: NDArray[np.float32]) -> str:
    """What enters the encoder, (batch, length, dim): a disliked item scaled and shifted. Padding is never looked at."""
    scaled = g.add("Mul", vectors, g.constant("disliked_scale", disliked[0]), name="disliked_scaled")
    shifted = g.add("Add", scaled, g.constant("disliked_shift", disliked[1]), name="disliked_vectors")
    liked = g.add("Unsqueeze", "liked", g.ints(2), name="liked_columns")
    padded = g.add("Equal", "history", g.constant("nothing", np.int64(0)), name="padded")
    as_is = g.add("Or", liked, g.add("Unsqueeze", padded, g.ints(2), name="padded_columns"), name="as_is")
    return g.add("Where", as_is, vectors, shifted, name="rated_vectors")


def _leaning(g: GraphBuilder, leaning: UserLeaning) -> str:
    """`UserLeaning`: (batch,)."""
    counts = g.add("Cast", "ratings", name="counts", to=TensorProto.FLOAT)
    each = g.add("Unsqueeze", counts, g.ints(1), name="counts_for_each")
    imagined = g.constant("imagined", np.array(IMAGINED, np.float32)[None, :, None])
    odds = g.add("Log", g.add("Add", each, imagined, name="smoothed"), name="log_counts")  # (batch, imagined, 2)
    likes, dislikes = (
        g.add("Gather", odds, g.constant(f"{name}_column", np.int64(column)), name=f"log_{name}", axis=2)
        for column, name in enumerate(("likes", "dislikes"))
    )
    against = g.add("Sub", likes, dislikes, name="log_odds")
    up, down = leaning.up, leaning.down
    weights = g.constant("leaning.up", up.weight.T), g.constant("leaning.shift", up.bias)
    hidden = g.add("Gelu", g.add("Gemm", against, *weights, name="leaning_up"), name="leaning_hidden")
    out = g.add("Gemm", hidden, g.constant("leaning.down", down.weight.T), name="leaning_down")
    return g.add("Squeeze", out, g.ints(1), name="leaning")
