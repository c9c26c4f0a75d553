"""A LoRA adapter that a team has trained, merged into its language model when that is loaded (Hu et al. 2022, 4.1)."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from deploy.errors import UsageError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_BYTES = 4 << 30
FILES = (CONFIG, WEIGHTS)
WHERE = "pretrain.backbone.adapter"


class AdapterConfig(BaseModel):
    """What of peft's `adapter_config.json` decides the merge; what cannot be merged is refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    peft_type: Literal["LORA"]
    r: Annotated[int, Field(ge=1, le=4096)]
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    use_rslora: bool = False
    use_dora: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    bias: Literal["none"] = "none"
    modules_to_save: None = None
    alpha_pattern: dict[str, float] = Field(default={}, max_length=0)
    rank_pattern: dict[str, int] = Field(default={}, max_length=0)

    @property
    def scale(self) -> float:
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


def check_adapter(folder: Path) -> None:
    """Raises UsageError where a file is missing."""
    for name in FILES:
        if not (folder / name).is_file():
            wanted = " and ".join(FILES)
            raise UsageError(f"{WHERE}: a folder with {wanted} is expected; {name} is missing (got {folder})")


def merge_adapter(lm: nn.Module, folder: Path) -> int:
    """Add the adapter's low-rank products to the weights of `lm`, in place; returns how many maps changed.

    Adapters of a model with a task's head fit the bare model too: what stands before its modules' names is left out.
    Raises UsageError naming the tensor that does not fit.
    """
    check_adapter(folder)
    config = _config(folder / CONFIG)
    tensors = _tensors(folder / WEIGHTS)
    downs = {name.removesuffix(".lora_A.weight"): t for name, t in tensors.items() if name.endswith(".lora_A.weight")}
    others = [n for n in tensors if not n.endswith((".lora_A.weight", ".lora_B.weight"))]
    if others or not downs:
        got = (others or ["none"])[0][:100]
        raise UsageError(f"{folder / WEIGHTS}: pairs of lora_A and lora_B are expected (got {got!r})")
    for name, down in downs.items():
        up = tensors.get(f"{name}.lora_B.weight")
        linear = _linear(lm, name)
        if linear is None:
            raise UsageError(f"{folder / WEIGHTS}: the language model has no such linear map (got {name[:100]!r})")
        wanted = (config.r, linear.in_features), (linear.out_features, config.r)
        if up is None or (tuple(down.shape), tuple(up.shape)) != wanted:
            shapes = tuple(down.shape), None if up is None else tuple(up.shape)
            raise UsageError(f"{folder / WEIGHTS}, {name[:100]}: shapes {wanted} expected (got {shapes})")
        product = up.float() @ down.float() * config.scale
        if not torch.isfinite(product).all():
            raise UsageError(f"{folder / WEIGHTS}, {name[:100]}: weights are finite (got nan or infinity)")
        with torch.no_grad():
            linear.weight += product.to(linear.weight.dtype)
    return len(downs)


def _config(path: Path) -> AdapterConfig:
    try:
        return AdapterConfig.model_validate(json.loads(path.read_bytes()[:1_000_000]))
    except ValidationError as error:
        first: Any = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{path}: {field}: {first['msg']}; only plain LoRA is merged (got {first['input']!r})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({str(error)[:100]})") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES} bytes (got {size})")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: not a readable safetensors file ({str(error)[:200]})") from None


def _linear(lm: nn.Module, name: str) -> nn.Linear | None:
    """The module `name` says, under the shortest cut from its front that leads to one."""
    parts = name.removeprefix("base_model.model.").split(".")
    for start in range(len(parts)):
        try:
            found = lm.get_submodule(".".join(parts[start:]))
        except AttributeError:
            continue
        return found if isinstance(found, nn.Linear) else None
    return None
