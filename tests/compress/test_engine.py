"""Mixed precision and gradient checkpointing: same training, other arithmetic or memory."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.data.dataset import Dataset
from compress.distil.lists import ListwiseKL
from compress.distil.sequence import SequenceStudent, new_student, train_student
from compress.distil.step import Teaching
from compress.models.folder import load_text
from compress.stage import RunOptions
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import Fit, Training, seed_everything
from compress.training.engine import accelerator, precision
from deploy.errors import UsageError

FULL = {"name": "full"}
SAMPLED = {"name": "sampled", "negatives": 8}


def student(dataset: Dataset, teacher: Path, **training: object) -> tuple[Fit, Tensor]:
    rng = seed_everything(0, RunOptions(threads=1))
    teaching = Teaching(teacher)
    made = new_student(SequenceStudent(dim=8, neurons=8, max_history=6), dataset, teaching, 0)
    config = Training.model_validate(
        {"epochs": 3, "batch_size": 32, "warmup_epochs": 0, "learning_rate": 1e-2, "validate_every": 1} | training
    )
    found = train_student(made, dataset, teaching, [ListwiseKL()], config, rng, RunOptions(), "t")
    return found, made.folded().item_table.detach()


@pytest.mark.parametrize("softmax", [FULL, SAMPLED])
def test_mixed_precision_trains_like_full_precision_and_keeps_fp32_weights(
    film_dataset: Dataset, film_teacher: dict[str, Path], softmax: dict[str, object]
) -> None:
    (full, exact), (mixed, rounded) = (
        student(film_dataset, film_teacher["target"], softmax=softmax, precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    losses = [[loss for _, loss, _ in found.curve[1:]] for found in (full, mixed)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert losses[1][-1] < losses[1][0]


def teacher(dataset: Dataset, start: Path, **settings: object) -> TwoLevelTeacher:
    seed_everything(0, RunOptions(threads=1))
    config = TwoLevel.model_validate(
        {"dim": 16, "heads": 2, "neurons": 32, "max_history": 10, "trained_layers": 2, "texts_per_step": 8} | settings
    )
    text = load_text(start)
    assert text is not None
    return TwoLevelTeacher(config, text, dataset, None)


def test_gradient_checkpointing_gives_the_same_gradients_from_fewer_kept_values(
    film_dataset: Dataset, film_teacher: dict[str, Path]
) -> None:
    grads: list[list[Tensor]] = []
    kept: list[int] = []
    for checkpointing in (False, True):
        made = teacher(film_dataset, film_teacher["pretrain"], gradient_checkpointing=checkpointing)
        made.text.train()
        torch.manual_seed(1)  # dropout draws the same in the pass and when it is computed again
        sizes = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal sizes
            sizes += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = made.pooled(torch.arange(12)).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        grads.append([p.grad for p in made.text.lm.parameters() if p.grad is not None])
        kept.append(sizes)
    assert len(grads[0]) == len(grads[1]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"precision": "bf16", "softmax": SAMPLED}])
def test_a_teacher_trains_in_mixed_precision(
    film_dataset: Dataset, film_teacher: dict[str, Path], settings: dict[str, object]
) -> None:
    training = {"epochs": 4, "warmup_epochs": 0, "learning_rate": 5e-3, "batch_size": 32, **settings}
    moving = {"frozen_epochs": 1, "text_epochs": 2, "gradient_checkpointing": True, "training": training}
    made = teacher(film_dataset, film_teacher["pretrain"], **moving)
    config = TwoLevel.model_validate(
        {"dim": 16, "heads": 2, "neurons": 32, "max_history": 10, "trained_layers": 2, "texts_per_step": 8} | moving
    )
    rng = np.random.default_rng(0)
    found = made.train_two_level(config, film_dataset, rng, RunOptions(), "t")
    assert found.best > found.curve[0][2]
    assert {tensor.dtype for tensor in made.state_dict().values() if tensor.is_floating_point()} == {torch.float32}


def test_one_process_trains_in_both_precisions_and_a_device_without_bf16_says_so() -> None:
    engine = accelerator(RunOptions())
    assert engine is accelerator(RunOptions(threads=2))
    factors = torch.ones(2, 2)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with engine.autocast(precision(engine, name)):
            assert (factors @ factors).dtype == dtype
    without = SimpleNamespace(mixed_precision="no", device="cuda:0")
    assert not precision(without, "fp32").enabled
    with pytest.raises(UsageError, match="precision: cuda:0 has no bf16"):
        precision(without, "bf16")
