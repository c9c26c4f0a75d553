"""How weights are stored in a graph: one registry entry per quantizer, each from fp32 to a graph file."""

import logging
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from pydantic import Field

from compress.models.mix import Mix
from compress.models.sequence import SequenceModel
from compress.quantize.graph import history_graph
from compress.stage import Entry, Shorthand
from deploy.ranker import ONE_BY_ONE


class Int8PerRow(Entry):
    """The item table in INT8 with a scale per item; the encoder, small beside it, stays fp32."""

    name: Literal["int8_per_row"] = "int8_per_row"

    def history(self, model: SequenceModel | Mix, out: Path) -> None:
        onnx.save(marked(history_graph(model, "int8")), out)


class Int8Dynamic(Entry):
    """ONNX Runtime's dynamic quantization of every linear map, per output channel; look-up tables INT8 as well.

    `reduce_range` keeps weights to 7 bits: correct and fast on CPUs without VNNI too.
    """

    name: Literal["int8_dynamic"] = "int8_dynamic"
    reduce_range: bool = True

    def history(self, model: SequenceModel | Mix, out: Path) -> None:
        """The item table per row, as `int8_per_row` has it: ONNX Runtime would give all items one scale."""
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "history.onnx"
            onnx.save(history_graph(model, "int8"), whole)
            self._quantize(whole, out, ["MatMul"])

    def text(self, fp32: Path, out: Path) -> None:
        self._quantize(fp32, out, ["MatMul", "Gather"])

    def _quantize(self, source: Path, out: Path, operators: list[str]) -> None:
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises on the root logger to preprocess; shapes here are inferred already
        try:
            quantize_dynamic(
                source,
                out,
                op_types_to_quantize=operators,
                per_channel=True,
                reduce_range=self.reduce_range,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
        onnx.save(marked(onnx.load(out)), out)


def marked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Tell the runtime that activations get one scale per call, so that it asks for one history or text at a time."""
    onnx.helper.set_model_props(model, {ONE_BY_ONE: "activations are scaled over the batch"})
    return model


HistoryQuantizer = Annotated[Int8PerRow | Int8Dynamic, Field(discriminator="name"), Shorthand]
TextQuantizer = Annotated[Int8Dynamic, Shorthand]
