"""Byte-pair encodings: which pieces and merges some texts need."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
"""What stands for a byte in vocabularies of characters that fall back to bytes."""

Spec = dict[str, Any]


def pieces_needed(model: Spec, used: Iterable[int]) -> set[int]:
    """Ids of the pieces that merges go through on the way to the `used` ids, of single characters and of bytes.

    `model` is that of a `tokenizer.json`. A token is made inside its own characters, since no merge has crossed its
    ends: merging it alone goes the same way.
    """
    vocabulary: dict[str, int] = model["vocab"]
    ranks = {pair: rank for rank, pair in enumerate(_pairs(model))}
    by_id = {index: token for token, index in vocabulary.items()}
    needed = {token for token in vocabulary if len(token) == 1 or token in BYTES or token == model["unk_token"]}
    for index in used:
        needed.update(_steps(by_id[index], ranks) if index in by_id else ())
    return {vocabulary[token] for token in needed if token in vocabulary}


def merges_among(model: Spec, vocabulary: dict[str, int]) -> list[list[str]]:
    """The merges, in their order, whose parts and result are all in `vocabulary`.

    Texts whose merges are among them are encoded as before: at each step the earliest possible merge is still there.
    """
    return [list(pair) for pair in _pairs(model) if {*pair, "".join(pair)} <= vocabulary.keys()]


def _pairs(model: Spec) -> list[tuple[str, str]]:
    return [(left, right) for left, right in model["merges"]]


def _steps(token: str, ranks: dict[tuple[str, str], int]) -> set[str]:
    """`token` and every piece made while its characters are merged."""
    pieces, seen = list(token), {token}
    while (best := _earliest(pieces, ranks)) is not None:
        pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
        seen.add(pieces[best])
    return seen


def _earliest(pieces: Sequence[str], ranks: dict[tuple[str, str], int]) -> int | None:
    """Where the pair with the lowest rank stands, the leftmost of equals; None where nothing merges."""
    found = [(ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in ranks]
    return min(found)[1] if found else None
