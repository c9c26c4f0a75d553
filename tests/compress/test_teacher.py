"""The teacher: the LM really trains, frozen layers do not move, what is cached is what would be computed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.data.dataset import Dataset, domain_names
from compress.models.folder import load_array, load_sequence, load_text, model_facts, read_json
from compress.models.sequence import SequenceModel
from compress.models.text import TextEncoder
from compress.stage import RunOptions
from compress.teacher import two_level
from compress.teacher.backbone import Pretrained, RandomBert
from compress.teacher.objectives import mask_tokens
from compress.teacher.pretrain import PretrainConfig, backbone_digests, pretrain
from compress.teacher.random_bert import word_tokenizer
from compress.teacher.transfer import SourceConfig, TargetConfig, train_source, train_target
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import Training, seed_everything, validation_ndcg, validation_ranks

Run = Callable[..., Path]
OPTIONS = RunOptions(threads=1)
SMALL = TwoLevel(
    dim=16,
    blocks=1,
    heads=2,
    neurons=32,
    max_history=10,
    dropout=0.1,
    trained_layers=1,
    texts_per_step=16,
    frozen_epochs=0,
    training=Training(epochs=6, warmup_epochs=0, learning_rate=5e-3, validate_every=1),
)


def weights(encoder: TextEncoder, start: str) -> dict[str, Tensor]:
    return {name: t for name, t in encoder.lm.state_dict().items() if name.startswith(start)}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    assert one.keys() == two.keys() and one
    return all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def text_of(folder: Path) -> TextEncoder:
    encoder = load_text(folder)
    assert encoder is not None
    return encoder


# pretrain


def test_pretraining_lowers_the_held_out_loss(film_teacher: dict[str, Path]) -> None:
    metrics = read_json(film_teacher["pretrain"] / "metrics.json")
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"] - 0.1
    # an untrained head over tied embeddings knows about as much as an even guess
    vocabulary = text_of(film_teacher["pretrain"]).tokenizer.get_vocab_size()
    assert metrics["held_out_loss_before"] == pytest.approx(math.log(vocabulary), abs=0.5)


def test_pretraining_moves_the_last_layers_alone(build: Run, film_data: Path, film_teacher: dict[str, Path]) -> None:
    texts = sorted({t for domain in domain_names(film_data) for t in Dataset.open(film_data, domain).texts})
    start, end = RandomBert(layers=3)(texts, 16, 0), text_of(film_teacher["pretrain"])
    assert same(weights(start, "encoder.layer.0."), weights(end, "encoder.layer.0."))
    assert same(weights(start, "embeddings."), weights(end, "embeddings."))
    for layer in (1, 2):
        assert not same(weights(start, f"encoder.layer.{layer}."), weights(end, f"encoder.layer.{layer}."))
    untrained = PretrainConfig.model_validate(
        {"backbone": {"name": "random", "layers": 3}, "objective": "none", "max_tokens": 16}
    )
    folder = build(pretrain, untrained, data=film_data)
    assert same(weights(text_of(folder), ""), weights(start, ""))


def test_pretrain_none_is_no_teacher_at_all(
    build: Run, film_data: Path, files_of: Callable[[Path], list[Path]]
) -> None:
    nothing = build(pretrain, PretrainConfig.model_validate("none"), data=film_data)
    assert model_facts(nothing) == {"parts": []}
    for stage, config, name in ((train_source, SourceConfig(), "pretrain"), (train_target, TargetConfig(), "source")):
        nothing = build(stage, config, **{"data": film_data, name: nothing})
        assert files_of(nothing) == [Path("model.json")]


@pytest.fixture(scope="module")
def masker() -> tuple[TextEncoder, Tensor, Tensor]:
    """An encoder, and 400 texts of 1 to 40 words as ids and mask."""
    words = [a + b for a in "bcdfghklmn" for b in ("an", "or", "id", "es", "ut")]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, rng.integers(1, 41))) for _ in range(400)]
    encoder = RandomBert(layers=1, hidden=8, heads=2, neurons=8)([*texts, "zzz"], 64, 0)
    ids, mask = encoder.tokenize(texts)
    return encoder, ids, mask


def test_mask_tokens_splits_80_10_10(masker: tuple[TextEncoder, Tensor, Tensor]) -> None:
    encoder, ids, mask = masker
    masked, wanted = mask_tokens(ids, mask, encoder, 0.3, np.random.default_rng(1))
    tokens = mask.bool() & (ids > 4)
    asked = wanted >= 0
    n, total = int(asked.sum()), int(tokens.sum())

    def near(count: Tensor, of: int, share: float) -> bool:  # within four standard deviations
        return abs(int(count.sum()) - share * of) < 4 * math.sqrt(of * share * (1 - share))

    assert total > 7000
    assert near(asked, total, 0.3)
    mask_id, size = encoder.tokenizer.token_to_id("[MASK]"), encoder.lm.config.vocab_size
    # a random token is [MASK] or the token itself once in the vocabulary's size
    assert near(asked & (masked == mask_id), n, 0.8 + 0.1 / size)
    assert near(asked & (masked == ids), n, 0.1 + 0.1 / size)
    assert near(asked & (masked != mask_id) & (masked != ids), n, 0.1 - 0.2 / size)
    replaced = masked[asked & (masked != mask_id) & (masked != ids)]
    assert len(replaced.unique()) > size / 2
    assert torch.equal(wanted[asked], ids[asked])


def test_mask_tokens_never_asks_for_special_tokens_or_padding(masker: tuple[TextEncoder, Tensor, Tensor]) -> None:
    encoder, ids, mask = masker
    masked, wanted = mask_tokens(ids, mask, encoder, 0.99, np.random.default_rng(1))
    special = (ids <= 4) | ~mask.bool()
    assert (wanted[special] == -1).all()
    assert torch.equal(masked[wanted < 0], ids[wanted < 0])
    assert (wanted[~special] >= 0).float().mean() > 0.98


def test_mask_tokens_is_the_generators_alone_and_asks_at_least_once(
    masker: tuple[TextEncoder, Tensor, Tensor],
) -> None:
    encoder, ids, mask = masker

    def draw(seed: int, share: float) -> list[Any]:
        return [t.tolist() for t in mask_tokens(ids, mask, encoder, share, np.random.default_rng(seed))]

    assert draw(1, 0.3) == draw(1, 0.3)
    assert draw(1, 0.3) != draw(2, 0.3)
    assert sum(w >= 0 for row in draw(1, 0.0)[1] for w in row) == 1


# two levels


@pytest.fixture
def teacher(film_teacher: dict[str, Path], film_dataset: Dataset) -> TwoLevelTeacher:
    seed_everything(0, OPTIONS)
    return TwoLevelTeacher(SMALL, text_of(film_teacher["pretrain"]), film_dataset, None)


def test_training_moves_the_trained_layers_and_leaves_frozen_ones_bit_identical(
    teacher: TwoLevelTeacher, film_teacher: dict[str, Path], film_dataset: Dataset
) -> None:
    before = text_of(film_teacher["pretrain"])
    found = teacher.train_two_level(SMALL, film_dataset, np.random.default_rng(0), OPTIONS, "teacher")
    assert found.best_epoch > 0
    assert found.best > found.curve[0][2]
    for frozen in ("embeddings.", "encoder.layer.0.", "encoder.layer.1."):
        assert same(weights(before, frozen), weights(teacher.text, frozen))
    after = weights(teacher.text, "encoder.layer.2.")
    moved = [n for n, t in weights(before, "encoder.layer.2.").items() if not torch.equal(t, after[n])]
    # a key's bias shifts all similarities alike: the softmax does not see it, and its gradient is rounding
    assert {n for n in after if "key.bias" not in n} <= set(moved)


def test_frozen_epochs_leave_the_lm_alone(
    teacher: TwoLevelTeacher, film_teacher: dict[str, Path], film_dataset: Dataset
) -> None:
    config = SMALL.model_copy(update={"frozen_epochs": 6})
    found = teacher.train_two_level(config, film_dataset, np.random.default_rng(0), OPTIONS, "teacher")
    assert found.best_epoch > 0
    assert same(weights(text_of(film_teacher["pretrain"]), ""), weights(teacher.text, ""))


@torch.no_grad()
def test_cached_lower_states_and_bank_are_the_full_forward(teacher: TwoLevelTeacher, film_dataset: Dataset) -> None:
    expected = teacher.text.encode(film_dataset.texts)
    np.testing.assert_allclose(teacher.text_vectors()[1:], expected, atol=1e-5)
    some = torch.tensor([0, 7, 3])
    np.testing.assert_allclose(teacher.text.head(teacher.pooled(some)), expected[[0, 7, 3]], atol=1e-5)
    assert not teacher.text_vectors()[0].any()


def test_after_training_the_bank_holds_the_texts_as_they_now_read(
    teacher: TwoLevelTeacher, film_dataset: Dataset
) -> None:
    teacher.train_two_level(SMALL, film_dataset, np.random.default_rng(0), OPTIONS, "teacher")
    expected = teacher.text.encode(film_dataset.texts)
    np.testing.assert_allclose(teacher.text_vectors().detach()[1:], expected, atol=1e-5)
    free = teacher.ids.detach()[1:].numpy()
    np.testing.assert_allclose(teacher.folded().item_table.detach()[1:], expected + free, atol=1e-5)
    assert not teacher.folded().item_table.detach()[0].any()


def test_cold_items_are_their_texts_and_nothing_else(teacher: TwoLevelTeacher, film_dataset: Dataset) -> None:
    """No free vector and no part in the softmax, where they would only ever be pushed away."""
    cold = torch.from_numpy(film_dataset.cold_items).long()
    with torch.no_grad():
        teacher.ids.normal_()
    assert torch.equal(teacher.table()[cold], teacher.text_vectors()[cold])
    assert not torch.equal(teacher.table()[1], teacher.text_vectors()[1])
    with torch.no_grad():
        teacher.ids.zero_()
        teacher.bank[cold[::2] - 1], teacher.bank[cold[1::2] - 1] = 100.0, -100.0  # one would win every softmax
    config = SMALL.model_copy(update={"frozen_epochs": 6})
    found = teacher.train_two_level(config, film_dataset, np.random.default_rng(0), OPTIONS, "teacher")
    assert found.curve[1][1] < 1.2 * math.log(film_dataset.n_items)
    assert not teacher.ids[cold].any()


@pytest.mark.parametrize(("text_epochs", "validate_every"), [(6, 1), (3, 2), (1, 3)])
def test_the_state_kept_is_the_one_that_was_validated(
    teacher: TwoLevelTeacher, film_dataset: Dataset, text_epochs: int, validate_every: int
) -> None:
    """Also where the LM's last moving epoch is not validated itself."""
    training = SMALL.training.model_copy(update={"validate_every": validate_every})
    config = SMALL.model_copy(update={"text_epochs": text_epochs, "training": training})
    found = teacher.train_two_level(config, film_dataset, np.random.default_rng(0), OPTIONS, "teacher")
    assert found.best_epoch > text_epochs or text_epochs == 6
    assert validation_ndcg(teacher.folded(), film_dataset) == found.best


