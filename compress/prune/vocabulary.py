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
from compress.prune.bpe import BYTES, Spec, merges_among, pieces_needed
from deploy.errors import UsageError


@dataclass(frozen=True)
class VocabularyReport:
    """Rows of the word embedding before and after, and the parameters this saved."""

    before: int
    after: int
    parameters_saved: int


def prune_vocabulary(encoder: TextEncoder | StaticEncoder, texts: Sequence[str]) -> VocabularyReport:
    """Keep the tokens that `texts` use whole (not cut at max_tokens), in place; re-index tokenizer, LM and its config.

    Special and added tokens, single characters, bytes and continuation pieces stay too: every text of characters that
    are pieces of their own still tokenizes without the unknown token. The texts given get the same token strings and
    vectors as before: WordPiece takes the longest piece, Unigram the likeliest path and BPE the earliest merges, and
    what they took all stays. Raises UsageError for tokenizers of any other kind.
    """
    spec: Spec = json.loads(encoder.tokenizer.to_str())
    _check(spec["model"])
    used = _used(spec, texts)
    kept = used | _KEPT[spec["model"]["type"]](spec, used) | _padding_and_before(encoder)
    order = _ordered(spec, kept)
    new = {old: index for index, old in enumerate(order)}
    encoder.tokenizer = Tokenizer.from_str(json.dumps(_reindexed(spec, new), ensure_ascii=False))
    if isinstance(encoder, StaticEncoder):
        before, width = encoder.table.shape
        encoder.keep_tokens(torch.tensor(order))
    else:
        before, width = encoder.word_table.weight.shape
        _slice_embedding(encoder, order, new)
    return VocabularyReport(before, len(order), (before - len(order)) * width)


def _check(model: Spec) -> None:
    kind = model["type"]
    if kind not in _KEPT:
        raise UsageError(
            f"prune.vocabulary: can prune the tokenizers {', '.join(sorted(_KEPT))} (got {kind}): leave it out"
        )
    marks = kind == "BPE" and (model["continuing_subword_prefix"] or model["end_of_word_suffix"])
    if marks:
        raise UsageError(
            f"prune.vocabulary: BPE whose pieces are marked cannot be pruned (got {marks!r}): leave it out"
        )


def _used(spec: Spec, texts: Sequence[str]) -> set[int]:
    """Ids of the whole texts (a word cut at max_tokens is found by its second half too) and of what frames a pair."""
    whole = Tokenizer.from_str(json.dumps({**spec, "truncation": None, "padding": None}))
    return {token for encoding in whole.encode_batch([*texts, ("", "")]) for token in encoding.ids}


def _kept_wordpiece(spec: Spec, _: set[int]) -> set[int]:
    model = spec["model"]
    prefix = model["continuing_subword_prefix"]
    single = {i for token, i in model["vocab"].items() if len(token.removeprefix(prefix)) == 1}
    return single | {model["vocab"][model["unk_token"]]}


def _kept_unigram(spec: Spec, _: set[int]) -> set[int]:
    """Also the least likely piece: the penalty of an unknown character is counted from its score."""
    model = spec["model"]
    vocabulary = model["vocab"]
    single = {i for i, (token, _) in enumerate(vocabulary) if len(token) == 1}
    if model.get("byte_fallback"):
        single |= {i for i, (token, _) in enumerate(vocabulary) if token in BYTES}
    least = min(range(len(vocabulary)), key=lambda i: vocabulary[i][1])
    return single | {least} | ({model["unk_id"]} - {None})


def _kept_bpe(spec: Spec, used: set[int]) -> set[int]:
    return pieces_needed(spec["model"], used - {token["id"] for token in spec["added_tokens"]})


_KEPT: Mapping[str, Callable[[Spec, set[int]], set[int]]] = {
    "BPE": _kept_bpe,
    "Unigram": _kept_unigram,
    "WordPiece": _kept_wordpiece,
}
"""Per tokenizer model: the ids that stay beside those used."""


def _padding_and_before(encoder: TextEncoder | StaticEncoder) -> set[int]:
    """The padding id, which must not move where positions are counted from it (RoBERTa and its kin)."""
    padding = (encoder.tokenizer.padding or {}).get("pad_id", 0)
    counted = None
    if isinstance(encoder, TextEncoder) and not encoder.family.causal:
        counted = getattr(encoder.lm.embeddings, "padding_idx", None)
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
        merges = {"merges": merges_among(model, pruned)} if "merges" in model else {}
        model = {**model, "vocab": pruned, **merges}
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


def _slice_embedding(encoder: TextEncoder, order: Iterable[int], new: Mapping[int, int]) -> None:
    words, config = encoder.word_table, encoder.lm.config
    rows = words.weight.detach()[torch.tensor(list(order), device=words.weight.device)]
    padding = _moved(words.padding_idx, new)
    pruned = nn.Embedding(rows.shape[0], rows.shape[1], padding_idx=padding, _weight=rows)
    pruned.weight.requires_grad_(words.weight.requires_grad)
    encoder.replace_word_table(pruned)
    config.vocab_size = len(rows)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"):
        old = getattr(config, name, None)
        if isinstance(old, list):  # several tokens may end a text
            setattr(config, name, [new[token] for token in old if token in new] or None)
        elif old is not None:
            setattr(config, name, _moved(old, new))


def _moved(old: int | None, new: Mapping[int, int]) -> int | None:
    """The new id; None for none and for a token that is gone (a config may name one the tokenizer never emits)."""
    return None if old is None else new.get(old)
