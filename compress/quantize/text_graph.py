"""The second graph: tokens of an item text -> item vector."""

import warnings
from pathlib import Path

import torch

from compress.models.text import TextEncoder


def export_text(encoder: TextEncoder, out: Path) -> None:
    """input_ids, attention_mask (batch, tokens) int64 -> vectors (batch, dim) float32, as an ONNX file.

    The TorchScript exporter: the newer one takes 6 times as long and its graphs ran 4-14 % slower (docs/LOG.md).
    """
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
