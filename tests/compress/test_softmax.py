"""The sampled softmax by hand, against the full one, and its expectation over draws."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.data.dataset import Dataset
from compress.distil.lists import ListwiseKL
from compress.distil.sequence import SequenceStudent, distillation, new_student, student_loss, train_student
from compress.distil.step import Teaching
from compress.models.text import TextEncoder
from compress.stage import RunOptions
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import Training, seed_everything, windows
from compress.training.softmax import (
    Candidates,
    FullSoftmax,
    ItemVectors,
    SampledSoftmax,
    Sampler,
    next_item_loss,
    rows_needed,
)


def sampler_of(sequences: list[list[int]], negatives: int, in_batch: bool = True, seed: int = 0) -> Sampler:
    arrays = [np.array(rows, np.int32) for rows in sequences]
    return SampledSoftmax(negatives=negatives, in_batch=in_batch).sampler(
        arrays, max(map(max, sequences)), np.random.default_rng(seed)
    )


def test_loss_by_hand() -> None:
    """User 1, vectors ln 2, ln 3, ln 5 for items 1, 2, 3. Candidates 1 (chance 1/2) and 3 (chance 1/4), target 3:
    own 5, others 2 / (1/2) = 4, and 3 masked as it is the target: -ln(5 / 9)."""
    vectors = ItemVectors(torch.tensor([[0.0], [math.log(2)], [math.log(3)], [math.log(5)]]))
    candidates = Candidates(torch.tensor([1, 3]), torch.tensor([0.5, 0.25]).log(), torch.tensor([0]))
    users = torch.ones(1, 1)
    loss = candidates.loss(users, vectors, torch.tensor([3]), 0.0)[0]
    assert loss.item() == pytest.approx(-math.log(5 / 9), rel=1e-6)
    # smoothing asks for the mean score of the uniform draws, here item 1 alone, in a tenth
    smooth = candidates.loss(users, vectors, torch.tensor([3]), 0.1)[0]
    assert smooth.item() == pytest.approx(-0.9 * math.log(5 / 9) - 0.1 * math.log(2 / 9), rel=1e-6)


def test_chances_by_hand() -> None:
    """Targets are 2, 2, 2, 3 of warm 1..3: shares 0, 3/4, 1/4. One uniform draw of three items, three positions: the
    two others bring item 3 with 1 - (3/4)^2, item 2 with 1 - (1/4)^2."""
    sampler = sampler_of([[1, 2], [1, 2], [1, 2], [1, 3]], negatives=1)
    found = sampler(torch.tensor([2, 3, 2]))
    chance = dict(zip(found.items.tolist(), found.log_chance.exp().tolist(), strict=True))
    assert chance[2] == pytest.approx(1 - 2 / 3 * (1 / 4) ** 2, rel=1e-6)
    assert chance[3] == pytest.approx(1 - 2 / 3 * (3 / 4) ** 2, rel=1e-6)
    if 1 in chance:
        assert chance[1] == pytest.approx(1 / 3, rel=1e-6)
    alone = sampler_of([[1, 2], [1, 3]], negatives=2, in_batch=False)(torch.tensor([2, 3, 2]))
    assert alone.log_chance.exp().tolist() == pytest.approx([2 / 3] * 2)
    assert alone.items[alone.uniform].tolist() == alone.items.tolist()


def random_step(n_items: int = 30, positions: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(n_items + 1, 6, generator=generator, dtype=torch.float64)
    users = torch.randn(positions, 6, generator=generator, dtype=torch.float64)
    return table, users, torch.randint(1, n_items + 1, (positions,), generator=generator)


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_with_every_item_a_candidate_it_is_the_full_softmax(in_batch: bool, smoothing: float) -> None:
    table, users, targets = random_step()
    users.requires_grad_(True)
    sampler = sampler_of([list(range(1, 31)), [4, 5]], negatives=99, in_batch=in_batch)
    sampled = sampler(targets).loss(users, ItemVectors(table), targets, smoothing)[0]
    full = nn.functional.cross_entropy(users @ table[1:].T, targets - 1, label_smoothing=smoothing)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(loss, users)[0] for loss in (sampled, full))
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("in_batch", [True, False])
def test_the_normaliser_is_unbiased(in_batch: bool) -> None:
    """Batches whose targets are drawn by popularity: the estimated sum of exponentials averages to the catalogue's."""
    rng = np.random.default_rng(5)
    table, users, _ = random_step()
    first = rng.integers(1, 31, 400)
    second = np.minimum(rng.geometric(0.15, 400), 30)
    sequences = [[int(a), int(b)] for a, b in zip(first, second, strict=True)]
    sampler = sampler_of([*sequences, list(range(1, 31))], negatives=5, in_batch=in_batch)
    user, share = users[:1], sampler.share
    exact = float((user @ table[1:].T).exp().sum())
    estimates = []
    for _ in range(1500):
        targets = torch.from_numpy(rng.choice(31, 12, p=share))
        own = float(user @ table[targets[0]])
        # the loss of the first position is ln(total) - own
        loss = float(sampler(targets).loss(user, ItemVectors(table), targets[:1], 0.0)[0])
        estimates.append(math.exp(loss + own))
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error
    assert error < 0.05 * exact


