"""GGUF files -> Hugging Face folders, once per file: fp32 safetensors load in seconds where a GGUF takes a minute."""

import json
import shutil
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from compress.store import file_sha256
from deploy.errors import UsageError

VERSION = 1  # of what is written here for the same file


def converted(file: Path) -> Path:
    """A folder with `config.json`, `model.safetensors` (fp32) and `tokenizer.json`, named by the file's SHA-256.

    It is made in slimrec's cache and renamed when whole. Raises UsageError where the file cannot be read as a model.
    """
    folder = Path.home() / ".cache" / "slimrec" / "models" / f"{file_sha256(file)}.v{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _convert(file, partial)
            partial.rename(folder)
    return folder


def _convert(file: Path, out: Path) -> None:
    try:
        lm = AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # whatever a malformed file makes the parsers raise
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"pretrain.backbone: cannot read {file.name} as a GGUF language model: {told}") from error
    config = lm.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(name, None)  # the weights are plain now, and a path says nothing on another machine
    (out / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (out / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), "utf-8")
    save_file({name: t.contiguous() for name, t in lm.state_dict().items()}, out / "model.safetensors")
