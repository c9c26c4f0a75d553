"""Distillation losses: what every entry must be, each by hand, and any mix of them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from compress.data.dataset import Dataset
from compress.distil.distil import DistilConfig
from compress.distil.lists import FullKL, ListwiseKL, RankingDistillation, SampledKL
from compress.distil.losses import SequenceLoss, SequenceLosses, SoftLabels
from compress.distil.mixture import Distillation
from compress.distil.sequence import (
    SequenceStudent,
    StudentInTraining,
    distillation,
    new_student,
    resumed_student,
    student_loss,
)
from compress.distil.step import DistilLoss, Listed, Step, Teaching
from compress.distil.vectors import InfoNCE, VectorAlignment
from compress.models.folder import load_array, load_sequence, write_model
from compress.models.narrow import leading
from compress.stage import RunOptions, Skip
from compress.teacher.cache import CachedScores, cached_scores
from compress.training import Training, windows
from compress.training.softmax import ItemVectors, SampledSoftmax, Sampler
from deploy.errors import UsageError

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4)
ENTRIES = [entry for entry in get_args(SequenceLoss) if issubclass(entry, DistilLoss)]
OF_USERS = [VectorAlignment(of="users"), InfoNCE(of="users")]
EVERY = [*(entry() for entry in ENTRIES), *OF_USERS]
AT_ITS_TEACHER = [loss for loss in EVERY if not isinstance(loss, RankingDistillation | InfoNCE)]
"""Those that are least where student and teacher agree."""
NOTHING = nn.Identity()


def named(loss: DistilLoss) -> str:
    return f"{loss.name}-{loss.of}" if hasattr(loss, "of") else str(loss.name)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def listed(student: Tensor, teacher: Tensor, items: Tensor | None = None) -> Listed:
    items = torch.arange(1, student.shape[1] + 1).expand(len(student), -1) if items is None else items
    return Listed(items, teacher, student)


def step_with(**fields: Any) -> Step:
    """A step of which only what is given matters."""
    none = torch.zeros(0, 1)
    settings: dict[str, Any] = {"targets": none, "users": none, "vectors": ItemVectors(none), "table": lambda: none}
    return Step(**(settings | {"left_out": torch.zeros(99, dtype=torch.bool)} | fields))


# the contract


@pytest.fixture(scope="module")
def taught(film_teacher: dict[str, Path], film_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films' teacher with all that a cache may hold: 10 best items, the others all drawn, user vectors."""
    model = load_sequence(film_teacher["target"])
    vectors = load_array(film_teacher["target"], "item_vectors")
    assert model is not None and vectors is not None
    wanted = CachedScores(top=10, tail=film_dataset.n_items, user_vectors=True)
    arrays = cached_scores(model, film_dataset, wanted, RunOptions()) | {"item_vectors": vectors}
    folder = tmp_path_factory.mktemp("taught")
    write_model(folder, sequence=model, arrays=arrays)
    return folder


@pytest.fixture
def student(film_dataset: Dataset, taught: Path) -> StudentInTraining:
    settings = SequenceStudent(dim=8, neurons=8, max_history=6, dropout=0.0)
    return new_student(settings, film_dataset, Teaching(taught), 0)


def all_items(dataset: Dataset) -> Sampler:
    softmax = SampledSoftmax(negatives=999)
    return softmax.sampler(dataset.train_sequences(), dataset.n_items, np.random.default_rng(0))


