"""Word embeddings in two factors: the table's best, most of all for the words that occur."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.distil.text import TextDistillation, TextTraining, train_text
from compress.distil.text_losses import VectorMSE
from compress.distil.texts import ItemTexts
from compress.models.embedding import FactorizedEmbedding
from compress.models.text import TextEncoder
from compress.prune.embedding import factorize_embedding
from compress.prune.vocabulary import prune_vocabulary
from compress.stage import RunOptions
from compress.teacher.backbone import RandomBert, load_backbone
from deploy.errors import UsageError

Folder = Callable[..., Path]
TEXTS = ["the matrix reloaded", "a river runs through it", "heat", "the usual suspects", "toy story"]
BOTH = pytest.mark.parametrize("name", ["bert", "llama"])


@BOTH
def test_a_table_of_that_rank_stays_and_round_trips(lm_folder: Folder, name: str, tmp_path: Path) -> None:
    encoder = load_backbone(lm_folder(name), 32)
    torch.manual_seed(0)
    with torch.no_grad():
        encoder.word_table.weight.copy_(torch.randn(258, 4) @ torch.randn(4, 16))
    before = encoder.encode(TEXTS)
    size = sum(p.numel() for p in encoder.parameters())
    assert factorize_embedding(encoder, 4, encoder.tokenize(TEXTS)) < 1e-9
    np.testing.assert_allclose(encoder.encode(TEXTS), before, atol=2e-5)
    assert size - sum(p.numel() for p in encoder.parameters()) == 258 * 16 - 4 * (258 + 16)
    assert encoder.word_table.weight.shape == (258, 4)
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert (loaded.shape.embedding_rank, loaded.hidden_size) == (4, 16)
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def test_what_occurs_decides_by_hand() -> None:
    """Two directions: (3, 0) is one word's that no text has, (0, 1) the word's that 24 texts have. Counts are 1 and 25:
    the squares to lose are 9 and 25, so the rarer word's direction goes."""
    encoder = RandomBert(layers=1, hidden=2, heads=1, neurons=2)(["heat", "toys"], 8, 0)
    seen, unseen = (encoder.tokenizer.token_to_id(word) for word in ("heat", "toys"))
    with torch.no_grad():
        encoder.word_table.weight.zero_()
        encoder.word_table.weight[unseen] = torch.tensor([3.0, 0.0])
        encoder.word_table.weight[seen] = torch.tensor([0.0, 1.0])
    lost = factorize_embedding(encoder, 1, encoder.tokenize(["heat"] * 24))
    rows = encoder.words(torch.tensor([[unseen, seen]]))[0]
    torch.testing.assert_close(rows, torch.tensor([[0.0, 0.0], [0.0, 1.0]]), atol=1e-6, rtol=0)
    assert lost == pytest.approx(9 / 34)


def test_vocabulary_first_leaves_the_same_tokens_and_fewer_rows(tmp_path: Path) -> None:
    encoder = RandomBert(layers=1)(TEXTS, 16, 0)
    report = prune_vocabulary(encoder, TEXTS[:3])
    factorize_embedding(encoder, 8, encoder.tokenize(TEXTS[:3]))
    encoder.save(tmp_path / "text")
    assert TextEncoder.load(tmp_path / "text").word_table.weight.shape == (report.after, 8)


def test_recovery_moves_the_map_and_no_word() -> None:
    teacher = RandomBert(layers=1)(TEXTS, 16, 0)
    teacher.head = nn.Linear(32, 6, bias=False)
    student = RandomBert(layers=1)(TEXTS, 16, 0)
    student.head = nn.Linear(32, 6, bias=False)
    student.load_state_dict(teacher.state_dict())
    factorize_embedding(student, 8, student.tokenize(TEXTS))
    words = student.words
    assert isinstance(words, FactorizedEmbedding)
    rows, widen = words.words.weight.detach().clone(), words.widen.weight.detach().clone()
    taught = TextDistillation((VectorMSE(),), student, teacher, ItemTexts(TEXTS, []))
    before = float(np.square(student.encode(TEXTS) - taught.wanted).mean() / taught.variance)
    error = train_text(student, taught, TextTraining(epochs=20), np.random.default_rng(0), RunOptions(), "recover")
    assert error < before
    assert torch.equal(words.words.weight.cpu(), rows)
    assert not torch.equal(words.widen.weight.cpu(), widen)


def test_ranks_that_save_nothing_are_a_users_mistake() -> None:
    encoder = RandomBert(layers=1)(TEXTS, 16, 0)
    rows = encoder.word_table.num_embeddings
    most = (rows * 32 - 1) // (rows + 32)
    with pytest.raises(UsageError, match=rf"^prune.text.embedding_rank: .* up to rank {most} \(got {most + 1}\)$"):
        factorize_embedding(encoder, most + 1, encoder.tokenize(TEXTS))
    factorize_embedding(encoder, most, encoder.tokenize(TEXTS))
    with pytest.raises(UsageError, match="two factors already"):
        factorize_embedding(encoder, 2, encoder.tokenize(TEXTS))
