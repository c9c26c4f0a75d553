"""Half precision: weights and activations in fp16, inputs and outputs as they were."""

import sys
import warnings
from pathlib import Path
from typing import Literal

import onnx

from compress.quantize.parts import ScorePart, TextPart
from compress.quantize.surgery import in_order
from compress.stage import Entry


class Half(Entry):
    """fp16, for devices that compute in it. A CPU converts back and forth: half the bytes, and slower.

    Scores are fp16 up to the top-k: of a large catalogue's best, ties are broken by row.
    """

    name: Literal["fp16"] = "fp16"

    def history(self, part: ScorePart, out: Path) -> None:
        onnx.save(half(part.graph()), out)

    def text(self, part: TextPart, out: Path) -> None:
        onnx.save(half(part.graph), out)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in fp16; what has no fp16 kernel anywhere (TopK) stays fp32 between casts."""
    path = list(sys.path)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    sys.path[:] = path  # importing the package puts its own folder there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of every weight below fp16's smallest
        converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return in_order(converted)
