"""A small BERT with random weights over the words of the data: for tests and for the tiny recipe."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from compress.models.family import BERT, Family
from compress.models.sequence import BlockShape
from compress.models.text import TextEncoder, TextShape
from compress.models.tokens import bounded
from compress.stage import Entry


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

    def family(self) -> Family:
        return BERT

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
