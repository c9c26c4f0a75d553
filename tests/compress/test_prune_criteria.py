"""Criteria: what every one must do, and one case by hand for each."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.models.text import TextEncoder
from compress.prune.criteria import Activation, Criterion, FirstOrder, Fisher, Keep, Magnitude, Scores, keep_best
from compress.prune.layers import mask_widths, prune_layers, prune_widths
from compress.prune.views import Width, views
from compress.teacher.backbone import RandomBert

CRITERIA = [Magnitude(), FirstOrder(), Fisher(), Activation()]
TEXTS = ["the matrix reloaded", "a river runs through it", "heat"]
HISTORIES = torch.tensor([[0, 3, 7, 1], [5, 4, 9, 2]])


def sequence_model(blocks: int = 2, dropout: float = 0.5) -> SequenceModel:
    torch.manual_seed(2)
    widths = (BlockShape(heads=4, neurons=10),) * blocks
    shape = SequenceShape(n_items=9, dim=8, head_dim=2, blocks=widths, max_history=4, dropout=dropout)
    model = SequenceModel(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def text_encoder() -> TextEncoder:
    return RandomBert(layers=2, hidden=8, heads=4, neurons=10)(TEXTS, 16, 2)


def losses_of(model: Any) -> Callable[[], Iterable[Tensor]]:
    def losses() -> Iterable[Tensor]:
        if isinstance(model, SequenceModel):
            return (model.user_vectors(HISTORIES[i : i + 1])[:, 0].sum() for i in range(2))
        return (model(*model.tokenize([text]))[:, 0].sum() for text in TEXTS)

    return losses


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: criterion.name)
@pytest.mark.parametrize("make", [sequence_model, text_encoder])
class TestEveryCriterion:
    def test_scores_every_head_neuron_and_layer(self, criterion: Any, make: Callable[[], Any]) -> None:
        model = make()
        scores = criterion(model, losses_of(model))
        assert [s.shape for s in scores.heads] == [(4,), (4,)]
        assert [s.shape for s in scores.neurons] == [(10,), (10,)]
        assert scores.layers.shape == (2,)
        for array in [*scores.heads, *scores.neurons, scores.layers]:
            assert array.dtype == np.float64
            assert np.isfinite(array).all()
            assert (array > 0).all()

    def test_same_model_same_scores(self, criterion: Any, make: Callable[[], Any]) -> None:
        model = make().train()
        first, second = (criterion(model, losses_of(model)) for _ in range(2))
        for a, b in zip([*first.heads, *first.neurons], [*second.heads, *second.neurons], strict=True):
            np.testing.assert_array_equal(a, b)

    def test_leaves_the_model_as_it_was(self, criterion: Any, make: Callable[[], Any]) -> None:
        model = make().train()
        views(model)[0].down.weight.requires_grad_(False)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        required = [p.requires_grad for p in model.parameters()]
        criterion(model, losses_of(model))
        assert model.training
        assert [p.requires_grad for p in model.parameters()] == required
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    def test_parts_set_to_zero_score_zero(self, criterion: Any, make: Callable[[], Any]) -> None:
        model = mask_widths(make(), [Width((0, 1, 3), tuple(range(9)))] * 2)
        scores = criterion(model, losses_of(model))
        assert [int(s.argmin()) for s in scores.heads] == [2, 2]
        assert [s[2] for s in scores.heads] == [0.0, 0.0]
        assert [s[9] for s in scores.neurons] == [0.0, 0.0]

    def test_what_it_keeps_can_be_pruned(self, criterion: Any, make: Callable[[], Any]) -> None:
        model = make()
        keep = keep_best(criterion(model, losses_of(model)), heads=0.5, neurons=0.3, layers=1)
        prune_widths(model, keep.widths)
        prune_layers(model, keep.layers)
        assert [(v.heads, v.neurons) for v in views(model)] == [(2, 3)]

    def test_is_chosen_by_name(self, criterion: Any, make: Callable[[], Any]) -> None:
        del make
        adapter: TypeAdapter[Any] = TypeAdapter(Criterion)
        assert adapter.validate_python(criterion.name) == criterion
        assert adapter.validate_python({"name": criterion.name}) == criterion


def test_an_unknown_name_lists_the_allowed_ones() -> None:
    with pytest.raises(ValidationError, match="'magnitude', 'first_order', 'fisher', 'activation'"):
        TypeAdapter(Criterion).validate_python("random")


def tiny_model() -> SequenceModel:
    """One block of two one-wide heads and two neurons, dim 2, everything zero but what a test sets."""
    blocks = (BlockShape(heads=2, neurons=2),)
    model = SequenceModel(SequenceShape(n_items=2, dim=2, head_dim=1, blocks=blocks, max_history=2))
    with torch.no_grad():
        for parameter in model.encoder.blocks.parameters():
            parameter.zero_()
    return model


def test_magnitude_by_hand() -> None:
    model = tiny_model()
    (view,) = views(model)
    with torch.no_grad():
        view.query.weight[0] = torch.tensor([1.0, 2.0])
        view.key.bias[0] = 2.0
        view.output.weight[:, 0] = torch.tensor([0.0, 4.0])  # head 0: 1 + 4 + 4 + 16 = 25
        view.value.weight[1] = torch.tensor([3.0, 4.0])
        view.output.weight[:, 1] = torch.tensor([12.0, 0.0])  # head 1: 9 + 16 + 144 = 169
        view.up.weight[0] = torch.tensor([2.0, 0.0])
        view.up.bias[0] = 2.0
        view.down.weight[:, 0] = torch.tensor([2.0, 2.0])  # neuron 0: 4 + 4 + 8 = 16
        view.output.bias[0] = 100.0  # owned by no head
    scores = Magnitude()(model, lambda: pytest.fail("magnitude needs no losses"))
    np.testing.assert_allclose(scores.heads[0], [5.0, 13.0])
    np.testing.assert_allclose(scores.neurons[0], [4.0, 0.0])
    np.testing.assert_allclose(scores.layers, [np.sqrt(25.0 + 169.0 + 16.0)])


def test_first_order_by_hand() -> None:
    """The loss is linear in the two maps, so weight x gradient is known: c * w."""
    model = tiny_model()
    (view,) = views(model)
    with torch.no_grad():
        view.output.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        view.down.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 2.0]]))

    def losses() -> Iterable[Tensor]:
        yield (view.output.weight * torch.tensor([[1.0, 1.0], [1.0, 4.0]])).sum() + view.down.weight.sum()
        yield -2.0 * view.output.weight.sum() + 3.0 * view.down.weight.sum()

    scores = FirstOrder()(model, losses)
    # heads: |1 + 3|, |-2 + 2|, then |-2 * 4|, |-2 * -1.5|; neurons: |1 - 1|, |2 + 2|, then three times that
    np.testing.assert_allclose(scores.heads[0], [(4 + 8) / 2, (0 + 3) / 2])
    np.testing.assert_allclose(scores.neurons[0], [0.0, (4 + 12) / 2])
    np.testing.assert_allclose(scores.layers, [6 + 1.5 + 0 + 8])


def test_fisher_by_hand() -> None:
    """As for `first_order`, squared before the mean: batches of 4 and -8, 0 and 3; neurons 0, and 4 and 12."""
    model = tiny_model()
    (view,) = views(model)
    with torch.no_grad():
        view.output.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        view.down.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 2.0]]))

    def losses() -> Iterable[Tensor]:
        yield (view.output.weight * torch.tensor([[1.0, 1.0], [1.0, 4.0]])).sum() + view.down.weight.sum()
        yield -2.0 * view.output.weight.sum() + 3.0 * view.down.weight.sum()

    scores = Fisher()(model, losses)
    np.testing.assert_allclose(scores.heads[0], [(16 + 64) / 2, (0 + 9) / 2])
    np.testing.assert_allclose(scores.neurons[0], [0.0, (16 + 144) / 2])
    np.testing.assert_allclose(scores.layers, [40 + 4.5 + 0 + 80])


def test_activation_by_hand() -> None:
    """Activations' norms over two batches 5 and 2 (neurons), 1 and 2 (heads); the columns' norms 5 and 1, 1 and 2."""
    model = tiny_model()
    (view,) = views(model)
    with torch.no_grad():
        view.down.weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
        view.output.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0]]))

    def losses() -> Iterable[Tensor]:
        yield view.down(torch.tensor([[[3.0, 0.0]]])).sum() + view.output(torch.tensor([[[1.0, -2.0]]])).sum()
        yield view.down(torch.tensor([[[-4.0, 2.0]]])).sum()

    scores = Activation()(model, losses)
    np.testing.assert_allclose(scores.neurons[0], [25.0, 2.0])
    np.testing.assert_allclose(scores.heads[0], [1.0, 4.0])
    np.testing.assert_allclose(scores.layers, [np.sqrt(625 + 4 + 1 + 16)])
    with pytest.raises(ValueError, match="at least one calibration batch"):
        Activation()(model, list)


def test_first_order_is_the_loss_change_of_closing_a_gate_a_little() -> None:
    model = sequence_model(dropout=0.0).double().eval()
    losses = losses_of(model)
    scores = FirstOrder()(model, lambda: list(losses())[:1])
    view, step = views(model)[1], 1e-6

    def change(columns: Tensor) -> float:
        before = float(next(iter(losses())))
        columns *= 1 - step
        after = float(next(iter(losses())))
        columns /= 1 - step
        return abs(after - before) / step

    with torch.no_grad():
        heads = [change(view.output.weight[:, 2 * head : 2 * head + 2]) for head in range(4)]
        neurons = [change(view.down.weight[:, neuron]) for neuron in range(10)]
    np.testing.assert_allclose(scores.heads[1], heads, rtol=1e-3)
    np.testing.assert_allclose(scores.neurons[1], neurons, rtol=1e-3)


def test_first_order_refuses_no_data_and_useless_losses() -> None:
    model = sequence_model()
    with pytest.raises(ValueError, match="at least one calibration batch"):
        FirstOrder()(model, list)
    with pytest.raises(ValueError, match="finite"):
        FirstOrder()(model, lambda: (loss * float("nan") for loss in losses_of(model)()))
    with pytest.raises(RuntimeError, match="not have been used"):
        FirstOrder()(model, lambda: [views(model)[0].output.weight.sum()])


def scores_of(heads: list[list[float]], neurons: list[list[float]], layers: list[float]) -> Scores:
    return Scores(tuple(map(np.array, heads)), tuple(map(np.array, neurons)), np.array(layers))


def test_keep_best_by_hand() -> None:
    scores = scores_of([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]], [[0.0, 1.0], [2.0, 1.0]], [1.0, 1.0])
    assert keep_best(scores, heads=0.67, neurons=0.5, layers=1) == Keep(
        (Width((1, 2), (1,)), Width((0, 1), (0,))), (0,)
    )


def test_of_equal_scores_the_lower_index_stays() -> None:
    scores = scores_of([[0.0, 1.0] * 50], [[1.0, 0.0, 0.0] * 200], [2.0, 1.0, 2.0] * 20)
    keep = keep_best(scores, heads=0.25, neurons=0.25, layers=30)
    odd, thirds = tuple(range(1, 51, 2)), tuple(range(0, 450, 3))
    assert keep == Keep((Width(odd, thirds),), tuple(i for i in range(45) if i % 3 != 1))


def test_keep_best_keeps_all_by_default_and_one_at_least() -> None:
    scores = scores_of([[1.0, 3.0]], [[0.0, 1.0, 2.0]], [1.0])
    assert keep_best(scores) == Keep((Width((0, 1), (0, 1, 2)),), (0,))
    assert keep_best(scores, heads=0.01, neurons=0.01, layers=0) == Keep((Width((1,), (2,)),), (0,))
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        keep_best(scores, heads=0.0)
