"""Weights in 8 or 4 bits, activations as they are: nothing to calibrate, and no answer depends on the batch.

ONNX Runtime's MatMulNBits: a scale (and for 4 bits a zero point) for each block of a linear map's inputs, per output.
Look-up tables, half of a small text encoder, are stored in INT8 per row.
"""

from pathlib import Path
from typing import ClassVar, Literal

import onnx

from compress.quantize.parts import ScorePart, TextPart
from compress.quantize.surgery import marked, quiet, tables_to_int8
from compress.stage import Entry

BlockSize = Literal[16, 32, 64, 128, 256]


class _WeightOnly(Entry):
    bits: ClassVar[int]
    block_size: BlockSize = 32
    symmetric: bool = False
    accuracy_level: Literal[0, 1, 4] = 4  # ONNX Runtime's: 0 and 1 multiply in fp32, 4 in INT8, a scale per row

    def history(self, part: ScorePart, out: Path) -> None:
        """The encoder's linear maps; the item table in INT8 per item, as `int8_per_row` has it."""
        onnx.save(marked(self.packed(part.graph("int8", products=True))), out)

    def text(self, part: TextPart, out: Path) -> None:
        model = part.graph
        tables_to_int8(model)
        onnx.save(self.packed(model), out)

    def packed(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The same graph, its linear maps packed; the one given is changed."""
        with quiet():
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            quantizer = MatMulNBitsQuantizer(
                model,
                bits=self.bits,
                block_size=self.block_size,
                is_symmetric=self.symmetric,
                accuracy_level=self.accuracy_level,
                op_types_to_quantize=("MatMul",),
            )
            quantizer.process()
        packed: onnx.ModelProto = quantizer.model.model
        return packed


class Int8WeightOnly(_WeightOnly):
    """Linear maps' weights in 8 bits a block."""

    bits = 8
    name: Literal["int8_weight_only"] = "int8_weight_only"


class Int4WeightOnly(_WeightOnly):
    """Linear maps' weights in 4 bits a block; what is looked up stays INT8."""

    bits = 4
    name: Literal["int4_weight_only"] = "int4_weight_only"
