"""The item table in a graph: how it is stored, looked up and scored against."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from onnx import TensorProto

from compress.models.sequence import SequenceModel
from compress.quantize.builder import GraphBuilder
from compress.quantize.grids import quantize_rows

Table = Literal["fp32", "int8", "int8_rescored"]


@dataclass(frozen=True)
class Scored:
    """`values`: scores of all items, (batch, n_items + 1), to be multiplied with the scalar `unit`, above 0, if any.

    `exact`, if any: rows (batch, m) -> their scores (batch, m), closer than those.
    """

    values: str
    unit: str | None = None
    exact: Callable[[str], str] | None = None


def item_table(g: GraphBuilder, model: SequenceModel, table: Table, largest: int = 63) -> "Fp32Table | Int8Table":
    """`largest`: see `quantize_rows`."""
    if table == "fp32":
        return Fp32Table(g, model)
    return (Int8Table if table == "int8" else RescoredTable)(g, model, largest)


class Fp32Table:
    """(n_items + 1, item_dim) float32, gathered from and multiplied with."""

    def __init__(self, g: GraphBuilder, model: SequenceModel) -> None:
        self.g, self.table = g, g.constant("item_table", model.item_table)

    def look_up(self, rows: str, name: str = "history") -> str:
        return self.g.add("Gather", self.table, rows, name=f"{name}_vectors", axis=0)

    def scores(self, user: str) -> Scored:
        return Scored(self.g.add("Gemm", user, self.table, name="all_scores", transB=1))


class Int8Table:
    """(n_items + 1, item_dim) int8 and a scale per item, so that one outlier item does not coarsen all others.

    7 bits: on CPUs without VNNI two products of 8-bit values overflow the 16 bits they are added in. ONNX Runtime
    transposes the table once, when it loads the graph.
    """

    def __init__(self, g: GraphBuilder, model: SequenceModel, largest: int) -> None:
        values, scales = quantize_rows(model.item_table.detach().cpu().numpy(), largest)
        self.g, self.table = g, g.constant("item_table", values)
        self.scales = g.constant("item_scales", scales[:, None])

    def look_up(self, rows: str, name: str = "history") -> str:
        return _scaled_rows(self.g, self.table, self.scales, rows, name)

    def scores(self, user: str) -> Scored:
        """The unit is the user vector's scale: order does not depend on it, and with it ONNX Runtime
        would fuse all into one DynamicQuantizeMatMul, which takes twice as long where every item has its own scale."""
        g = self.g
        columns = g.add("Transpose", self.table, name="item_columns", perm=[1, 0])
        per_item = g.add("Reshape", self.scales, g.ints(-1), name="item_scales_flat")
        whole = g.add("DynamicQuantizeLinear", user, name="user_uint8", outputs=3)
        product = g.add("MatMulInteger", whole, columns, f"{whole}_2", name="products")
        cast = g.add("Cast", product, name="products_float", to=TensorProto.FLOAT)
        return Scored(g.add("Mul", cast, per_item, name="all_scores"), f"{whole}_1")


class RescoredTable(Int8Table):
    """An `Int8Table` that is scanned, and a second one of what it rounded off, for the rows that are looked up alone.

    15 bits a number where the scan reads 7: the candidates that the scan finds are scored again with both.
    """

    def __init__(self, g: GraphBuilder, model: SequenceModel, largest: int) -> None:
        super().__init__(g, model, largest)
        table = model.item_table.detach().cpu().numpy()
        values, scales = quantize_rows(table, largest)
        rest, rest_scales = quantize_rows(table - values * scales[:, None], 127)
        self.rest, self.rest_scales = (
            g.constant("item_rest", rest),
            g.constant("item_rest_scales", rest_scales[:, None]),
        )

    def look_up(self, rows: str, name: str = "history") -> str:
        coarse = _scaled_rows(self.g, self.table, self.scales, rows, f"{name}_coarse")
        rest = _scaled_rows(self.g, self.rest, self.rest_scales, rows, f"{name}_rest")
        return self.g.add("Add", coarse, rest, name=f"{name}_vectors")

    def scores(self, user: str) -> Scored:
        g, coarse = self.g, super().scores(user)

        def exact(rows: str) -> str:
            column = g.add("Unsqueeze", user, g.ints(2), name="user_column")
            products = g.add("MatMul", self.look_up(rows, "candidate"), column, name="candidate_products")
            return g.add("Squeeze", products, g.ints(2), name="candidate_scores")

        return replace(coarse, exact=exact)


def _scaled_rows(g: GraphBuilder, table: str, scales: str, rows: str, name: str) -> str:
    """Rows of an int8 table and their scales -> float32 vectors."""
    whole = g.add("Gather", table, rows, name=f"{name}_int8", axis=0)
    scale = g.add("Gather", scales, rows, name=f"{name}_scales", axis=0)
    return g.add("Mul", g.add("Cast", whole, name=f"{name}_whole", to=TensorProto.FLOAT), scale, name=f"{name}_vectors")
