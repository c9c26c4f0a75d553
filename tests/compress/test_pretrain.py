"""Objectives and the texts they are trained on: causal LM, histories as text, and what is held out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from compress.data.dataset import Dataset
from compress.models.folder import load_text, read_json
from compress.models.tokens import cut_at
from compress.teacher.backbone import load_backbone
from compress.teacher.documents import documents, history
from compress.teacher.objectives import CausalLM, MaskedLM, Objective
from compress.teacher.pretrain import PretrainConfig, pretrain
from deploy.errors import UsageError

Run = Callable[..., Path]
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def llama(lm_folder: Folder) -> Path:
    return lm_folder("llama", max_position_embeddings=512)


def objective(**settings: Any) -> Objective:
    return CausalLM.model_validate({"held_out_share": 0.2, **settings})


def test_causal_lm_asks_for_the_next_token_by_hand(llama: Path) -> None:
    encoder = load_backbone(llama, 8)
    ids, mask = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    inputs, wanted = CausalLM().asked(ids, mask, encoder, np.random.default_rng(0))
    assert torch.equal(inputs, ids)
    assert wanted.tolist() == [[6, 7, -1], [0, -1, -1]]


def test_the_held_out_loss_is_the_lms_own_loss(build: Run, film_data: Path, llama: Path) -> None:
    """Against Hugging Face's own causal model with its tied head, on the same held-out texts."""
    settings = {"name": "causal_lm", "epochs": 1, "learning_rate": 1e-12}
    config = PretrainConfig.model_validate({"backbone": str(llama), "objective": settings, "max_tokens": 64})
    metrics = read_json(build(pretrain, config, data=film_data) / "metrics.json")
    datasets = [Dataset.open(film_data, name) for name in ("source", "target")]
    held_out = documents(CausalLM(), datasets, np.random.default_rng(0)).held_out
    lm = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager").eval()
    tokenizer = load_backbone(llama, 64).tokenizer
    total, n = 0.0, 0
    for text in held_out:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            total += float(functional.cross_entropy(lm(ids).logits[0, :-1], ids[0, 1:], reduction="sum"))
        n += ids.shape[1] - 1
    assert metrics["held_out_loss_before"] == pytest.approx(total / n, rel=1e-4)


@pytest.mark.parametrize("texts", ["items", "both"])
def test_causal_lm_lowers_the_held_out_loss(build: Run, film_data: Path, llama: Path, texts: str) -> None:
    settings = {"name": "causal_lm", "epochs": 2, "learning_rate": 1e-2, "texts": texts, "history_tokens": 32}
    config = PretrainConfig.model_validate(
        {"backbone": str(llama), "objective": settings, "max_tokens": 24, "trained_layers": 2}
    )
    folder = build(pretrain, config, data=film_data)
    metrics = read_json(folder / "metrics.json")
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"] - 0.5
    assert metrics["held_out_loss_after"] < math.log(258)
    encoder = load_text(folder)
    assert encoder is not None
    assert encoder.shape.max_tokens == encoder.tokenizer.truncation["max_length"] == 24


def test_histories_are_a_users_newest_training_events_one_a_line(film_dataset: Dataset) -> None:
    found = documents(objective(texts="histories", history_events=3), [film_dataset], np.random.default_rng(0))
    users = [rows for rows in film_dataset.train_sequences() if len(rows)]
    expected = ["\n".join(film_dataset.texts[row - 1] for row in rows[-3:]) for rows in users]
    assert sorted(found.train + found.held_out) == sorted(expected)
    assert len(found.held_out) == int(0.2 * len(users))
    assert history(["a", "b"]) == "a\nb"


def test_items_held_out_are_in_no_training_history(film_dataset: Dataset) -> None:
    found = documents(objective(texts="both", history_events=100), [film_dataset], np.random.default_rng(0))
    items = documents(objective(), [film_dataset], np.random.default_rng(0))
    assert found.held_out[: len(items.held_out)] == items.held_out
    assert found.train[: len(items.train)] == items.train
    read = {line for text in found.train for line in text.split("\n")}
    assert not read & set(items.held_out)
    assert read == set(items.train)
    assert any("\n" in text for text in found.train) and any("\n" in text for text in found.held_out)


def test_items_alone_draw_as_they_always_did(film_dataset: Dataset) -> None:
    """One permutation and nothing else: what the published recipes' random numbers rest on."""
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    found = documents(MaskedLM(), [film_dataset], rng)
    texts = sorted(set(film_dataset.texts))
    order = again.permutation(len(texts))
    assert found.held_out == [texts[i] for i in order[: len(texts) // 10]]
    assert found.train == [texts[i] for i in order[len(texts) // 10 :]]
    assert rng.random() == again.random()


def test_a_tokenizer_cut_elsewhere_leaves_the_first_alone(llama: Path) -> None:
    encoder = load_backbone(llama, 8)
    assert len(cut_at(encoder.tokenizer, 12).encode("x" * 50).ids) == 12
    assert len(encoder.tokenizer.encode("x" * 50).ids) == 8


@pytest.mark.parametrize(
    ("more", "settings", "says"),
    [
        ({}, {"texts": "histories"}, r"history_tokens: the backbone reads at most 64 \(got 128\)"),
        ({"tie_word_embeddings": False}, {}, r"is not its word embeddings.*use none \(got 'causal_lm'\)"),
    ],
)
def test_what_a_backbone_cannot_be_asked(
    build: Run, film_data: Path, lm_folder: Folder, more: dict[str, Any], settings: dict[str, Any], says: str
) -> None:
    folder = lm_folder("llama", max_position_embeddings=64, **more)
    config = PretrainConfig.model_validate(
        {"backbone": str(folder), "objective": {"name": "causal_lm", **settings}, "max_tokens": 16}
    )
    with pytest.raises(UsageError, match=says):
        build(pretrain, config, data=film_data)


def test_masked_lm_needs_a_mask_token(build: Run, film_data: Path, lm_folder: Folder) -> None:
    config = PretrainConfig.model_validate({"backbone": str(lm_folder("bert")), "max_tokens": 16})
    with pytest.raises(UsageError, match=r"^pretrain\.objective: .* no mask token \(got 'masked_lm'\)"):
        build(pretrain, config, data=film_data)
