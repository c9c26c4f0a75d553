"""The contextual text student, and the texts made for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from compress.distil.contextual import ContextualStudent, distil_contextual
from compress.distil.distil import DistilConfig, distil, teacher_text
from compress.distil.static import StaticStudent
from compress.distil.text import TextTraining
from compress.distil.texts import ItemTexts, TextReader, crossed, item_texts, words_of
from compress.models.folder import load_item_encoder, model_facts, read_json, text_kind
from compress.models.sequence import BlockShape
from compress.models.static import StaticEncoder, StaticShape
from compress.prune.prune import PruneConfig, prune
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.stage import RunOptions
from compress.teacher.backbone import RandomBert
from deploy.errors import UsageError
from deploy.text import TextEncoder

Run = Callable[..., Path]
STUDENT = ContextualStudent(heads=2, neurons=16, dropout=0.0, training=TextTraining(epochs=12, learning_rate=3e-3))


@pytest.fixture(scope="module")
def stages(build: Run, film_data: Path, film_teacher: dict[str, Path]) -> dict[str, Path]:
    teacher = film_teacher["target"]
    whole = build(distil, DistilConfig(student=STUDENT), data=film_data, mix=teacher)
    small = build(prune, PruneConfig(), data=film_data, mix=teacher, distil=whole)
    return {"distil": whole, "prune": small, "quantize": build(quantize, QuantizeConfig(), data=film_data, prune=small)}


def encoder_of(folder: Path) -> StaticEncoder:
    encoder = load_item_encoder(folder)
    assert isinstance(encoder, StaticEncoder)
    return encoder


def test_it_starts_as_the_table_alone() -> None:
    tokenizer = RandomBert(layers=1)(["a river", "heat of the night"], 16, 0).tokenizer
    shape = StaticShape(vocabulary=tokenizer.get_vocab_size(), dim=6, max_tokens=8)
    table = StaticEncoder(tokenizer, shape)
    blocks = {"blocks": (BlockShape(heads=2, neurons=4),), "head_dim": 3}
    contextual = StaticEncoder(tokenizer, shape.model_copy(update=blocks))
    rows = torch.randn(table.table.shape, generator=torch.Generator().manual_seed(0))
    for encoder in (table, contextual):
        encoder.table.data.copy_(rows)
    texts = ["heat river", "night", ""]
    np.testing.assert_array_equal(contextual.encode(texts), table.encode(texts))


def test_it_learns_the_order_of_words_and_is_nearer_than_the_table_it_starts_from(
    stages: dict[str, Path], build: Run, film_data: Path, film_teacher: dict[str, Path]
) -> None:
    assert text_kind(stages["distil"]) == "contextual"
    assert model_facts(stages["distil"])["read"] == {"texts": "warm", "held_out": 0.1, "made": 3.0}
    encoder, teacher = encoder_of(stages["distil"]), teacher_text(film_teacher["target"])
    one, two = encoder.encode(["river matrix", "matrix river"])
    assert np.abs(one - two).max() > 1e-3
    texts = item_texts(film_data, TextReader())
    squares = (encoder.encode(texts.held_out) - teacher.encode(texts.held_out)) ** 2
    left = read_json(stages["distil"] / "metrics.json")["unexplained_variance"]
    assert left == pytest.approx(float(squares.mean() / teacher.encode(texts.items).var(0).mean()), rel=1e-3)
    untrained = STUDENT.model_copy(update={"training": TextTraining(epochs=0)})
    start = build(distil, DistilConfig(student=untrained), data=film_data, mix=film_teacher["target"])
    assert left < read_json(start / "metrics.json")["unexplained_variance"]


def test_the_same_again(stages: dict[str, Path], build: Run, film_data: Path, film_teacher: dict[str, Path]) -> None:
    again = build(distil, DistilConfig(student=STUDENT), data=film_data, mix=film_teacher["target"])
    for file in ("text/table.safetensors", "text/shapes.json", "metrics.json", "model.json"):
        assert (again / file).read_bytes() == (stages["distil"] / file).read_bytes()


def test_it_is_pruned_exported_and_served_like_any_text_encoder(stages: dict[str, Path], film_data: Path) -> None:
    texts = item_texts(film_data, TextReader()).items
    whole, small = encoder_of(stages["distil"]), encoder_of(stages["prune"])
    assert len(small.table) < len(whole.table)
    np.testing.assert_allclose(small.encode(texts), whole.encode(texts), atol=1e-5)
    folder, facts = stages["quantize"], read_json(stages["quantize"] / "candidate.json")
    assert set(facts["graphs"]["text"]) == {"fp32", "int8_dynamic"}
    asked = [*texts[:9], "never heard of", ""]
    for file in facts["graphs"]["text"].values():
        served = TextEncoder(folder / file, folder / "tokenizer.json", facts["max_tokens"])
        together = served.encode(asked)
        alone = np.concatenate([served.encode([text]) for text in asked])
        if file == facts["graphs"]["text"]["fp32"]:
            np.testing.assert_allclose(together, small.encode(asked), atol=1e-4)
            np.testing.assert_allclose(together, alone, atol=1e-4)
    assert read_json(folder / "parity.json")["text.int8_dynamic.onnx"]["centred_cosine"] > 0.9
    assert "Softmax" in {node.op_type for node in onnx.load(folder / facts["graphs"]["text"]["fp32"]).graph.node}


def test_heads_divide_the_teachers_dimensions() -> None:
    teacher = RandomBert(layers=1)(["a river", "heat"], 16, 0)
    texts = ItemTexts(["a river"], ["heat"])
    with pytest.raises(UsageError, match=r"^distil.student.heads: must divide the teacher's 32 dimensions \(got 5\)$"):
        distil_contextual(ContextualStudent(heads=5), teacher, texts, np.random.default_rng(0), RunOptions())


def test_texts_made_of_two_start_as_one_and_end_as_another() -> None:
    texts = ItemTexts(["red river road", "cold night", "alone"], ["red night"])
    made = crossed(texts, 50, str.split)
    possible = {
        f"{' '.join(first[:i])} {' '.join(last[j:])}"
        for first in (["red", "river", "road"], ["cold", "night"])
        for last in (["red", "river", "road"], ["cold", "night"])
        for i in range(1, len(first))
        for j in range(1, len(last))
    } - {*texts.read, *texts.held_out}
    assert set(made) == possible and len(made) == len(possible)  # there are no more
    assert crossed(texts, 2, str.split) == made[:2]
    assert crossed(ItemTexts(["one", "two"], []), 5, str.split) == []


def test_words_are_where_the_tokenizer_sees_them() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    assert words_of(tokenizer)("two words") == ["two", "words"]
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    assert words_of(tokenizer)("Heat (1995)") == ["heat", "(", "1995", ")"]
    assert words_of(tokenizer)("霸王别姬") == ["霸", "王", "别", "姬"]
    tokenizer.normalizer, tokenizer.pre_tokenizer = None, pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert words_of(tokenizer)("Heat of Night") == ["Heat", "of", "Night"]


def test_made_texts_teach_other_students_too(build: Run, film_data: Path, film_teacher: dict[str, Path]) -> None:
    folders = [
        build(distil, DistilConfig(student=StaticStudent(made=made)), data=film_data, mix=film_teacher["target"])
        for made in (0.0, 2.0)
    ]
    assert [model_facts(folder)["read"]["made"] for folder in folders] == [0.0, 2.0]
    tables = [encoder_of(folder).table for folder in folders]
    assert not torch.equal(*tables)
