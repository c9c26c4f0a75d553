"""The model folder every stage of the chain hands to the next: `model.json` and the parts present."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import TextKind
from compress.models.encoder import ItemEncoder
from compress.models.mix import Mix
from compress.models.sequence import SequenceModel
from compress.models.static import TABLE, StaticEncoder
from compress.models.text import TextEncoder

PARTS = ("text", "sequence", "mix")


def write_model(
    out: Path,
    text: ItemEncoder | None = None,
    sequence: SequenceModel | None = None,
    mix: Mix | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    metrics: Mapping[str, Any] | None = None,
    **facts: Any,
) -> None:
    """Write a model folder into the empty `out`. `arrays` become `<name>.npy`, `facts` fields of `model.json`."""
    parts = {"text": text, "sequence": sequence, "mix": mix}
    for name, part in parts.items():
        if part is not None:
            part.save(out / name)
    for name, array in (arrays or {}).items():
        np.save(out / f"{name}.npy", array, allow_pickle=False)
    if metrics is not None:
        write_json(out / "metrics.json", metrics)
    write_json(out / "model.json", {"parts": [name for name in PARTS if parts[name] is not None], **facts})


def model_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(folder / "model.json")
    return facts


def load_text(folder: Path) -> TextEncoder | None:
    """A language model's text part, such as every teacher has; a student may have another: `load_item_encoder`."""
    return TextEncoder.load(folder / "text") if (folder / "text").exists() else None


def text_kind(folder: Path) -> TextKind:
    """What the text part is: a token table is static, with blocks over it contextual."""
    if not (folder / "text" / TABLE).exists():
        return "language_model"
    return "contextual" if read_json(folder / "text" / "shapes.json").get("blocks") else "static"


def load_item_encoder(folder: Path) -> TextEncoder | StaticEncoder | None:
    """The text part, whatever kind it is."""
    if text_kind(folder) != "language_model":
        return StaticEncoder.load(folder / "text")
    return load_text(folder)


def load_sequence(folder: Path) -> SequenceModel | None:
    return SequenceModel.load(folder / "sequence") if (folder / "sequence").exists() else None


def load_mix(folder: Path) -> Mix | None:
    return Mix.load(folder / "mix") if (folder / "mix").exists() else None


def load_scorer(folder: Path) -> SequenceModel | Mix | None:
    """What ranks: the mix where there is one, else the sequence model."""
    return load_mix(folder) or load_sequence(folder)


def load_array(folder: Path, name: str) -> NDArray[Any] | None:
    path = folder / f"{name}.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")
