"""Crop, mask and reorder by hand and by what they must keep: no target that its own input tells."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from compress.training import Training, Windows, windows
from compress.training.augment import Augment, Augmentation, Crop, Mask, Reorder

SEQUENCES = st.lists(
    st.lists(st.integers(1, 99), min_size=2, max_size=20, unique=True).map(lambda rows: np.array(rows, np.int32)),
    min_size=1,
    max_size=6,
)
ENTRIES = [Crop(share=1.0, keep=0.5), Mask(share=1.0, rate=0.4), Reorder(share=1.0, part=0.6)]


def five() -> Windows:
    return windows([np.arange(1, 7, dtype=np.int32)], 7)


class Fixed(np.random.Generator):
    """Draws what it is told: `random` these numbers, `integers` this one."""

    def __init__(self, integer: int, numbers: list[float]) -> None:
        super().__init__(np.random.PCG64(0))
        self.integer, self.numbers = integer, numbers

    def integers(self, _low: Any, high: Any, *_args: Any, **_kwargs: Any) -> Any:
        assert (self.integer < np.asarray(high)).all()
        return np.full(np.shape(high), self.integer)

    def random(self, size: Any = None, *_args: Any, **_kwargs: Any) -> Any:
        return np.zeros(size) if isinstance(size, int) else np.array(self.numbers).reshape(size)


def test_crop_by_hand() -> None:
    """60 % of five events from the second on."""
    cut = Crop(keep=0.6)(five(), Fixed(1, []))
    assert cut.inputs.tolist() == [[2, 3, 4, 0, 0, 0, 0]]
    assert cut.targets.tolist() == [[3, 4, 5, 0, 0, 0, 0]]
    assert cut.positions.tolist() == [[1, 2, 3, -1, -1, -1, -1]]


def test_mask_by_hand() -> None:
    cut = Mask(rate=0.2)(five(), Fixed(0, [0.5, 0.1, 0.9, 0.3, 0.0, 0.0, 0.0]))
    assert cut.inputs.tolist() == [[1, 0, 3, 4, 0, 0, 0]]
    assert cut.targets.tolist() == five().targets.tolist()
    # the hidden newest event still counts: its target is asked
    inputs, targets, _ = cut.batch(np.array([0]))
    assert inputs.tolist() == [[1, 0, 3, 4, 0]] and targets.tolist() == [[2, 3, 4, 5, 6]]


def test_reorder_by_hand() -> None:
    """The events 2, 3, 4 are reversed; at the first two of these places the target could be read off the input."""
    cut = Reorder(part=0.6)(five(), Fixed(1, [0.0, 0.9, 0.5, 0.1, 0.0, 0.0, 0.0]))
    assert cut.inputs.tolist() == [[1, 4, 3, 2, 5, 0, 0]]
    assert cut.targets.tolist() == [[2, 0, 0, 5, 6, 0, 0]]
    assert cut.positions.tolist() == [[0, -1, -1, 3, 4, -1, -1]]


@settings(max_examples=60, deadline=None)
@given(SEQUENCES, st.integers(2, 12), st.integers(0, 99), st.sampled_from(ENTRIES))
def test_no_target_leaks_and_every_window_asks_something(
    sequences: list[NDArray[np.int32]], length: int, seed: int, entry: Augment
) -> None:
    cut = windows(sequences, length)
    before = [array.copy() for array in cut.arrays()]
    changed = entry(cut, np.random.default_rng(seed))
    assert all(np.array_equal(old, array) for old, array in zip(before, cut.arrays(), strict=True))
    assert changed.inputs.shape == cut.inputs.shape
    asked = changed.targets > 0
    assert asked.any(1).all()
    assert np.array_equal(asked, changed.positions >= 0)
    for inputs, targets, positions in zip(*changed.arrays(), strict=True):
        for place in np.flatnonzero(targets):
            # items differ within a sequence: the target is in no input up to its place
            assert targets[place] not in inputs[: place + 1]
            assert (targets[place], positions[place]) in set(
                zip(cut.targets.ravel().tolist(), cut.positions.ravel().tolist(), strict=True)
            )
    events = [set(row[row > 0].tolist()) for row in changed.inputs]
    assert all(new <= set(old.tolist()) for new, old in zip(events, cut.inputs, strict=True))
    if isinstance(entry, Reorder):
        assert np.array_equal(np.sort(changed.inputs), np.sort(cut.inputs))


def test_share_is_the_share_of_windows_that_change() -> None:
    cut = windows([np.arange(1, 40, dtype=np.int32)] * 2000, 50)
    for share in (0.0, 0.25, 1.0):
        changed = Mask(share=share)(cut, np.random.default_rng(1))
        moved = (changed.inputs != cut.inputs).any(1).mean()
        assert moved == pytest.approx(share, abs=0.03)


def test_recipes_name_them_and_mistakes_are_refused() -> None:
    training = Training.model_validate({"augment": ["crop", {"name": "mask", "rate": 0.1}, "reorder"]})
    assert training.augment == (Crop(), Mask(rate=0.1), Reorder())
    for wrong in ({"name": "crop", "keep": 0.0}, {"name": "mask", "share": 1.5}, "shuffle"):
        with pytest.raises(ValidationError):
            TypeAdapter(Augmentation).validate_python(wrong)


@settings(max_examples=60, deadline=None)
@given(SEQUENCES, st.integers(2, 12), st.integers(1, 5), st.integers(0, 99))
def test_batches_by_length_hold_every_window_once_and_like_lengths(
    sequences: list[NDArray[np.int32]], length: int, size: int, seed: int
) -> None:
    cut = windows(sequences, length)
    for by_length in (False, True):
        parts = cut.batches(size, np.random.default_rng(seed), by_length)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(cut.inputs)))
        assert all(len(part) for part in parts)
    spans = sorted((min(found), max(found)) for part in parts for found in [cut.known[part].sum(1).tolist()])
    assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_batches_by_length_hold_about_as_many_targets_each() -> None:
    rng = np.random.default_rng(0)
    cut = windows([np.arange(1, n + 2, dtype=np.int32) for n in rng.integers(1, 30, 400)], 30)
    counts = [int((cut.targets[part] > 0).sum()) for part in cut.batches(20, rng, by_length=True)]
    assert max(counts) - min(counts) <= 60
    assert len(counts) == 20
