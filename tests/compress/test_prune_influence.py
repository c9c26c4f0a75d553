"""Choosing layers by what they do to their states."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn import functional

from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.models.states import text_states
from compress.prune.criteria import Magnitude, Scores
from compress.prune.influence import BlockInfluence, LayersBy, OfCriterion
from compress.prune.sequence import StructuredSequence
from compress.prune.structured import cut
from compress.prune.text import StructuredText
from compress.prune.views import views
from compress.teacher.backbone import load_backbone

NO_SCORES = Scores((), (), np.array([3.0, 1.0]))
TEXTS = ["the silent river", "golden", "a burning mirror, frozen summer"]


def two_blocks() -> SequenceModel:
    """Blocks that add a vector to every state: (0, 4) the first, nothing the second. Items (3, 0), (0, 1)."""
    blocks = (BlockShape(heads=1, neurons=1),) * 2
    model = SequenceModel(SequenceShape(n_items=2, dim=2, head_dim=2, blocks=blocks, max_history=3, dropout=0.5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.item_table[1:] = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        views(model)[0].down.bias[:] = torch.tensor([0.0, 4.0])
    return model


def test_influence_by_hand_without_padding() -> None:
    """(3, 0) -> (3, 4) has cosine .6, (0, 1) -> (0, 5) 1; padding, which is zero, would have 0."""
    model = two_blocks().train()
    padded_right = model.item_table[torch.tensor([[1, 2, 0]])].detach()
    scores = BlockInfluence()(model.encoder, lambda: [model.encoder(padded_right).sum()], NO_SCORES)
    np.testing.assert_allclose(scores, [1 - (0.6 + 1) / 2, 0.0], atol=1e-6)
    assert model.training


def test_a_last_block_that_computes_the_last_event_alone_is_compared_there() -> None:
    model = two_blocks()
    with torch.no_grad():
        views(model)[1].down.bias[:] = torch.tensor([5.0, 0.0])
    history = torch.tensor([[0, 1, 2]])
    scores = BlockInfluence()(model, lambda: [model.user_vectors(history).sum()], NO_SCORES)
    np.testing.assert_allclose(scores, [0.2, 1 - 0.5**0.5], atol=1e-6)  # (0, 5) -> (5, 5)


@pytest.mark.parametrize("name", ["bert", "llama"])
@torch.no_grad()
def test_influence_of_a_language_models_layers_is_over_real_tokens(lm_folder: Callable[..., Path], name: str) -> None:
    encoder = load_backbone(lm_folder(name), 32)

    def losses() -> Iterable[Tensor]:
        yield encoder(*encoder.tokenize(TEXTS[:2])).sum()
        yield encoder(*encoder.tokenize(TEXTS[2:])).sum()

    each: list[list[Tensor]] = [[], [], []]
    for text in TEXTS:
        ids, mask = encoder.tokenize([text])
        states = [encoder.lower(ids, mask, 0), *text_states(encoder, ids, mask).hidden]
        for layer in range(3):
            each[layer].append(functional.cosine_similarity(states[layer][0], states[layer + 1][0], dim=-1))
    expected = [1 - float(torch.cat(cosines).mean()) for cosines in each]
    np.testing.assert_allclose(BlockInfluence()(encoder, losses, NO_SCORES), expected, atol=1e-5)


def test_the_layer_that_changes_its_states_most_stays() -> None:
    model = two_blocks()
    with torch.no_grad():
        views(model)[1].up.weight.fill_(9.0)  # heavy, and without any effect

    def losses() -> Iterable[Tensor]:
        return [model.encoder(model.item_table[torch.tensor([[1, 2]])]).sum()]

    for layers_by, bias in ((OfCriterion(), 0.0), (BlockInfluence(), 4.0)):
        encoder = two_blocks().encoder
        encoder.load_state_dict(model.encoder.state_dict())
        structured = StructuredSequence(criterion=Magnitude(), keep_layers=1, keep_neurons=1.0, layers_by=layers_by)
        cut(encoder, structured, lambda e=encoder: [e(model.item_table[torch.tensor([[1, 2]])]).sum()])
        assert [view.down.bias[1].item() for view in views(encoder)] == [bias]
    assert len(views(model)) == 2


def test_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one calibration batch"):
        BlockInfluence()(two_blocks(), list, NO_SCORES)


def test_is_chosen_by_name_and_the_default_is_in_no_key() -> None:
    assert TypeAdapter(LayersBy).validate_python("block_influence") == BlockInfluence()
    assert OfCriterion()(two_blocks(), list, NO_SCORES).tolist() == [3.0, 1.0]
    common = {"name", "criterion", "keep_layers", "keep_heads", "keep_neurons", "recovery"}
    assert set(StructuredSequence().model_dump()) == common
    assert set(StructuredText().model_dump()) == {*common, "vocabulary"}
    changed = StructuredText.model_validate({"layers_by": "block_influence", "keep_hidden": 0.5, "embedding_rank": 8})
    assert StructuredText.model_validate(changed.model_dump()) == changed
    assert set(changed.model_dump()) == {*common, "vocabulary", "layers_by", "keep_hidden", "embedding_rank"}