@pytest.mark.parametrize("loss", EVERY, ids=named)
def test_every_loss_is_a_finite_scalar_the_same_each_time_on_both_softmaxes(
    loss: DistilLoss, student: StudentInTraining, taught: Path, film_dataset: Dataset
) -> None:
    batch = windows(film_dataset.train_sequences(), 6).batch(np.arange(5))
    alone = [loss.model_copy(update={"weight": 1.0})]  # nothing of the observed next item
    mixed = distillation(student, Teaching(taught), alone)
    found = []
    for sampler in (None, None, all_items(film_dataset)):
        both = nn.ModuleList([student, mixed])
        both.zero_grad()
        value = student_loss(student, batch, mixed, Training(), sampler)
        value.backward()
        grads = {name: p.grad.clone() for name, p in both.named_parameters() if p.grad is not None}
        assert value.shape == () and value.isfinite() and value > 0
        assert all(grad.isfinite().all() for grad in grads.values())
        assert any(grad.any() for name, grad in grads.items() if "free" in name)
        found.append((value, grads))
    first, again, sampled = found
    assert torch.equal(first[0], again[0]) and all(torch.equal(first[1][n], again[1][n]) for n in first[1])
    torch.testing.assert_close(sampled[0], first[0], atol=1e-5, rtol=1e-4)
    for name, grad in first[1].items():
        torch.testing.assert_close(sampled[1][name], grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("loss", EVERY, ids=named)
def test_a_nested_students_loss_is_the_mean_over_students_cut_to_its_prefixes(
    loss: DistilLoss, taught: Path, film_dataset: Dataset
) -> None:
    """What is trained is what is served: the observed items and the teacher's losses of every width by itself."""
    settings = SequenceStudent(dim=8, neurons=8, max_history=6, dropout=0.0, nested=(2, 5, 8))
    teaching, batch = Teaching(taught), windows(film_dataset.train_sequences(), 6).batch(np.arange(5))
    nested = new_student(settings, film_dataset, teaching, 0)
    with torch.no_grad():
        for parameter in nested.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    mixed = distillation(nested, teaching, [loss])
    text_map, parts = nested.text_map, []
    assert text_map is not None
    for width in nested.shape.nested:
        cut = resumed_student(leading(nested.folded(), width), text_map[:, :width], film_dataset, teaching)
        own = distillation(cut, teaching, [loss])
        for head, whole in zip(own.heads, mixed.heads, strict=True):
            if isinstance(head, nn.Linear) and isinstance(whole, nn.Linear):
                head.weight = nn.Parameter(whole.weight[:, :width])  # a narrow vector's columns of the one map
        parts.append(student_loss(cut, batch, own, Training()))
    found = student_loss(nested, batch, mixed, Training())
    torch.testing.assert_close(found, torch.stack(parts).mean(), atol=1e-4, rtol=1e-4)
    found.backward()
    assert nested.table.free.grad is not None and nested.table.free.grad.isfinite().all()


def agreeing(positions: int = 6, n: int = 12, dim: int = 4) -> tuple[Step, Teaching, Tensor, Tensor]:
    """A step in which the student's users and items are the teacher's, and both (leaves)."""
    generator = torch.Generator().manual_seed(3)
    users = torch.randn(positions, dim, generator=generator).requires_grad_(True)
    table = functional.pad(torch.randn(n, dim, generator=generator), (0, 0, 1, 0)).requires_grad_(True)
    left_out = torch.arange(n + 1) == 0
    scores = users @ table.T
    order = scores.detach().masked_fill(left_out, -math.inf).argsort(1, descending=True)
    lists = [Listed(i, scores.detach().gather(1, i), scores.gather(1, i)) for i in (order[:, :3], order[:, 3:8])]
    step = Step(
        targets=order[:, 1],
        users=users,
        vectors=ItemVectors(table),
        table=lambda: table,
        left_out=left_out,
        best=lists[0],
        tail=lists[1],
        tail_size=n - 3,
        normalisers=scores[:, 1:].logsumexp(1),
        teacher_users=users.detach(),
        teacher_table=table.detach(),
        teacher_items=table.detach(),
    )
    teaching = object.__new__(Teaching)
    teaching.item_vectors = table.detach().numpy()
    teaching.user_vectors, teaching.table = users.detach(), table.detach()
    return step, teaching, users, table


@pytest.mark.parametrize("loss", AT_ITS_TEACHER, ids=named)
def test_no_gradient_where_student_and_teacher_agree(loss: DistilLoss) -> None:
    step, teaching, users, table = agreeing()
    value = loss(step, loss.head(table.detach(), teaching))
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    for grad in torch.autograd.grad(value, [users, table], allow_unused=True):
        assert grad is None or grad.abs().max() < 1e-5


# the losses of lists by hand


def test_listwise_kl_by_hand() -> None:
    """Student (1/4, 3/4), teacher (1/2, 1/2): .5 ln 2 + .5 ln(2/3) = .5 ln(4/3)."""
    best = listed(rows([0.0, math.log(3)]), rows([5.0, 5.0]))
    value = ListwiseKL(temperature=1.0)(step_with(best=best), NOTHING)
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)


