"""Windows, the training loop and the model's answers: every target once, the best state kept, nothing by chance."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.accuracy import at_once
from compress.data.dataset import Dataset
from compress.distil.lists import ListwiseKL
from compress.distil.sequence import SequenceStudent, new_student, train_student
from compress.distil.step import Teaching
from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.stage import RunOptions
from compress.teacher.cache import CachedScores, cached_scores, contexts
from compress.training import (
    Fit,
    Training,
    fit,
    seed_everything,
    top_of_cases,
    validation_ndcg,
    validation_ranks,
    windows,
)

SEQUENCES = st.lists(
    st.lists(st.integers(1, 99), max_size=25).map(lambda rows: np.array(rows, np.int32)), min_size=1, max_size=6
)


def test_windows_by_hand() -> None:
    cut = windows([np.array([1, 2, 3, 4, 5, 6], np.int32), np.array([9], np.int32), np.array([7, 8], np.int32)], 3)
    assert cut.inputs.tolist() == [[3, 4, 5], [1, 2, 0], [7, 0, 0]]
    assert cut.targets.tolist() == [[4, 5, 6], [2, 3, 0], [8, 0, 0]]
    assert cut.positions.tolist() == [[2, 3, 4], [0, 1, -1], [5, -1, -1]]


def test_a_shifted_window_repeats_context_but_no_target() -> None:
    """A cut behind position 4 makes the newest window overlap the one before: its first events are context alone."""

    class AlwaysOne(np.random.Generator):
        def integers(self, *_args: Any, **_kwargs: Any) -> Any:
            return 1

    cut = windows([np.arange(1, 7, dtype=np.int32)], 3, AlwaysOne(np.random.PCG64(0)))
    assert cut.inputs.tolist() == [[3, 4, 5], [2, 3, 4], [1, 0, 0]]
    assert cut.targets.tolist() == [[0, 0, 6], [3, 4, 5], [2, 0, 0]]
    assert cut.positions.tolist() == [[-1, -1, 4], [1, 2, 3], [0, -1, -1]]


@settings(max_examples=150, deadline=None)
@given(SEQUENCES, st.integers(1, 12), st.one_of(st.none(), st.integers(0, 50)))
def test_every_event_but_the_first_is_a_target_exactly_once(
    sequences: list[NDArray[np.int32]], length: int, seed: int | None
) -> None:
    cut = windows(sequences, length, None if seed is None else np.random.default_rng(seed))
    wanted = [int(row) for events in sequences for row in events[1:]]
    previous = [int(row) for events in sequences for row in events[:-1]]
    assert cut.inputs.shape == cut.targets.shape == cut.positions.shape
    assert cut.inputs.shape[1] == length
    asked = cut.targets > 0
    assert np.array_equal(asked, cut.positions >= 0)
    # positions number the targets through all users, and the event before each is the window's input there
    assert sorted(cut.positions[asked].tolist()) == list(range(len(wanted)))
    assert [wanted[p] for p in cut.positions[asked]] == cut.targets[asked].tolist()
    assert [previous[p] for p in cut.positions[asked]] == cut.inputs[asked].tolist()
    # padding is on the right, and no window is without a target
    known = cut.inputs > 0
    assert (known[:, :-1] >= known[:, 1:]).all()
    assert asked.any(1).all()


@settings(max_examples=50, deadline=None)
@given(SEQUENCES, st.integers(1, 12), st.integers(0, 50))
def test_a_batch_is_cut_to_its_longest_window(sequences: list[NDArray[np.int32]], length: int, seed: int) -> None:
    cut = windows(sequences, length, np.random.default_rng(seed))
    index = np.arange(len(cut.inputs))[::2]
    inputs, targets, positions = cut.batch(index)
    used = inputs.shape[1]
    assert used == max(((cut.inputs[i] > 0).sum() for i in index), default=0)
    for tensor, whole in ((inputs, cut.inputs), (targets, cut.targets), (positions, cut.positions)):
        assert tensor.dtype == torch.int64
        assert np.array_equal(tensor.numpy(), whole[index, :used])


def random_model(n_items: int, max_history: int) -> SequenceModel:
    torch.manual_seed(3)
    shape = SequenceShape(
        n_items=n_items, dim=6, head_dim=3, blocks=(BlockShape(heads=2, neurons=4),) * 2, max_history=max_history
    )
    model = SequenceModel(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.item_table[0] = 0.0
    return model.eval()


@pytest.mark.parametrize("max_history", [3, 50])
@torch.no_grad()
def test_cached_scores_at_a_position_are_those_of_its_history(film_dataset: Dataset, max_history: int) -> None:
    """Numbered through all users' training events but the first. Cold items, which students do not learn, are left
    out."""
    model = random_model(film_dataset.n_items, max_history)
    rows, scores = cached_scores(model, film_dataset, CachedScores(top=5), RunOptions()).values()
    assert (rows.dtype, scores.dtype) == (np.int32, np.float16)
    position = 0
    for events in film_dataset.train_sequences():
        for place in range(len(events) - 1):
            history = events[max(0, place + 1 - max_history) : place + 1].astype(np.int64)
            all_scores = (model.user_vectors(torch.from_numpy(history)[None]) @ model.item_table.T)[0]
            all_scores[torch.from_numpy(film_dataset.popularity == 0)] = -math.inf
            np.testing.assert_allclose(scores[position], all_scores.topk(5).values, atol=2e-3, rtol=2e-3)
            np.testing.assert_allclose(all_scores[rows[position].astype(np.int64)], scores[position], rtol=2e-3)
            position += 1
    assert position == len(rows) == len(scores)
    assert rows.min() >= 1
    everything = cached_scores(model, film_dataset, CachedScores(top=film_dataset.n_items), RunOptions())["score_items"]
    assert everything.shape[1] == film_dataset.n_items - len(film_dataset.cold_items)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_contexts_are_every_history_once_in_batches(batch: int) -> None:
    sequences = [np.array(rows, np.int32) for rows in ([4, 5, 6, 7], [], [9], [1, 2])]
    found = list(contexts(sequences, 2, batch))
    assert all(len(part) == batch for part in found[:-1]) and 0 < len(found[-1]) <= batch
    assert np.concatenate(found).tolist() == [[0, 4], [4, 5], [5, 6], [0, 1]]


class Walker(nn.Module):
    """One number that each epoch moves by training."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))

    def at(self) -> float:
        return float(self.place.detach())


