"""The second graph: tokens of an item text -> item vector."""

import warnings
from pathlib import Path

import torch

from compress.models.encoder import ItemEncoder
from deploy.errors import UsageError

MOST_BYTES = 2**31 - 2**24
"""A protobuf message, which one ONNX file is, stays below 2 GiB; some of it is not weights."""


def export_text(encoder: ItemEncoder, out: Path) -> None:
    """input_ids, attention_mask (batch, tokens) int64 -> vectors (batch, dim) float32, as an ONNX file.

    The TorchScript exporter: the newer one takes 6 times as long and its graphs ran 4-14 % slower (docs/LOG.md).
    Raises UsageError where the weights do not fit into one file of the format.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values())
    if size > MOST_BYTES:
        raise UsageError(
            "quantize: one ONNX file holds less than 2 GiB of weights; drop layers by distil.student.layers, or skip "
            f"quantize for this variant (got {size / 2**30:.1f} GiB)"
        )
    ids, mask = encoder.eval().cpu().tokenize(["two texts of", "unequal length, the second longer"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its own retirement, and warns of traced constants that are meant
        torch.onnx.export(
            encoder,
            (ids, mask),
            out,
            dynamo=False,
            input_names=["input_ids", "attention_mask"],
            output_names=["vectors"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")}
            | {"vectors": {0: "batch"}},
            opset_version=18,
        )