def test_temperature_divides_both_and_its_square_multiplies() -> None:
    best = listed(rows([0.0, 2 * math.log(3)]), rows([2 * math.log(2), 0.0]))
    # at temperature 2: student (1/4, 3/4), teacher (2/3, 1/3)
    expected = 2 / 3 * math.log((2 / 3) / (1 / 4)) + 1 / 3 * math.log((1 / 3) / (3 / 4))
    value = ListwiseKL(temperature=2.0)(step_with(best=best), NOTHING)
    assert value.item() == pytest.approx(4 * expected, rel=1e-12)


def test_listwise_kl_is_the_mean_over_positions() -> None:
    best = listed(rows([0.0, math.log(3)], [1.0, 1.0]), rows([5.0, 5.0], [3.0, 3.0]))
    value = ListwiseKL(temperature=1.0)(step_with(best=best), NOTHING)
    assert value.item() == pytest.approx(0.25 * math.log(4 / 3), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(LOGITS, LOGITS, st.floats(-5, 5), st.sampled_from([0.5, 1.0, 3.0]))
def test_divergences_are_zero_for_equal_and_never_negative(
    student: list[float], teacher: list[float], shift: float, temperature: float
) -> None:
    def values(student: Tensor, teacher: Tensor) -> tuple[float, float]:
        whole, best, tail = (listed(student[:, s], teacher[:, s]) for s in (slice(4), slice(2), slice(2, 4)))
        sampled = step_with(best=best, tail=tail, tail_size=7)
        first = ListwiseKL(temperature=temperature)(step_with(best=whole), NOTHING)
        return float(first), float(SampledKL(temperature=temperature)(sampled, NOTHING))

    assert np.abs(values(rows(student), rows(student) + shift)).max() < 1e-9
    assert min(values(rows(student), rows(teacher))) > -1e-9


def test_listwise_kl_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    loss = ListwiseKL(temperature=1.7)
    assert torch.autograd.gradcheck(lambda x: loss(step_with(best=listed(x, scores)), NOTHING), (logits,))


def test_sampled_kl_by_hand() -> None:
    """One best item, one of two others drawn: it stands for both. Teacher 2 : 2 x 1, student 1 : 2 x 1, so (1/2, 1/2)
    against (1/3, 2/3): .5 ln(3/2) + .5 ln(3/4)."""
    best, tail = listed(rows([0.0]), rows([math.log(2)])), listed(rows([0.0]), rows([0.0]))
    value = SampledKL(temperature=1.0)(step_with(best=best, tail=tail, tail_size=2), NOTHING)
    assert value.item() == pytest.approx(0.5 * math.log(3 / 2) + 0.5 * math.log(3 / 4), rel=1e-12)


def whole_catalogue(n: int = 40) -> tuple[Tensor, Tensor]:
    """Student's and teacher's scores of `n` items at three positions; the teacher's first items are its best."""
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(3, n, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, n, generator=generator, dtype=torch.float64).mul(1.5).sort(1, descending=True).values
    return student, teacher


def kl_by_hand(student: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for s, t in zip((student / temperature).tolist(), (teacher / temperature).tolist(), strict=True):
        normaliser_s, normaliser_t = sum(map(math.exp, s)), sum(map(math.exp, t))
        for one_s, one_t in zip(s, t, strict=True):
            p, q = math.exp(one_t) / normaliser_t, math.exp(one_s) / normaliser_s
            total += p * math.log(p / q)
    return total / len(student) * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_with_every_item_drawn_the_sampled_kl_is_the_exact_one(temperature: float) -> None:
    student, teacher = whole_catalogue()
    best = listed(student[:, :4], teacher[:, :4])
    order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    tail = listed(student[:, 4:][:, order], teacher[:, 4:][:, order])
    value = SampledKL(temperature=temperature)(step_with(best=best, tail=tail, tail_size=36), NOTHING)
    assert value.item() == pytest.approx(kl_by_hand(student, teacher, temperature), rel=1e-10)


def test_the_sampled_kl_estimates_what_the_list_alone_cannot() -> None:
    """Over many draws of 12 of 36 others it is near the exact KL, and nearer with 24; the list alone is far off."""
    student, teacher = whole_catalogue()
    exact, generator = kl_by_hand(student, teacher, 1.0), torch.Generator().manual_seed(0)
    best, loss = listed(student[:, :4], teacher[:, :4]), SampledKL(temperature=1.0)

    def mean_of(draws: int, count: int) -> float:
        values = []
        for _ in range(draws):
            index = torch.stack([4 + torch.randperm(36, generator=generator)[:count] for _ in range(3)])
            tail = listed(student.gather(1, index), teacher.gather(1, index))
            values.append(float(loss(step_with(best=best, tail=tail, tail_size=36), NOTHING)))
        return float(np.mean(values))

    few, many = abs(mean_of(600, 12) - exact), abs(mean_of(600, 24) - exact)
    assert many < few < 0.1 * exact
    assert abs(float(ListwiseKL(temperature=1.0)(step_with(best=best), NOTHING)) - exact) > 3 * few


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_full_kl_is_the_exact_one_with_its_gradients(temperature: float) -> None:
    """More positions than a piece, teachers of another width, and a row that is no candidate."""
    generator = torch.Generator().manual_seed(2)
    users = torch.randn(70, 3, generator=generator, requires_grad=True)
    table = torch.randn(9, 3, generator=generator, requires_grad=True)
    theirs, their_table = torch.randn(70, 5, generator=generator), torch.randn(9, 5, generator=generator)
    left_out = torch.arange(9) == 0
    step = step_with(
        users=users, table=lambda: table, left_out=left_out, teacher_users=theirs, teacher_table=their_table
    )
    value = FullKL(temperature=temperature)(step, NOTHING)
    student, teacher = (users @ table.T)[:, 1:], (theirs @ their_table.T)[:, 1:]
    assert value.item() == pytest.approx(kl_by_hand(student.detach(), teacher, temperature), rel=1e-4)
    plain = ListwiseKL(temperature=temperature)(step_with(best=listed(student, teacher)), NOTHING)
    for found, wanted in zip(*(torch.autograd.grad(v, [users, table]) for v in (value, plain)), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_all_three_divergences_agree_on_the_whole_catalogue(
    student: StudentInTraining, taught: Path, film_dataset: Dataset
) -> None:
    """From the teacher's files: best items and all others drawn, or user vectors; half floats aside."""
    batch = windows(film_dataset.train_sequences(), 6).batch(np.arange(5))
    losses = [[SampledKL(weight=1.0)], [FullKL(weight=1.0)]]
    values = [student_loss(student, batch, distillation(student, Teaching(taught), one), Training()) for one in losses]
    torch.testing.assert_close(values[0], values[1], atol=1e-3, rtol=1e-3)


def test_ranking_distillation_by_hand() -> None:
    """Two of three listed items count. By place 1 : 1/e, by the teacher's confidence 3 : 1, by the student's agreement
    1 : 1; the observed item is not among them, so that the example counts half."""
    student, teacher = rows([0.0, 0.0, 9.0]), rows([math.log(3), 0.0, -9.0])
    step = step_with(best=listed(student, teacher), targets=torch.tensor([7]), normalisers=rows([2.0])[0])
    loss = RankingDistillation(top=2, position=0.2, confidence=0.5, agreement=0.3)
    first = 0.2 / (1 + math.exp(-1)) + 0.5 * 0.75 + 0.3 * 0.5
    surprise = 2.0  # of both: the normaliser less a logit of 0
    assert loss(step, NOTHING).item() == pytest.approx(0.5 * surprise)
    uneven = replace(step, best=listed(rows([0.0, -1.0, 9.0]), teacher))
    agreement = 1 / (1 + math.exp(-1))
    first = 0.2 / (1 + math.exp(-1)) + 0.5 * 0.75 + 0.3 * agreement
    expected = first * 2.0 + (1 - first) * 3.0
    assert loss(uneven, NOTHING).item() == pytest.approx(0.5 * expected)
    right = replace(uneven, targets=torch.tensor([2]))
    assert loss(right, NOTHING).item() == pytest.approx(expected)


def test_ranking_distillation_leaves_out_what_is_no_candidate() -> None:
    """A list that ends in row 0, and a cold item in it: only the first item counts, wholly."""
    items, cold = torch.tensor([[4, 5, 0]]), torch.arange(9) == 5
    best = listed(rows([1.0, -1e4, -1e4]), rows([0.0, -1.0, -6e4]), items)
    left_out = cold | (torch.arange(9) == 0)
    step = step_with(best=best, targets=torch.tensor([4]), normalisers=rows([2.5])[0], left_out=left_out)
    assert RankingDistillation()(step, NOTHING).item() == pytest.approx(1.5)


def test_ranking_distillation_says_nothing_of_agreement_to_its_gradient() -> None:
    logits = rows([0.3, -0.2]).requires_grad_(True)
    step = step_with(best=listed(logits, rows([1.0, 0.0])), targets=torch.tensor([1]), normalisers=rows([2.0])[0])
    (grad,) = torch.autograd.grad(RankingDistillation(agreement=5.0)(step, NOTHING), logits)
    assert grad.sum().item() == pytest.approx(-1.0)  # weights are numbers: they sum to 1


# the losses of vectors by hand


def vectors_step(**fields: Any) -> Step:
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    theirs = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [6.0, 6.0]])
    return step_with(targets=torch.tensor([2, 1, 2]), vectors=ItemVectors(table), teacher_items=theirs, **fields)


def teaching_of(items: Tensor) -> Teaching:
    teaching = object.__new__(Teaching)
    teaching.item_vectors = items.numpy()
    return teaching


def test_vector_alignment_by_hand() -> None:
    """Items 1 and 2, each once, through twice the identity: only item 2's second number is off, by 2. The teacher's
    numbers have the variances 56/9 and 56/9 over its three items."""
    loss = VectorAlignment()
    head = loss.head(torch.eye(4)[:, :2], teaching_of(vectors_step().teacher_items))
    with torch.no_grad():
        head.weight.copy_(2 * torch.eye(2))
    assert loss(vectors_step(), head).item() == pytest.approx((2.0**2 / 4) / (56 / 9))


def test_the_map_starts_as_the_least_squares_one() -> None:
    generator = torch.Generator().manual_seed(0)
    table, theirs = torch.randn(30, 4, generator=generator), torch.randn(30, 6, generator=generator)
    head = VectorAlignment().head(table, teaching_of(theirs))
    wanted = torch.linalg.lstsq(table[1:], theirs[1:]).solution
    torch.testing.assert_close(head.weight, wanted.T, atol=1e-5, rtol=1e-4)


def test_the_map_of_users_starts_by_keeping_all_products() -> None:
    """The teacher's items are a turn of the student's: users turn alike, and every score stays."""
    _step, teaching, users, table = agreeing()
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(5))).Q * 3
    teaching.table = table.detach() @ turn
    head = VectorAlignment(of="users").head(table.detach(), teaching)
    torch.testing.assert_close(head(users) @ teaching.table.T, users @ table.T, atol=1e-4, rtol=1e-4)


