"""The grids that weights are rounded to: one rule per grid, for exported graphs and training that imitates them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def quantize_rows(table: NDArray[np.float32], largest: int = 63) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(rows, dim) float32 -> int8 in [-largest, largest] and a scale per row: row ~ int8 * scale. Zero rows stay."""
    scales = np.abs(table).max(1) / float(largest)
    safe = np.where(scales > 0, scales, 1.0)[:, None]
    # denormal scales lose digits: the quotient can leave the range
    return np.rint(table / safe).clip(-largest, largest).astype(np.int8), scales.astype(np.float32)


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(in, out) float32 -> int8 (in, out) in [-63, 63] and a scale per output, (out,)."""
    values, scales = quantize_rows(np.ascontiguousarray(weight.T))
    return np.ascontiguousarray(values.T), scales


def activation_grid(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """The scale and zero point of uint8 over [low, high], widened to hold 0, which stays exact.

    Jacob et al. 2018, section 2.1. A range of nothing gets scale 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    if scale == 0:
        return np.float32(1.0), np.uint8(0)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def fake_rows(table: Tensor) -> Tensor:
    """`quantize_rows` and back, in torch: (rows, dim) float32 -> what the INT8 table stands for, bit for bit.

    The gradient passes as if nothing had been rounded (Bengio et al. 2013, section 4; Jacob et al. 2018, section 3).
    """
    with torch.no_grad():
        scales = table.abs().amax(1, keepdim=True) / 63.0
        safe = torch.where(scales > 0, scales, 1.0)
        rounded = (table / safe).round().clamp(-63, 63) * scales + 0.0  # integers have no -0
    return _straight_through(table, rounded)


def fake_outputs(weight: Tensor) -> Tensor:
    """The same for a linear map's (out, in) float32 weight on the grid of ONNX Runtime's `reduce_range` per output.

    Its arithmetic is in float64 until the scale is stored: a step is 2 |w| / 128, values stay inside [-64, 64].
    """
    with torch.no_grad():
        largest = weight.abs().amax(1, keepdim=True).double()
        scales = (2 * largest / 128).float()
        safe = torch.where(2 * largest / 128 >= torch.finfo(torch.float32).tiny, scales, 1.0)
        rounded = (weight / safe).round().clamp(-128, 127) * safe + 0.0
    return _straight_through(weight, rounded)


def _straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded`, exactly, and the gradient of `exact`: adding a difference would cost the last bit."""
    passed: Tensor = _StraightThrough.apply(exact, rounded)  # type: ignore[no-untyped-call]
    return passed


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, _exact: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
