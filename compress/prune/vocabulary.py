"""Vocabulary pruning: drop the tokens no item text needs, and their rows of the word embedding."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from compress.models.static import StaticEncoder
from compress.models.text import TextEncoder
from deploy.errors import UsageError

Spec = dict[str, Any]
"""A parsed `tokenizer.json`."""


@dataclass(frozen=True)
class VocabularyReport:
    """Rows of the word embedding before and after, and the parameters this saved."""

    before: int
    after: int
    parameters_saved: int


def prune_vocabulary(encoder: TextEncoder | StaticEncoder, texts: Sequence[str]) -> VocabularyReport:
    """Keep the tokens that `texts` use whole (not cut at max_tokens), in place; re-index tokenizer, LM and its config.

    Special and added tokens, single characters and their continuation pieces stay too: every text of characters that
    are pieces of their own still tokenizes without the unknown token. The texts given get the same token strings and
    vectors as before: WordPiece takes the longest piece and Unigram the likeliest path, and what they took all stays.
    Raises UsageError where the tokenizer's model is neither of the two.
    """
    spec: Spec = json.loads(encoder.tokenizer.to_str())
    kind = spec["model"]["type"]
    if kind not in _KEPT:
        raise UsageError(
            f"prune.vocabulary: can prune the tokenizers {' and '.join(sorted(_KEPT))} (got {kind}): leave it out"
        )
    kept = _used(spec, texts) | _KEPT[kind](spec["model"]) | _padding_and_before(encoder)
    order = _ordered(spec, kept)
    new = {old: index for index, old in enumerate(order)}
    encoder.tokenizer = Tokenizer.from_str(json.dumps(_reindexed(spec, new), ensure_ascii=False))
    if isinstance(encoder, StaticEncoder):
        before, width = encoder.table.shape
        encoder.keep_tokens(torch.tensor(order))
    else:
        words: nn.Embedding = encoder.lm.embeddings.word_embeddings
        before, width = words.num_embeddings, words.embedding_dim
        _slice_embedding(encoder.lm, order, new)
    return VocabularyReport(before, len(order), (before - len(order)) * width)


def _used(spec: Spec, texts: Sequence[str]) -> set[int]:
    """Ids of the whole texts (a word cut at max_tokens is found by its second half too) and of what frames a pair."""
    whole = Tokenizer.from_str(json.dumps({**spec, "truncation": None, "padding": None}))
    return {token for encoding in whole.encode_batch([*texts, ("", "")]) for token in encoding.ids}


def _kept_wordpiece(model: Spec) -> set[int]:
    prefix = model["continuing_subword_prefix"]
    single = {i for token, i in model["vocab"].items() if len(token.removeprefix(prefix)) == 1}
    return single | {model["vocab"][model["unk_token"]]}


def _kept_unigram(model: Spec) -> set[int]:
    """Also the least likely piece: the penalty of an unknown character is counted from its score."""
    vocabulary = model["vocab"]
    single = {i for i, (token, _) in enumerate(vocabulary) if len(token) == 1}
    if model.get("byte_fallback"):
        single |= {i for i, (token, _) in enumerate(vocabulary) if token in _BYTES}
    least = min(range(len(vocabulary)), key=lambda i: vocabulary[i][1])
    return single | {least} | ({model["unk_id"]} - {None})


_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_KEPT: Mapping[str, Callable[[Spec], set[int]]] = {"WordPiece": _kept_wordpiece, "Unigram": _kept_unigram}
"""Per tokenizer model: the ids that stay whatever the texts are."""


def _padding_and_before(encoder: TextEncoder | StaticEncoder) -> set[int]:
    """The padding id, which must not move where positions are counted from it (RoBERTa and its kin)."""
    padding = (encoder.tokenizer.padding or {}).get("pad_id", 0)
    counted = None if isinstance(encoder, StaticEncoder) else getattr(encoder.lm.embeddings, "padding_idx", None)
    return {padding} | (set(range(counted + 1)) if counted is not None else set())


def _ordered(spec: Spec, kept: set[int]) -> list[int]:
    """Old ids in their new order: the model's own, then the added ones, as `tokenizers` numbers them when it loads."""
    vocabulary = spec["model"]["vocab"]
    own = set(vocabulary.values()) if isinstance(vocabulary, dict) else set(range(len(vocabulary)))
    added = {token["id"] for token in spec["added_tokens"]}
    return [*sorted((kept | added) & own), *sorted(added - own)]


def _reindexed(spec: Spec, new: Mapping[int, int]) -> Spec:
    model, vocabulary = spec["model"], spec["model"]["vocab"]
    if isinstance(vocabulary, dict):
        by_id = {i: token for token, i in vocabulary.items()}
        pruned: Any = {by_id[old]: index for old, index in new.items() if old in by_id}
        model = {**model, "vocab": pruned}
    else:
        pruned = [vocabulary[old] for old in new if old < len(vocabulary)]
        model = {**model, "vocab": pruned, "unk_id": _moved(model["unk_id"], new)}
    padding = spec["padding"] and {**spec["padding"], "pad_id": new[spec["padding"]["pad_id"]]}
    added = [{**token, "id": new[token["id"]]} for token in spec["added_tokens"]]
    processor = _processor(spec["post_processor"], new)
    return {**spec, "model": model, "padding": padding, "added_tokens": added, "post_processor": processor}


def _processor(processor: Spec | None, new: Mapping[int, int]) -> Spec | None:
    if processor is None:
        return None
    kind = processor["type"]
    if kind == "Sequence":
        return {**processor, "processors": [_processor(inner, new) for inner in processor["processors"]]}
    if kind == "TemplateProcessing":
        special = {
            name: {**token, "ids": [new[old] for old in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return {**processor, "special_tokens": special}
    pairs: Spec = {name: [processor[name][0], new[processor[name][1]]] for name in ("sep", "cls") if name in processor}
    return {**processor, **pairs}


def _slice_embedding(lm: Any, order: Iterable[int], new: Mapping[int, int]) -> None:
    words: nn.Embedding = lm.embeddings.word_embeddings
    rows = words.weight.detach()[torch.tensor(list(order), device=words.weight.device)]
    padding = _moved(words.padding_idx, new)
    pruned = nn.Embedding(rows.shape[0], rows.shape[1], padding_idx=padding, _weight=rows)
    pruned.weight.requires_grad_(words.weight.requires_grad)
    lm.embeddings.word_embeddings = pruned
    lm.config.vocab_size = len(rows)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"):
        if getattr(lm.config, name, None) is not None:
            setattr(lm.config, name, _moved(getattr(lm.config, name), new))


def _moved(old: int | None, new: Mapping[int, int]) -> int | None:
    """The new id; None for none and for a token that is gone (a config may name one the tokenizer never emits)."""
    return None if old is None else new.get(old)