def test_info_nce_by_hand() -> None:
    """Two items at right angles: cosines 1 and 0 over a temperature of 1/2, so -ln(e² / (e² + 1))."""
    loss = InfoNCE(temperature=0.5)
    head = loss.head(torch.eye(4)[:, :2], teaching_of(vectors_step().teacher_items))
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    assert loss(vectors_step(), head).item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)


def test_info_nce_takes_evenly_spaced_pairs_where_there_are_many() -> None:
    step, teaching, users, table = agreeing(positions=9)
    head = InfoNCE(of="users").head(table.detach(), teaching)
    few = InfoNCE(of="users", pairs_at_once=3)(step, head)
    assert step.teacher_users is not None
    third = replace(step, users=users[::3], teacher_users=step.teacher_users[::3])
    assert torch.equal(few, InfoNCE(of="users")(third, head))


# the mix


def test_each_loss_takes_its_weight_of_what_stands_before(
    student: StudentInTraining, taught: Path, film_dataset: Dataset
) -> None:
    batch = windows(film_dataset.train_sequences(), 6).batch(np.arange(5))

    def value(*losses: DistilLoss) -> float:
        return student_loss(student, batch, distillation(student, Teaching(taught), losses), Training()).item()

    hard = value()
    first, second, third = (value(loss(weight=1.0)) for loss in (ListwiseKL, RankingDistillation, VectorAlignment))
    mixed = value(ListwiseKL(), RankingDistillation(weight=0.3), VectorAlignment(weight=0.1))
    expected = 0.9 * (0.7 * (0.2 * hard + 0.8 * first) + 0.3 * second) + 0.1 * third
    assert mixed == pytest.approx(expected, rel=1e-5)


