"""Distillation losses by hand, by their gradients and by what they are zero for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from compress.distil.losses import ListwiseKL, SequenceLoss, VectorMSE
from compress.stage import Skip

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4)


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_listwise_kl_by_hand() -> None:
    """Student (1/4, 3/4), teacher (1/2, 1/2): .5 ln 2 + .5 ln(2/3) = .5 ln(4/3); the first column is not listed."""
    logits, items, scores = rows([9.0, 0.0, math.log(3)]), torch.tensor([[1, 2]]), rows([5.0, 5.0])
    value = ListwiseKL(temperature=1.0)(logits, items, scores)
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)


def test_temperature_divides_both_and_its_square_multiplies() -> None:
    logits, items, scores = rows([0.0, 0.0, 2 * math.log(3)]), torch.tensor([[1, 2]]), rows([2 * math.log(2), 0.0])
    # at temperature 2: student (1/4, 3/4), teacher (2/3, 1/3)
    expected = 2 / 3 * math.log((2 / 3) / (1 / 4)) + 1 / 3 * math.log((1 / 3) / (3 / 4))
    assert ListwiseKL(temperature=2.0)(logits, items, scores).item() == pytest.approx(4 * expected, rel=1e-12)


def test_listwise_kl_is_the_mean_over_positions() -> None:
    logits = rows([9.0, 0.0, math.log(3)], [9.0, 1.0, 1.0])
    items, scores = torch.tensor([[1, 2], [2, 1]]), rows([5.0, 5.0], [3.0, 3.0])
    value = ListwiseKL(temperature=1.0)(logits, items, scores)
    assert value.item() == pytest.approx(0.25 * math.log(4 / 3), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(LOGITS, LOGITS, st.floats(-5, 5), st.sampled_from([0.5, 1.0, 3.0]))
def test_listwise_kl_is_zero_for_equal_and_never_negative(
    student: list[float], teacher: list[float], shift: float, temperature: float
) -> None:
    loss, items = ListwiseKL(temperature=temperature), torch.tensor([[2, 0, 3, 1]])
    listed = [student[i] + shift for i in (2, 0, 3, 1)]
    assert abs(loss(rows(student), items, rows(listed)).item()) < 1e-9
    assert loss(rows(student), items, rows(teacher)).item() > -1e-9


def test_listwise_kl_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    items = torch.tensor([[1, 2, 5], [5, 4, 3], [2, 1, 3]])
    scores = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ListwiseKL(temperature=1.7)(x, items, scores), (logits,))
    ListwiseKL()(logits, items, scores).backward()
    assert logits.grad is not None
    listed = torch.zeros(3, 6, dtype=torch.bool).scatter_(1, items, True)
    assert (logits.grad[listed] != 0).all()
    assert (logits.grad[~listed] == 0).all()


def test_vector_mse_by_hand() -> None:
    student, teacher = rows([1.0, 2.0], [0.0, 0.0]), rows([0.0, 2.0], [0.0, 3.0])
    assert VectorMSE()(student, teacher, 0.5).item() == pytest.approx((1 + 9) / 4 / 0.5)


def test_vector_mse_is_one_for_the_constant_mean() -> None:
    teacher = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    variance = float(teacher.var(0, unbiased=False).mean())
    value = VectorMSE()(teacher.mean(0).expand_as(teacher), teacher, variance)
    assert value.item() == pytest.approx(1.0, rel=1e-5)
    assert VectorMSE()(teacher, teacher, variance).item() == 0.0


def test_losses_by_name() -> None:
    adapter: TypeAdapter[ListwiseKL | Skip] = TypeAdapter(SequenceLoss)
    assert adapter.validate_python("listwise_kl") == ListwiseKL()
    assert adapter.validate_python("none") == Skip()
    for wrong in ("kl", {"name": "listwise_kl", "temperature": 0}, {"name": "listwise_kl", "weight": 1.5}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
