"""What carries training: Hugging Face `accelerate` holds the device, mixed precision and the backward step."""

from functools import lru_cache

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, is_bf16_available

from compress.stage import RunOptions
from deploy.errors import UsageError


def accelerator(options: RunOptions) -> Accelerator:
    """This process's accelerator for the device of `options`.

    accelerate keeps one state per process and refuses a second precision, while one process trains many stages. So it
    is made for bf16 wherever the device has it, and `precision` says of each training whether it is used.
    """
    return _accelerator(options.device == "cpu")


def device_of(options: RunOptions) -> torch.device:
    """Where modules and batches go."""
    device: torch.device = accelerator(options).device
    return device


@lru_cache
def _accelerator(cpu: bool) -> Accelerator:
    return Accelerator(cpu=cpu, mixed_precision="bf16" if cpu or is_bf16_available() else "no")


def precision(engine: Accelerator, name: str) -> AutocastKwargs:
    """`fp32` or `bf16` -> what `engine.autocast` takes. Raises UsageError where the device has no bf16."""
    if name == "bf16" and engine.mixed_precision != "bf16":
        raise UsageError(f"training.precision: {engine.device} has no bf16; use fp32 (got 'bf16')")
    return AutocastKwargs(enabled=name == "bf16")