def test_only_what_the_losses_need_is_read(student: StudentInTraining, taught: Path) -> None:
    """Losses of vectors list nothing, so that the full softmax keeps its pieces."""
    at, here = torch.tensor([0, 3]), torch.device("cpu")

    def listed_by(*losses: DistilLoss) -> Tensor | None:
        return distillation(student, Teaching(taught), losses).listed(at, here)

    assert listed_by(VectorAlignment(), InfoNCE(), FullKL()) is None
    teaching = Teaching(taught)
    assert teaching.items is not None and teaching.tail_items is not None
    best, whole = listed_by(ListwiseKL()), listed_by(SampledKL(), RankingDistillation())
    assert best is not None and torch.equal(best, teaching.items[at])
    assert whole is not None and torch.equal(whole, torch.cat([teaching.items[at], teaching.tail_items[at]], 1))


def test_a_teacher_without_what_a_loss_needs_is_a_mistake_and_none_at_all_is_a_control(
    student: StudentInTraining, film_teacher: dict[str, Path], tmp_path: Path
) -> None:
    for loss, needed in ((SampledKL(), "cached_scores: {tail: 100}"), (FullKL(), "cached user vectors")):
        with pytest.raises(UsageError, match=needed):
            distillation(student, Teaching(film_teacher["target"]), [loss])
        assert distillation(student, Teaching(tmp_path), [loss]).losses == ()
    with pytest.raises(UsageError, match="soft_labels is for like/dislike rows"):
        distillation(student, Teaching(film_teacher["target"]), [SoftLabels()])


