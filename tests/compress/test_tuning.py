"""How a teacher's LM moves: LoRA adds and merges without a trace, full moves everything, both for either kind of LM."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.data.dataset import Dataset
from compress.models.folder import load_array, load_text, model_facts, write_model
from compress.models.text import TextEncoder
from compress.stage import RunOptions
from compress.teacher.backbone import load_backbone
from compress.teacher.transfer import TargetConfig, train_target
from compress.teacher.tuning import Full, Lora, TopLayers
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import Training, seed_everything

Run = Callable[..., Path]
Folder = Callable[..., Path]
OPTIONS = RunOptions(threads=1)
TEXTS = ["the silent river", "golden", "", "a burning mirror, frozen summer"]


@pytest.fixture(params=["llama", "bert"])
def encoder(request: pytest.FixtureRequest, lm_folder: Folder) -> TextEncoder:
    return load_backbone(lm_folder(request.param), 24)


def small(**settings: object) -> TwoLevel:
    training = Training(epochs=2, warmup_epochs=0, learning_rate=5e-3, validate_every=1)
    sizes = {"dim": 16, "heads": 2, "neurons": 32, "max_history": 10, "texts_per_step": 16, "frozen_epochs": 0}
    return TwoLevel.model_validate({**sizes, "trained_layers": 2, "training": training, **settings})


def weights(encoder: TextEncoder) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.lm.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_fresh_additions_change_nothing_and_are_all_that_is_trained(encoder: TextEncoder) -> None:
    before, names = encoder.encode(TEXTS), set(weights(encoder))
    assert Lora(rank=2)(encoder, 2) == 1
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)
    trained = {name for name, p in encoder.lm.named_parameters() if p.requires_grad}
    assert trained == {name for name in weights(encoder) if "lora_" in name}
    assert len(trained) == 2 * 2 * (7 if encoder.family.causal else 6)  # two maps for each of a layer's linear ones
    assert len(names) + len(trained) == len(weights(encoder))
    assert {p.shape[0] for name, p in encoder.lm.named_parameters() if "lora_A" in name} == {2}
    assert all(f"{encoder.family.layers_at}.0." not in name for name in trained)


def test_merged_weights_give_what_the_adapted_model_gave(encoder: TextEncoder, tmp_path: Path) -> None:
    before, plain = encoder.encode(TEXTS), weights(encoder)
    torch.manual_seed(1)
    Lora(rank=2, alpha=3.0)(encoder, 2)
    with torch.no_grad():
        for name, parameter in encoder.lm.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    adapted = encoder.encode(TEXTS)
    assert np.abs(adapted - before).max() > 0.05
    Lora().merge(encoder)
    np.testing.assert_allclose(encoder.encode(TEXTS), adapted, atol=1e-5)
    changed = moved(plain, weights(encoder))
    matrices = {n for n, t in plain.items() if t.ndim == 2 and n.startswith(f"{encoder.family.layers_at}.")}
    assert changed == {n for n in matrices if f"{encoder.family.layers_at}.0." not in n}
    encoder.save(tmp_path / "text")
    np.testing.assert_array_equal(TextEncoder.load(tmp_path / "text").encode(TEXTS), encoder.encode(TEXTS))


def test_one_addition_by_hand(lm_folder: Folder) -> None:
    encoder = load_backbone(lm_folder("llama"), 24)
    name = "layers.2.mlp.up_proj"
    weight = encoder.lm.get_submodule(name).weight.detach().clone()
    Lora(rank=2, alpha=3.0)(encoder, 1)
    adapted = encoder.lm.get_submodule(name)
    down, up = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    with torch.no_grad():
        up.normal_()
    Lora().merge(encoder)
    torch.testing.assert_close(encoder.lm.get_submodule(name).weight, weight + 3.0 / 2 * up @ down)


def test_none_of_the_layers_leaves_the_lm_alone(encoder: TextEncoder) -> None:
    for tuning in (Lora(), TopLayers()):
        assert tuning(encoder, 0) == 3
        assert not any(p.requires_grad for p in encoder.lm.parameters())
        tuning.merge(encoder)


@pytest.mark.parametrize("tuning", ["lora", "full", "top_layers"])
def test_training_moves_what_the_tuning_says(encoder: TextEncoder, film_dataset: Dataset, tuning: str) -> None:
    before, config = weights(encoder), small(tuning=tuning)
    rng = seed_everything(0, OPTIONS)
    teacher = TwoLevelTeacher(config, encoder, film_dataset, None)
    np.testing.assert_allclose(teacher.text_vectors().detach()[1:], encoder.encode(film_dataset.texts), atol=1e-5)
    teacher.train_two_level(config, film_dataset, rng, OPTIONS, "teacher")
    changed = moved(before, weights(encoder))
    below = (f"{encoder.family.layers_at}.0.", "embed")
    assert any(name.startswith(below) for name in changed) == (tuning == "full")
    assert any(name.startswith("embed") for name in changed) == (tuning == "full")
    assert any(name.startswith(f"{encoder.family.layers_at}.2.") for name in changed)
    if tuning == "lora":
        assert all(before[name].ndim == 2 for name in changed)
    expected = encoder.encode(film_dataset.texts)
    np.testing.assert_allclose(teacher.text_vectors().detach()[1:], expected, atol=1e-5)


def test_a_lora_teacher_leaves_a_plain_model_folder(
    build: Run, film_data: Path, film_dataset: Dataset, lm_folder: Folder, tmp_path: Path
) -> None:
    write_model(tmp_path / "start", text=load_backbone(lm_folder("qwen2"), 24))
    method = small(tuning={"name": "lora", "rank": 4}).model_dump()
    config = TargetConfig.model_validate({"method": method, "cached_scores": 5})
    folder = build(train_target, config, data=film_data, source=tmp_path / "start")
    assert model_facts(folder)["parts"] == ["text", "sequence"]
    text, vectors = load_text(folder), load_array(folder, "item_vectors")
    assert text is not None and vectors is not None
    assert set(text.state_dict()) == {*load_text(tmp_path / "start").state_dict(), "head.weight"}
    np.testing.assert_allclose(vectors[1:], text.encode(film_dataset.texts), atol=1e-5)


def test_the_shorthand_names_them() -> None:
    assert small(tuning="full").tuning == Full()
    assert small(tuning={"name": "lora", "alpha": 4}).tuning == Lora(alpha=4.0)
    assert TwoLevel().tuning == TopLayers()
