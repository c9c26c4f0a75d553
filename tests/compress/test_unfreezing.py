"""Gradual unfreezing: which layer moves in which epoch, and that nothing else does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from compress.data.dataset import Dataset
from compress.models.folder import load_text
from compress.models.text import TextEncoder
from compress.stage import RunOptions
from compress.teacher import two_level
from compress.teacher.tuning import Gradual
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import Training, seed_everything


def unfrozen(text: TextEncoder) -> tuple[int, ...]:
    return tuple(i for i, layer in enumerate(text.layers) if any(p.requires_grad for p in layer.parameters()))


@pytest.fixture
def text(film_teacher: dict[str, Path]) -> TextEncoder:
    """Three layers."""
    encoder = load_text(film_teacher["pretrain"])
    assert encoder is not None
    return encoder


def test_the_last_layer_first_and_one_more_every_so_many_epochs(text: TextEncoder) -> None:
    tuning = Gradual(epochs=2)
    assert tuning(text, 2) == 1 and unfrozen(text) == (1, 2)  # what an optimizer is made for
    seen = []
    for number in range(1, 7):
        tuning.start_epoch(text, 2, number)
        seen.append(unfrozen(text))
    assert seen == [(2,), (2,), (1, 2), (1, 2), (1, 2), (1, 2)]
    assert not any(p.requires_grad for p in text.lm.embeddings.parameters())


def test_a_frozen_layer_neither_learns_nor_decays(text: TextEncoder) -> None:
    tuning = Gradual()
    first = tuning(text, 3)
    optimizer = torch.optim.AdamW([p for p in text.lm.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    tuning.start_epoch(text, 3, 1)
    before = {name: tensor.clone() for name, tensor in text.lm.state_dict().items()}
    ids, mask = text.tokenize(["the silent river"])
    text.pooled(text.lower(ids, mask, first), mask, first).square().sum().backward()
    optimizer.step()
    changed = {name for name, tensor in text.lm.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("encoder.layer.2.") for name in changed)


def test_a_teacher_in_training_unfreezes_from_the_top(
    text: TextEncoder, film_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TwoLevel(
        dim=8,
        heads=2,
        neurons=8,
        max_history=5,
        trained_layers=2,
        tuning=Gradual(),
        texts_per_step=8,
        frozen_epochs=1,
        text_epochs=3,
        training=Training(epochs=5, warmup_epochs=0, batch_size=4096),  # one step an epoch
    )
    loss, moving = two_level.next_item_loss, []

    def watched(*arguments: Any) -> Any:
        moving.append(unfrozen(text) if text.training else ())
        return loss(*arguments)

    monkeypatch.setattr(two_level, "next_item_loss", watched)
    options = RunOptions(threads=1)
    dataset, rng = Dataset.open(film_data), seed_everything(0, options)
    TwoLevelTeacher(config, text, dataset, None).train_two_level(config, dataset, rng, options, "target")
    assert moving == [(), (2,), (1, 2), (1, 2), ()]