def test_the_bank_is_fresh_whenever_the_lm_has_stopped(
    teacher: TwoLevelTeacher, film_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SMALL.training.model_copy(update={"validate_every": 2})
    config = SMALL.model_copy(update={"text_epochs": 1, "training": training})
    validated = []

    def validate(model: SequenceModel, dataset: Dataset) -> float:
        bank = teacher.bank.clone()
        teacher.refresh()
        validated.append(float((teacher.bank - bank).abs().max()))
        teacher.bank.copy_(bank)
        return validation_ndcg(model, dataset)

    monkeypatch.setattr(two_level, "validation_ndcg", validate)
    teacher.train_two_level(config, film_dataset, np.random.default_rng(0), OPTIONS, "teacher")
    assert validated == pytest.approx([0.0] * 4, abs=1e-6)


def test_fresh_items_carry_the_gradient_and_are_written_back(teacher: TwoLevelTeacher) -> None:
    teacher.bank.zero_()
    fresh = torch.tensor([2, 5])
    vectors = teacher.text_vectors(fresh)
    layer = teacher.text.layers[2].output.dense.weight
    (of_fresh,) = torch.autograd.grad(vectors[[3, 6]].sum(), layer, retain_graph=True)
    assert of_fresh.any()
    (of_others,) = torch.autograd.grad(vectors[[1, 2, 4, 5]].sum(), layer)
    assert not of_others.any()
    assert teacher.bank.any(1).nonzero().flatten().tolist() == [2, 5]
    assert not teacher.bank.requires_grad


@pytest.mark.parametrize("id_vectors", [True, False])
def test_id_vectors_learn_only_where_they_are_wanted(
    film_teacher: dict[str, Path], film_dataset: Dataset, id_vectors: bool
) -> None:
    config = SMALL.model_copy(update={"id_vectors": id_vectors})
    seed_everything(0, OPTIONS)
    teacher = TwoLevelTeacher(config, text_of(film_teacher["pretrain"]), film_dataset, None)
    teacher.train_two_level(config, film_dataset, np.random.default_rng(0), OPTIONS, "teacher")
    assert bool(teacher.ids.any()) == id_vectors


def test_the_stage_writes_what_its_model_says(film_teacher: dict[str, Path], film_dataset: Dataset) -> None:
    folder = film_teacher["target"]
    model, vectors, ranks = load_sequence(folder), load_array(folder, "item_vectors"), load_array(folder, "valid_ranks")
    assert model is not None and vectors is not None and ranks is not None
    np.testing.assert_allclose(vectors[1:], text_of(folder).encode(film_dataset.texts), atol=1e-5)
    assert not vectors[0].any()
    assert np.array_equal(validation_ranks(model, film_dataset), ranks)
    curve = read_json(folder / "curve.json")
    assert curve[0][:2] == [0, None]
    best = max(value for _, _, value in curve[1:])  # the untrained start does not compete
    assert best == pytest.approx(read_json(folder / "metrics.json")["valid_ndcg@10"])
    items, scores = load_array(folder, "score_items"), load_array(folder, "scores")
    assert items is not None and scores is not None
    positions = sum(max(0, len(s) - 1) for s in film_dataset.train_sequences())
    assert items.shape == scores.shape == (positions, 10)


# source and target


def test_source_none_hands_the_pretrained_model_on(
    build: Run, film_data: Path, film_teacher: dict[str, Path], files_of: Callable[[Path], list[Path]]
) -> None:
    start = film_teacher["pretrain"]
    folder = build(train_source, SourceConfig.model_validate("none"), data=film_data, pretrain=start)
    files = files_of(start)
    assert files_of(folder) == files
    assert all((folder / f).read_bytes() == (start / f).read_bytes() for f in files)


def target_without_epochs(build: Run, film_data: Path, source: Path, **sizes: Any) -> Path:
    method = SMALL.model_dump() | {"training": {"epochs": 0}} | sizes
    return build(train_target, TargetConfig.model_validate({"method": method}), data=film_data, source=source)


def test_the_target_starts_from_the_sources_encoder_head_and_lm(
    build: Run, film_data: Path, film_teacher: dict[str, Path]
) -> None:
    source = film_teacher["source"]
    folder = target_without_epochs(build, film_data, source)
    start, end = load_sequence(source), load_sequence(folder)
    assert start is not None and end is not None
    assert same(start.encoder.state_dict(), end.encoder.state_dict())
    assert same(text_of(source).state_dict(), text_of(folder).state_dict())
    # another catalogue: the table is the target's texts, not the source's items
    np.testing.assert_allclose(
        end.item_table.detach()[1:], text_of(source).encode(Dataset.open(film_data).texts), atol=1e-5
    )


def test_an_encoder_of_another_size_starts_afresh(build: Run, film_data: Path, film_teacher: dict[str, Path]) -> None:
    folder = target_without_epochs(build, film_data, film_teacher["source"], dim=8)
    end = load_sequence(folder)
    assert end is not None
    assert end.shape.dim == text_of(folder).dim == 8


@pytest.mark.parametrize("sizes", [{"heads": 4}, {"neurons": 8}, {"max_history": 5}, {"blocks": 2}])
def test_any_size_may_differ_between_source_and_target(
    build: Run, film_data: Path, film_teacher: dict[str, Path], sizes: dict[str, int]
) -> None:
    folder = target_without_epochs(build, film_data, film_teacher["source"], **sizes)
    end = load_sequence(folder)
    assert end is not None
    (block, *_) = end.shape.blocks
    got = {
        "heads": block.heads,
        "neurons": block.neurons,
        "max_history": end.shape.max_history,
        "blocks": len(end.shape.blocks),
    }
    assert got == {"heads": 2, "neurons": 32, "max_history": 10, "blocks": 1} | sizes


def test_frozen_gives_the_lms_mean_pooled_vectors(
    build: Run, film_data: Path, film_teacher: dict[str, Path], film_dataset: Dataset
) -> None:
    config = TargetConfig.model_validate({"method": "frozen"})
    folder = build(train_target, config, data=film_data, source=film_teacher["pretrain"])
    vectors = load_array(folder, "item_vectors")
    assert vectors is not None
    encoder = text_of(film_teacher["pretrain"])
    ids, mask = encoder.tokenize(film_dataset.texts)
    with torch.no_grad():
        hidden = encoder.lm(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = [row[: int(m.sum())].mean(0).numpy() for row, m in zip(hidden, mask, strict=True)]
    np.testing.assert_allclose(vectors[1:], pooled, atol=1e-5)
    assert not vectors[0].any()
    assert model_facts(folder)["parts"] == ["text"]


# backbones


def test_word_tokenizer_knows_common_words_and_every_letter() -> None:
    tokenizer = word_tokenizer(["the river", "the mirror", "the river of xi"], 33)
    assert tokenizer.encode("The RIVER").tokens == ["[CLS]", "the", "river", "[SEP]"]
    assert tokenizer.encode("mirth").tokens == ["[CLS]", "m", "##i", "##r", "##t", "##h", "[SEP]"]
    assert tokenizer.encode("river 7").tokens == ["[CLS]", "river", "[UNK]", "[SEP]"]
    assert tokenizer.token_to_id("[PAD]") == 0


def test_a_random_backbone_is_its_seeds_alone() -> None:
    first, again, other = (RandomBert()(["the river"], 8, seed).encode(["the river"]) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_backbone_folders_files_enter_the_key(tmp_path: Path) -> None:
    def digests() -> dict[str, str]:
        return backbone_digests(PretrainConfig.model_validate({"backbone": str(tmp_path)}))

    (tmp_path / "config.json").write_text("{}")
    first = digests()
    assert set(first) == {"config.json"}
    (tmp_path / "config.json").write_text("{ }")
    assert digests() != first
    assert backbone_digests(PretrainConfig.model_validate({"backbone": "random"})) == {}


def test_a_backbone_by_its_name_alone() -> None:
    assert PretrainConfig.model_validate({"backbone": "random"}).backbone == RandomBert()
    assert PretrainConfig.model_validate({"backbone": "org/model"}).backbone == Pretrained(model="org/model")
