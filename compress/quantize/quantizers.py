"""How weights are stored in a graph: one registry entry per quantizer, each from a model's part to a graph file.

What stands before the first underscore of a name is the precision it is listed under. A quantizer may return figures
about what it did, for the parity report.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from pydantic import Field

from compress.quantize.compressor import Int4Gptq
from compress.quantize.half import Half
from compress.quantize.parts import ScorePart, TextPart
from compress.quantize.static import Int8Smooth, Int8Static
from compress.quantize.surgery import marked, quiet
from compress.quantize.weight_only import Int4WeightOnly, Int8WeightOnly
from compress.stage import Entry, Shorthand


class Int8PerRow(Entry):
    """The item table in INT8 with a scale per item; the encoder, small beside it, stays fp32."""

    name: Literal["int8_per_row"] = "int8_per_row"

    def history(self, part: ScorePart, out: Path) -> None:
        onnx.save(marked(part.graph("int8")), out)


class Int8Rescored(Entry):
    """`int8_per_row`, whose best candidates are scored again by a second INT8 table of what the first rounded off.

    For large catalogues: the scan reads no more, the file has twice the table, and the order is fp32's nearly always.
    """

    name: Literal["int8_rescored"] = "int8_rescored"

    def history(self, part: ScorePart, out: Path) -> None:
        onnx.save(marked(part.graph("int8_rescored")), out)


class Int8Dynamic(Entry):
    """ONNX Runtime's dynamic quantization of every linear map, per output channel; look-up tables INT8 as well.

    `reduce_range` keeps weights to 7 bits: correct and fast on CPUs without VNNI too.
    """

    name: Literal["int8_dynamic"] = "int8_dynamic"
    reduce_range: bool = True

    def history(self, part: ScorePart, out: Path) -> None:
        """The item table per row, as `int8_per_row` has it: ONNX Runtime would give all items one scale."""
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "history.onnx"
            onnx.save(part.graph("int8"), whole)
            self._quantize(whole, out, ["MatMul"])

    def text(self, part: TextPart, out: Path) -> None:
        self._quantize(part.fp32, out, ["MatMul", "Gather"])

    def _quantize(self, source: Path, out: Path, operators: list[str]) -> None:
        with quiet():  # it advises on the root logger to preprocess; shapes here are inferred already
            quantize_dynamic(
                source,
                out,
                op_types_to_quantize=operators,
                per_channel=True,
                reduce_range=self.reduce_range,
                weight_type=QuantType.QInt8,
            )
        onnx.save(marked(onnx.load(out)), out)


HistoryQuantizer = Annotated[
    Int8PerRow | Int8Rescored | Int8Dynamic | Int8WeightOnly | Int4WeightOnly | Int8Static | Half,
    Field(discriminator="name"),
    Shorthand,
]
TextQuantizer = Annotated[
    Int8Dynamic | Int8WeightOnly | Int4WeightOnly | Int4Gptq | Int8Static | Int8Smooth | Half,
    Field(discriminator="name"),
    Shorthand,
]