def test_losses_by_name() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(SequenceLosses)
    assert adapter.validate_python("listwise_kl") == (ListwiseKL(),)
    assert adapter.validate_python("none") == (Skip(),)
    both = ["listwise_kl", {"name": "ranking_distillation", "weight": 0.3}]
    assert adapter.validate_python(both) == (ListwiseKL(), RankingDistillation(weight=0.3))
    for wrong in (
        "kl",
        [],
        {"name": "listwise_kl", "temperature": 0},
        {"name": "listwise_kl", "weight": 1.5},
        {"name": "ranking_distillation", "position": 0, "confidence": 0, "agreement": 0},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_one_loss_is_written_as_it_was_before_there_could_be_several() -> None:
    written = DistilConfig().model_dump(mode="json")["loss"]
    assert written == {"name": "listwise_kl", "weight": 0.8, "temperature": 2.0}
    assert DistilConfig.model_validate({"loss": "none"}).model_dump(mode="json")["loss"] == {"name": "none"}
    several = DistilConfig.model_validate({"loss": ["listwise_kl", "info_nce"]})
    assert [loss["name"] for loss in several.model_dump(mode="json")["loss"]] == ["listwise_kl", "info_nce"]
    assert DistilConfig.model_validate(several.model_dump(mode="json")) == several


def test_the_heads_are_no_part_of_the_student(student: StudentInTraining, taught: Path) -> None:
    before = {name for name, _ in student.named_parameters()}
    mixed: Distillation = distillation(student, Teaching(taught), [VectorAlignment(), InfoNCE()])
    assert len(list(mixed.parameters())) == 2
    assert {name for name, _ in student.named_parameters()} == before