def walk(values: list[float], start_competes: bool = False, **training: Any) -> tuple[Walker, Fit, list[float]]:
    """Train by pushing `place` up; validation says `values` in turn. Also returns the place at each validation."""
    module, seen = Walker(), []

    def epoch(_number: int) -> Iterator[Tensor]:
        yield -module.place.sum()

    def validate(_number: int) -> float:
        seen.append(module.at())
        return values[len(seen) - 1]

    settings = {"validate_every": 1, "weight_decay": 0.0, "warmup_epochs": 0} | training
    config = Training.model_validate(settings)
    found = fit(module, [([module.place], 1.0)], config, epoch, validate, RunOptions(), "walk", start_competes)
    return module, found, seen


def test_fit_keeps_the_state_that_validated_best() -> None:
    module, found, seen = walk([0.1, 0.2, 0.5, 0.3, 0.4], epochs=4)
    assert (found.best, found.best_epoch) == (0.5, 2)
    assert seen == sorted(set(seen))
    assert module.at() == seen[2]
    assert [(number, value) for number, _, value in found.curve] == list(enumerate([0.1, 0.2, 0.5, 0.3, 0.4]))
    assert math.isnan(found.curve[0][1])
    assert found.curve[1][1] == 0.0  # the loss where it started
    assert not module.training


def test_fit_stops_by_patience_and_a_start_that_competes_may_win() -> None:
    module, found, seen = walk([0.9] + [0.1] * 20, start_competes=True, epochs=20, patience=3)
    assert (found.best, found.best_epoch) == (0.9, 0)
    assert len(seen) == 4
    assert module.at() == 0.0


def test_an_untrained_start_does_not_compete_however_lucky() -> None:
    module, found, seen = walk([0.9, 0.1, 0.2, 0.1], epochs=3)
    assert (found.best, found.best_epoch) == (0.2, 2)
    assert module.at() == seen[2]
    assert found.curve[0][2] == 0.9


def test_an_equal_validation_is_not_a_better_one() -> None:
    _, found, seen = walk([0.5] * 20, epochs=20, patience=2)
    assert (found.best_epoch, len(seen)) == (1, 4)


def test_a_better_validation_renews_patience() -> None:
    _, found, seen = walk([0.1, 0.0, 0.2, 0.0, 0.3, 0.0, 0.0, 0.9], epochs=20, patience=2)
    assert (found.best_epoch, len(seen)) == (4, 7)


def test_validation_comes_every_so_many_epochs_and_at_the_end() -> None:
    _, found, _ = walk([0.1, 0.2, 0.3, 0.4], epochs=5, validate_every=2)
    assert [number for number, _, _ in found.curve] == [0, 2, 4, 5]


def test_without_epochs_nothing_changes() -> None:
    module, found, _ = walk([0.4], epochs=0)
    assert (found.best, found.best_epoch, module.at()) == (0.4, 0, 0.0)


