"""Weights that Intel's neural-compressor rounds with examples at hand, packed for ONNX Runtime's MatMulNBits.

neural-compressor has no ONNX code of its own; here its grid (4-bit values, a scale and a zero point per block and
output) becomes MatMulNBits' inputs value for value. It is an extra, imported when asked for.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from compress.quantize.parts import TextPart
from compress.quantize.surgery import Feed, linear_maps, quiet, replace_nodes, tables_to_int8
from compress.quantize.weight_only import BlockSize, Int4WeightOnly
from compress.stage import Entry
from deploy.errors import UsageError

MISSING = (
    "quantize.text: int4_gptq needs neural-compressor; pip install 'slimrec[neural-compressor]' (got no such package)"
)


class Int4Gptq(Entry):
    """4 bits a block, each column's rounding error moved to the columns not rounded yet (GPTQ, Frantar et al. 2023).

    By neural-compressor, over texts of the training part; the head and look-up tables as `int4_weight_only` has them.
    Raises UsageError where neural-compressor is not installed.
    """

    name: Literal["int4_gptq"] = "int4_gptq"
    block_size: BlockSize = 32
    accuracy_level: Literal[0, 1, 4] = 4

    def text(self, part: TextPart, out: Path) -> dict[str, float]:
        packed = {name: (values, scales, zeros) for name, values, scales, zeros in self._rounded(part)}
        model = part.graph
        tables_to_int8(model)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        maps = {node.name: _key(numpy_helper.to_array(weights[node.input[1]])) for node in linear_maps(model)}

        def replaced(node: onnx.NodeProto) -> list[onnx.NodeProto]:
            found = packed.get(maps.get(node.name, b""))
            return [node] if found is None else [self._node(node, model, *found)]

        replace_nodes(model, replaced)
        rest = Int4WeightOnly(block_size=self.block_size, accuracy_level=self.accuracy_level)
        onnx.save(rest.packed(model), out)
        return {"map_groups": len(maps), "rounded_with_examples": len(packed)}

    def _rounded(
        self, part: TextPart
    ) -> Iterator[tuple[bytes, NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]]:
        """Of each linear map: its fp32 weight's key, values (in, out), scales and zero points (blocks, out)."""
        lm = deepcopy(part.language_model(self.name).lm).cpu().eval()
        keys = {name: _key(linear.weight.detach().numpy().T) for name, linear in _linears(lm)}
        for name, linear in _gptq(lm, part.feeds, self.block_size).items():
            yield keys[name], *unpacked(linear)

    def _node(
        self,
        node: onnx.NodeProto,
        model: onnx.ModelProto,
        values: NDArray[np.uint8],
        scales: NDArray[np.float32],
        zeros: NDArray[np.uint8],
    ) -> onnx.NodeProto:
        name = node.input[1]
        parts: dict[str, NDArray[Any]] = {
            f"{name}.int4": blocks_of(values, self.block_size),
            f"{name}.scales": np.ascontiguousarray(scales.T),
            f"{name}.zeros": nibbles(np.ascontiguousarray(zeros.T)),
        }
        model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in parts.items())
        sizes = {"K": values.shape[0], "N": values.shape[1], "bits": 4, "block_size": self.block_size}
        return helper.make_node(
            "MatMulNBits",
            [node.input[0], *parts],
            list(node.output),
            name=node.name,
            domain="com.microsoft",
            accuracy_level=self.accuracy_level,
            **sizes,
        )


def _gptq(lm: Any, feeds: list[Feed], block_size: int) -> dict[str, Any]:
    """The LM's linear maps after neural-compressor's GPTQ, by name. `lm` is changed."""
    with quiet(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            from neural_compressor.torch.quantization import GPTQConfig, convert, prepare
        except ImportError:
            raise UsageError(MISSING) from None
        lm.name_or_path = tempfile.gettempdir()  # it looks for a checkpoint, and asks the hub where no folder is named
        prepared = prepare(lm, GPTQConfig(bits=4, group_size=block_size, use_sym=False, use_layer_wise=False))
        with torch.no_grad():
            for feed in feeds:
                prepared(**{name: torch.from_numpy(array) for name, array in feed.items()})
        converted = convert(prepared)
    return {name: module for name, module in converted.named_modules() if hasattr(module, "qweight")}


def unpacked(linear: Any) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """A module that packs eight 4-bit values into each int32 -> values (in, out), scales and zeros (blocks, out).

    weight = (value - zero) * scale. Zero points are stored less one, as GPTQ's first implementation had it.
    """
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    values = (linear.qweight[:, None, :] >> shifts[None, :, None] & 15).flatten(0, 1)[: linear.in_features]
    zeros = ((linear.qzeros[:, :, None] >> shifts & 15) + 1 & 15).flatten(1)[:, : linear.out_features]
    return values.numpy().astype(np.uint8), linear.scales.float().numpy(), zeros.numpy().astype(np.uint8)


def blocks_of(values: NDArray[np.uint8], block_size: int) -> NDArray[np.uint8]:
    """4-bit values (in, out) -> MatMulNBits' (out, blocks, block_size / 2), two to a byte; the last block is padded."""
    padded = np.pad(values, ((0, -len(values) % block_size), (0, 0)))
    return nibbles(np.ascontiguousarray(padded.T).reshape(values.shape[1], -1, block_size))


def nibbles(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., n) of 4 bits -> (..., ceil(n / 2)) bytes, the earlier value in the lower half."""
    even = np.concatenate([values, np.zeros_like(values[..., :1])], -1) if values.shape[-1] % 2 else values
    packed: NDArray[np.uint8] = (even[..., 0::2] | (even[..., 1::2] << 4)).astype(np.uint8)
    return packed


def _linears(lm: Any) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in lm.named_modules() if isinstance(module, nn.Linear)]


def _key(weight: NDArray[np.float32]) -> bytes:
    """A weight (in, out) as what it is: the exporter's names do not tell which module a node came from."""
    return np.ascontiguousarray(weight).tobytes()
