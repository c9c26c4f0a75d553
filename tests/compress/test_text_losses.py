"""Losses of text students and the states they read; what losses train of their own leaves no trace."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compress.distil.distil import DistilConfig, distil
from compress.distil.text_losses import AttentionRelations, HiddenStates, TextStep, VectorMSE
from compress.models.folder import read_json
from compress.models.states import TextStates, text_states
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.teacher.backbone import load_backbone
from compress.teacher.cache import drawn_beside

Run = Callable[..., Path]


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_states_give_the_vectors_and_a_student_that_is_its_teacher_has_no_loss(
    lm_folder: Callable[..., Path], name: str
) -> None:
    encoder = load_backbone(lm_folder(name), 32)
    ids, mask = encoder.tokenize(["the silent river", "golden"])
    states = text_states(encoder, ids, mask)
    torch.testing.assert_close(states.vectors, encoder(ids, mask))
    step = TextStep(states.vectors, states.vectors.detach(), 1.0, mask, states, states)
    for loss in (VectorMSE(), HiddenStates(), AttentionRelations()):
        assert loss(step, loss.head(encoder, encoder)).item() == pytest.approx(0.0, abs=1e-6)


def test_relations_by_hand() -> None:
    """Two tokens of width 1. The student's states are 0: (1/2, 1/2). The teacher's queries are 0 and sqrt(ln 3): its
    second token relates 1 : 3. Keys and values agree."""
    zero = torch.zeros(1, 2, 1)
    queries = torch.tensor([[[0.0], [math.sqrt(math.log(3))]]])
    ours = TextStates(zero[0], (), ((zero, zero, zero),))
    theirs = TextStates(zero[0], (), ((queries, zero, zero),))
    step = TextStep(zero, zero, 1.0, torch.ones(1, 2, dtype=torch.int64), ours, theirs)
    second = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert AttentionRelations()(step, torch.nn.Identity()).item() == pytest.approx(second / 2, rel=1e-5)


def test_draws_are_others_without_repetition() -> None:
    rows, without = np.array([2, 3, 5, 7, 9]), np.array([[9, 3], [2, 5]], np.int32)
    drawn = drawn_beside(rows, without, 3, np.random.default_rng(0))
    assert [sorted(line) for line in drawn.tolist()] == [[2, 5, 7], [3, 7, 9]]


def test_what_losses_train_of_their_own_leaves_no_trace(
    build: Run, film_data: Path, film_teacher: dict[str, Path]
) -> None:
    found = []
    for loss in ("none", ["vector_alignment", "info_nce"]):
        student = {"name": "sequence", "dim": 8, "heads": 2, "neurons": 16, "max_history": 10}
        config = DistilConfig.model_validate({"student": student, "loss": loss, "training": {"epochs": 2}})
        folder = build(distil, config, data=film_data, mix=film_teacher["target"])
        out = build(quantize, QuantizeConfig(), data=film_data, prune=folder)
        graph = onnx.load(out / "history.fp32.onnx").graph
        found.append([(n.op_type) for n in graph.node] + [(i.name, tuple(i.dims)) for i in graph.initializer])
        assert read_json(out / "parity.json")
    assert found[0] == found[1]