@pytest.mark.parametrize(
    ("warmup", "steps"),
    [
        # cosine from 1 to a tenth: .1 + .9 * (1 + cos(pi (e - 1) / 4)) / 2
        (0, [1.0, 0.8682, 0.55, 0.2318]),
        (1, [0.5, 0.8682, 0.55, 0.2318]),
    ],
)
def test_learning_rate_warms_up_and_decays_by_hand(warmup: int, steps: list[float]) -> None:
    """AdamW's step under a constant gradient is the learning rate itself."""
    _, _, seen = walk([0.1, 0.2, 0.3, 0.4, 0.5], epochs=4, warmup_epochs=warmup, learning_rate=0.01)
    np.testing.assert_allclose(np.diff(seen), np.array(steps) * 0.01, rtol=1e-3)


def test_a_groups_factor_scales_its_learning_rate() -> None:
    whole, tenth = Walker(), Walker()
    both = nn.ModuleList([whole, tenth])
    values = iter([0.0, 1.0])
    fit(
        both,
        [([whole.place], 1.0), ([tenth.place], 0.1)],
        Training(epochs=1, warmup_epochs=0, learning_rate=0.01, weight_decay=0.0),
        lambda _number: iter([-(whole.place + tenth.place).sum()]),
        lambda _number: next(values),
        RunOptions(),
        "both",
    )
    assert whole.at() == pytest.approx(0.01, rel=1e-3)
    assert tenth.at() == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("taught", [False, True])
def test_training_is_deterministic_given_the_seed(
    film_dataset: Dataset, film_teacher: dict[str, Path], tmp_path: Path, taught: bool
) -> None:
    teaching = Teaching(film_teacher["target"] if taught else tmp_path)

    def train(seed: int) -> tuple[Fit, list[Tensor]]:
        rng = seed_everything(seed, RunOptions(threads=1))
        student = new_student(SequenceStudent(dim=8, neurons=8, max_history=6), film_dataset, teaching, seed)
        training = Training(epochs=2, validate_every=1, batch_size=32)
        found = train_student(student, film_dataset, teaching, [ListwiseKL()], training, rng, RunOptions(), "t")
        return found, [p.detach().clone() for p in student.parameters()]

    (one, first), (two, second), (_, other) = train(5), train(5), train(6)
    assert one.curve[1:] == two.curve[1:]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@torch.no_grad()
def test_answers_leave_out_everything_seen_and_rank_the_rest(film_dataset: Dataset) -> None:
    model = random_model(film_dataset.n_items, 4)
    cases = film_dataset.cases("valid")
    top = top_of_cases(model, cases, film_dataset.n_items, chunk=7)
    ranks = validation_ranks(model, film_dataset)
    gains = []
    for answer, rank, history, seen, target in zip(
        top, ranks, cases.histories(4), cases.seen, cases.targets, strict=True
    ):
        known = torch.from_numpy(history[history > 0])
        scores = (model.encoder(model.item_table[known][None])[0, -1] @ model.item_table.T).numpy()
        wanted = [row for row in np.argsort(-scores) if row and row not in seen]
        assert answer[: len(wanted)].tolist() == wanted
        assert not answer[len(wanted) :].any()
        assert rank == wanted.index(target) + 1
        gains.append(1 / math.log2(1 + rank) if rank <= 10 else 0.0)
    assert validation_ndcg(model, film_dataset) == pytest.approx(np.mean(gains))


def test_a_large_catalogue_is_scored_for_fewer_histories_at_a_time() -> None:
    assert at_once(12_101) == 512
    assert [at_once(n) * (n + 1) <= 2**26 for n in (10**5, 10**6, 10**7)] == [True] * 3
    assert at_once(10**6) == 67
    assert at_once(10**9) == 1


def test_seeding_gives_torch_and_numpy_the_same_start() -> None:
    def draw(seed: int) -> tuple[float, float]:
        return seed_everything(seed, RunOptions()).random(), float(torch.rand(()))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_progress_is_told_every_epoch() -> None:
    told: list[tuple[str, int | None, list[int]]] = []

    def progress(items: Any, what: str, total: int | None) -> Iterator[Any]:
        told.append((what, total, list(items)))
        return iter(told[-1][2])

    options, values = RunOptions(progress=progress), iter([0.1, 0.2])
    module = Walker()
    losses: Callable[[int], Iterator[Tensor]] = lambda _number: iter([module.place.sum()])  # noqa: E731
    fit(module, [([module.place], 1.0)], Training(epochs=2), losses, lambda _number: next(values), options, "walk")
    assert told == [("walk", 2, [1, 2])]
