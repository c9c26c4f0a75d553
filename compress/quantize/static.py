"""Static quantization: activations on grids that calibration fixed, so that no answer depends on the batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnx
from pydantic import Field

from compress.quantize.equalize import equalized
from compress.quantize.parity import centred_cosine
from compress.quantize.parts import ScorePart, TextPart
from compress.quantize.sensitivity import Choice, choose_maps
from compress.quantize.surgery import (
    Feed,
    activation_ranges,
    activations,
    map_groups,
    maps_to_qdq,
    scores_to_static,
    tables_to_int8,
)
from compress.quantize.text_graph import export_text
from compress.stage import Entry

Report = dict[str, float]
MEASURED_BATCHES = 2


class _Static(Entry):
    centred_cosine: Annotated[float, Field(ge=0.0, le=1.0)] = 0.98

    def _quantize_text(self, model: onnx.ModelProto, part: TextPart, out: Path) -> Report:
        ranges = activation_ranges(model, part.feeds)
        tables_to_int8(model)
        return self._quantize(model, part.feeds, ranges, "vectors", part.graph, out)

    def _quantize(
        self,
        model: onnx.ModelProto,
        feeds: Sequence[Feed],
        ranges: dict[str, tuple[float, float]],
        answer: str,
        fp32: onnx.ModelProto,
        out: Path,
    ) -> Report:
        groups = map_groups(model)
        some = feeds[:MEASURED_BATCHES]
        expected = np.concatenate([values[0] for values in activations(fp32, [answer], some)])

        def quantized(names: list[str]) -> onnx.ModelProto:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            maps_to_qdq(copy, names, ranges)
            return copy

        def loss(names: list[str]) -> float:
            found = np.concatenate([values[0] for values in activations(quantized(names), [answer], some)])
            return 1 - centred_cosine(found, expected)

        choice = choose_maps(groups, loss, 1 - self.centred_cosine) if groups else Choice([], 0, 0)
        onnx.save(quantized(choice.quantized), out)
        return {"map_groups": len(groups), "left_out": choice.left_out, "measured": choice.measured}


class Int8Static(_Static):
    """Linear maps in INT8 per output, their inputs in uint8 between the extremes that calibration saw.

    Which maps stay fp32 is measured (`sensitivity.py`): the worst are left out until answers on calibration examples
    have at least `centred_cosine` with fp32's. Look-up tables are INT8 per row.
    """

    name: Literal["int8_static"] = "int8_static"

    def history(self, part: ScorePart, out: Path) -> Report:
        """What is compared are the scores of all items."""
        model = part.graph("int8", products=True)
        ranges = activation_ranges(model, part.feeds)
        scores_to_static(model, ranges)
        return self._quantize(model, part.feeds, ranges, part.answer, part.graph(), out)

    def text(self, part: TextPart, out: Path) -> Report:
        return self._quantize_text(part.graph, part, out)


class Int8Smooth(_Static):
    """`int8_static` after large activations were moved into weights (SmoothQuant, Xiao et al. 2023, section 4)."""

    name: Literal["int8_smooth"] = "int8_smooth"
    strength: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5

    def text(self, part: TextPart, out: Path) -> Report:
        smooth = out.with_suffix(".smooth")
        export_text(equalized(part.language_model(self.name), part.texts, self.strength), smooth)
        try:
            return self._quantize_text(onnx.load(smooth), part, out)
        finally:
            smooth.unlink()
