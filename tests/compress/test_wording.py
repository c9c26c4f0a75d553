"""Reworded item texts: what is left out and shuffled, by hand and in the teacher."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.data.dataset import Dataset
from compress.models.folder import load_text
from compress.stage import RunOptions
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.teacher.wording import Rewording, Wordings
from compress.training import seed_everything

TEXTS = ["The Net (1995). Crime, Drama, Thriller", "Solo (2018). War", "", "A B. x y"]
CLASSES = ["Crime, Drama,  Thriller", "War", "", "not in the text"]


@pytest.fixture
def films(film_dataset: Dataset) -> Dataset:
    separators = {"class": ",", "tags": " "}
    tags = ["", "", "", "x y"]
    return replace(film_dataset, texts=TEXTS, attributes={"class": CLASSES, "tags": tags}, list_separators=separators)


def reworded(films: Dataset, rewording: Rewording, times: int = 60) -> list[set[str]]:
    """Per item all texts that came out."""
    wordings = Wordings(rewording, films, np.random.default_rng(0))
    drawn = [wordings(np.arange(4)) for _ in range(times)]
    return [set(texts) for texts in zip(*drawn, strict=True)]


def test_by_default_texts_stay(films: Dataset) -> None:
    assert not Rewording().active
    assert reworded(films, Rewording(), 2) == [{text} for text in TEXTS]


def test_values_are_shuffled_where_the_text_shows_them(films: Dataset) -> None:
    found = reworded(films, Rewording(shuffle_values=True), 200)
    head, values = "The Net (1995). ", ("Crime", "Drama", "Thriller")
    orders = [(a, b, c) for a in values for b in values for c in values if len({a, b, c}) == 3]
    assert found[0] == {head + ", ".join(order) for order in orders}
    assert found[1:] == [{TEXTS[1]}, {""}, {"A B. x y", "A B. y x"}]


def test_values_are_left_out_and_one_stays(films: Dataset) -> None:
    found = reworded(films, Rewording(drop_values=0.7), 300)
    lists = ["Crime", "Drama", "Thriller", "Crime, Drama", "Crime, Thriller", "Drama, Thriller", CLASSES[0]]
    assert found[0] == {f"The Net (1995). {' '.join(shown.split())}" for shown in lists}
    assert found[1] == {TEXTS[1]}
    assert found[3] == {"A B. x y", "A B. x", "A B. y"}


def test_words_are_left_out_at_their_rate_in_order_and_one_stays(films: Dataset) -> None:
    wordings = Wordings(Rewording(drop_words=0.3), films, np.random.default_rng(1))
    words = TEXTS[0].split()
    counts = []
    for _ in range(400):
        kept = wordings(np.array([0]))[0].split()
        assert kept == [word for word in words if word in kept]
        counts.append(len(kept))
    assert np.mean(counts) == pytest.approx(0.7 * len(words), rel=0.05)
    assert min(len(text.split()) for text in reworded(films, Rewording(drop_words=0.95), 100)[1]) == 1


def test_a_teacher_reads_the_new_texts_and_its_own_as_before(
    film_dataset: Dataset, film_teacher: dict[str, Path]
) -> None:
    config = TwoLevel(dim=16, blocks=1, heads=2, neurons=32, max_history=10, trained_layers=1)
    text = load_text(film_teacher["target"])
    assert text is not None
    teacher = TwoLevelTeacher(config, text, film_dataset, None).eval()
    fresh = torch.tensor([3, 7])
    own = [film_dataset.texts[item] for item in fresh]
    with torch.no_grad():
        before = teacher.table(fresh).clone()
        torch.testing.assert_close(teacher.table(fresh, own), before, atol=1e-5, rtol=1e-4)
        other = teacher.table(fresh, own[::-1])
        torch.testing.assert_close(other[[4, 8]], before[[8, 4]], atol=1e-5, rtol=1e-4)
    teacher.text.train()
    states = teacher.pooled_texts(own)
    states.sum().backward()
    assert teacher.text.training
    assert any(p.grad is not None and p.grad.any() for p in teacher.text.lm.parameters())


def test_training_with_rewording_repeats_and_differs_from_training_without(
    film_dataset: Dataset, film_teacher: dict[str, Path]
) -> None:
    def train(rewording: Rewording) -> torch.Tensor:
        rng = seed_everything(0, RunOptions(threads=1))
        config = TwoLevel.model_validate(
            {"dim": 16, "heads": 2, "neurons": 32, "max_history": 10, "trained_layers": 1, "texts_per_step": 8}
            | {"frozen_epochs": 0, "text_epochs": 1, "training": {"epochs": 1}, "rewording": rewording}
        )
        text = load_text(film_teacher["target"])
        assert text is not None
        teacher = TwoLevelTeacher(config, text, film_dataset, None)
        teacher.train_two_level(config, film_dataset, rng, RunOptions(), "t")
        return teacher.bank

    changed = Rewording(drop_words=0.5, shuffle_values=True)
    assert torch.equal(train(changed), train(changed))
    assert not torch.equal(train(changed), train(Rewording()))