def test_draws_are_warm_items_without_repetition_and_by_seed() -> None:
    sequences = [[3, 9, 3], [7, 12]]
    one, two = (sampler_of(sequences, 3, in_batch=False, seed=4)(torch.tensor([9])) for _ in range(2))
    assert torch.equal(one.items, two.items)
    assert len(set(one.items.tolist())) == 3
    assert set(one.items.tolist()) <= {3, 7, 9, 12}
    assert len({tuple(sampler_of(sequences, 2, seed=s)(torch.tensor([9])).items.tolist()) for s in range(9)}) > 1


def test_needed_rows_hold_padding_and_everything_asked_unless_that_is_most() -> None:
    found = rows_needed(100, torch.tensor([[7, 3]]), torch.tensor([3, 9]))
    assert found is not None
    assert found.tolist() == [0, 3, 7, 9]
    vectors = ItemVectors(torch.arange(4.0)[:, None], found)
    assert vectors[torch.tensor([[9, 0], [3, 7]])][:, :, 0].tolist() == [[3.0, 0.0], [1.0, 2.0]]
    assert rows_needed(8, torch.tensor([[7, 3]]), torch.tensor([3, 5])) is None


def step_of(dataset: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    cut = windows(dataset.train_sequences(), 6)
    return cut.batch(np.arange(2))


def test_items_without_events_are_candidates_where_asked_for() -> None:
    """Items 2 and 4 of five are in no history: left out, or scored like any other; padding never is."""
    warm = torch.tensor([False, True, False, True, False, True])
    assert FullSoftmax().left_out(warm).tolist() == [True, False, True, False, True, False]
    assert FullSoftmax(over="all").left_out(warm).tolist() == [True] + 5 * [False]
    histories = [np.array([1, 3, 5], np.int32)]
    for over, rows in (("warm", [1, 3, 5]), ("all", [1, 2, 3, 4, 5])):
        softmax = SampledSoftmax(negatives=9, over=over)
        assert softmax.sampler(histories, 5, np.random.default_rng(0))(torch.tensor([3])).items.tolist() == rows


@torch.no_grad()
def test_the_loss_over_all_items_by_hand() -> None:
    """User 1, vectors ln 2, ln 3, ln 5 for items 1..3, of which 3 is cold: after 1 comes 2, 3 of 2 + 3 (+ 5)."""
    table = torch.tensor([[0.0], [math.log(2)], [math.log(3)], [math.log(5)]])
    warm = torch.tensor([False, True, True, False])
    batch = (torch.tensor([[1]]), torch.tensor([[2]]))
    for softmax, total in ((FullSoftmax(), 5), (FullSoftmax(over="all"), 10)):
        loss = next_item_loss(lambda _: table, torch.ones_like, batch, softmax.left_out(warm)).loss
        assert loss.item() == pytest.approx(math.log(total / 3), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("listed", [False, True])
def test_the_loss_over_all_items_is_the_cross_entropy_and_its_gradients(smoothing: float, listed: bool) -> None:
    """More positions than a piece holds; smoothing spreads over the candidates alone."""
    torch.manual_seed(0)
    warm = torch.tensor([False] + [True] * 9 + [False])
    table = torch.randn(11, 3, requires_grad=True)
    inputs, targets = torch.randint(1, 10, (2, 30, 5))
    targets[:, 3:] = 0
    lists = torch.randint(1, 10, (90, 2)) if listed else None
    batch = (inputs, targets)
    loss = next_item_loss(lambda _: table, torch.tanh, batch, ~warm, smoothing, listed=lists).loss
    (found,) = torch.autograd.grad(loss, table)
    logits = torch.tanh(table[inputs])[targets > 0] @ table[warm].T
    wanted = nn.functional.cross_entropy(logits, targets[targets > 0] - 1, label_smoothing=smoothing)
    (grads,) = torch.autograd.grad(wanted, table)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(found, grads)


@pytest.mark.parametrize("with_text", [True, False])
def test_a_students_loss_and_gradients_are_the_full_ones_when_all_items_are_candidates(
    film_dataset: Dataset, film_teacher: dict[str, Path], with_text: bool
) -> None:
    """The teacher's part included: its best items are scored one by one instead of read from the whole row."""
    teaching = Teaching(film_teacher["target"])
    settings = SequenceStudent(dim=8, neurons=8, max_history=6, dropout=0.0, text=with_text)
    student = new_student(settings, film_dataset, teaching, 0)
    sampler = SampledSoftmax(negatives=999).sampler(
        film_dataset.train_sequences(), film_dataset.n_items, np.random.default_rng(0)
    )
    grads = []
    for which in (None, sampler):
        student.zero_grad()
        taught = distillation(student, teaching, [ListwiseKL()])
        student_loss(student, step_of(film_dataset), taught, Training(), which).backward()
        grads.append({n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-3)


class Spy:
    """Notes which rows of a table are computed."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.asked = table, []

    def __call__(self, rows: Tensor | None) -> Tensor:
        self.asked.append(rows)
        return self.table if rows is None else self.table[rows]


def test_no_tensor_grows_with_the_catalogue() -> None:
    """A million items: the step computes the rows it needs and allocates nothing of batch x catalogue."""
    n = 1_000_000
    spy = Spy(torch.randn(1, 4).expand(n + 1, 4))
    sampler = sampler_of([[1, n], [5, 6, 7]], negatives=64)
    batch = (torch.tensor([[1, 5], [9, 0]]), torch.tensor([[5, 6], [7, 0]]))
    listed = torch.tensor([[3, 4]] * 3)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        loss, _, _, logits, _ = next_item_loss(
            spy, lambda v: v, batch, torch.zeros(n + 1, dtype=torch.bool), 0.1, sampler, listed
        )
    assert math.isfinite(float(loss)) and logits is not None and logits.shape == (3, 2)
    (rows,) = spy.asked
    assert rows is not None and {0, 1, 3, 4, 5, 6, 7, 9} <= set(rows.tolist()) and len(rows) < 90
    assert max(sizes, default=0) < 1000


@torch.no_grad()
def test_a_teachers_table_of_some_rows_is_those_rows_of_the_whole(
    film_dataset: Dataset, film_teacher: dict[str, Path]
) -> None:
    config = TwoLevel(dim=16, blocks=1, heads=2, neurons=32, max_history=10, trained_layers=1)
    text = TextEncoder.load(film_teacher["target"] / "text")
    teacher = TwoLevelTeacher(config, text, film_dataset, None).eval()
    teacher.ids.normal_()
    rows, fresh = torch.tensor([0, 2, 5, 9, 11]), torch.tensor([4, 10])
    some = teacher.table(fresh, rows=rows)
    torch.testing.assert_close(some, teacher.table(fresh)[rows], atol=1e-6, rtol=1e-5)
    assert not some[0].any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_training_with_a_sample_learns_and_repeats(
    film_dataset: Dataset, tmp_path: Path, label_smoothing: float
) -> None:
    def train() -> tuple[float, float, NDArray[np.float32]]:
        rng = seed_everything(1, RunOptions(threads=1))
        student = new_student(SequenceStudent(dim=8, neurons=8, max_history=6), film_dataset, Teaching(tmp_path), 1)
        training = Training(
            epochs=6,
            batch_size=32,
            learning_rate=1e-2,
            warmup_epochs=0,
            label_smoothing=label_smoothing,
            softmax=SampledSoftmax(negatives=8),
        )
        found = train_student(
            student, film_dataset, Teaching(tmp_path), [ListwiseKL()], training, rng, RunOptions(), "t"
        )
        return found.curve[0][2], found.best, student.table.free.detach().numpy()

    (start, best, first), (_, _, second) = train(), train()
    assert best > start
    assert np.array_equal(first, second)
