"""What a graph can be timed on: one code path, which a device enters by its name and ONNX Runtime's providers."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from deploy.ranker import CPU, CUDA, open_session

Choice = Literal["cpu", "cuda", "auto"]


@dataclass(frozen=True)
class Device:
    """`providers`: the first is timed, the rest is what ONNX Runtime may fall back to. `memory`: ONNX Runtime's name of
    where its tensors lie. `extra`: what installs it."""

    name: str
    providers: tuple[str, ...]
    memory: str = "cpu"
    extra: str = ""

    def why_absent(self, graph: Path) -> str | None:
        """Why `graph` cannot be timed on it, None where it can. Raises UsageError where the graph cannot be loaded."""
        wanted = self.providers[0]
        if wanted not in ort.get_available_providers():
            return f"this onnxruntime has no {wanted}" + (f"; install {self.extra}" if self.extra else "")
        # ONNX Runtime falls back without an error where the provider finds no device.
        if wanted not in open_session(graph, providers=self.providers).get_providers():
            return f"no {self.name.upper()} device"
        return None


DEVICES = {device.name: device for device in (Device("cpu", CPU), Device("cuda", CUDA, "cuda", "slimrec[gpu]"))}


def chosen(choice: Choice) -> list[Device]:
    """`auto` is all of them: an absent one is told with its reason."""
    return list(DEVICES.values()) if choice == "auto" else [DEVICES[choice]]


_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


def used_memory_mb(
    providers: Sequence[str], run: Callable[..., "subprocess.CompletedProcess[str]"] = subprocess.run
) -> float | None:
    """MB (10^6 bytes) in use on the first NVIDIA GPU, by all processes together; None where the providers do not start
    with CUDA, or where the driver does not tell."""
    if providers[0] != CUDA[0]:
        return None
    try:
        done = run(_NVIDIA_SMI, capture_output=True, text=True, timeout=30, check=True)
        return float(done.stdout.split()[0]) * 2**20 / 1e6
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
