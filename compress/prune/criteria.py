"""Which heads, neurons and layers matter least: the criteria, and what to keep by their scores."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from compress.prune.views import Model, Width, views
from compress.stage import Entry, Shorthand

Floats = NDArray[np.float64]
Losses = Callable[[], Iterable[Tensor]]
"""Makes the losses of calibration batches, one scalar with its graph after the other, from the model being scored."""


@dataclass(frozen=True)
class Scores:
    """Importance, higher = keep. Comparable within one kind and one criterion only.

    heads, neurons: one array per layer, (heads,) and (neurons,) float64; layers: (layers,) float64.
    """

    heads: tuple[Floats, ...]
    neurons: tuple[Floats, ...]
    layers: Floats


@dataclass(frozen=True)
class Keep:
    """What stays: a width for every layer of the scored model (for `prune_widths`), and the layers' indices."""

    widths: tuple[Width, ...]
    layers: tuple[int, ...]


class Magnitude(Entry):
    """L2 norm of all weights a head or neuron owns (Li et al. 2017, section 3.1, has the L1 norm of a filter).

    A layer's score is the norm over its heads and neurons together. Needs no data: losses are not asked for.
    """

    name: Literal["magnitude"] = "magnitude"

    def __call__(self, model: Model, losses: Losses) -> Scores:
        del losses
        heads = tuple(_norms(view.head_parts()) for view in views(model))
        neurons = tuple(_norms(view.neuron_parts()) for view in views(model))
        layers = [np.sqrt(np.square(h).sum() + np.square(n).sum()) for h, n in zip(heads, neurons, strict=True)]
        return Scores(heads, neurons, np.array(layers))


class FirstOrder(Entry):
    """|loss change| to first order when a gate on a head's or neuron's output closes, expected over batches.

    The derivative by such a gate is weight x gradient summed over the columns that read the output; the absolute value
    is taken of the sum. For heads that is Michel et al. 2019, section 4.1; for neurons the gates of Molchanov et al.
    2019, with the absolute value in place of the square. A layer's score is the sum over its heads and neurons, which
    bounds the first-order change of the loss when all of them go.

    Dropout is off while scoring; `grad` and `requires_grad` of the model are left as they were. Raises ValueError
    without a batch or where a score is not finite, RuntimeError where a loss does not depend on every layer.
    """

    name: Literal["first_order"] = "first_order"

    def __call__(self, model: Model, losses: Losses) -> Scores:
        return _mean_over_batches(model, losses, np.abs)


class Fisher(Entry):
    """The square in place of the absolute value: the gates' empirical Fisher information, batch by batch.

    Molchanov et al. 2019, equation 8, with a gate per head or neuron. Batches in which a part matters much count more
    than in `first_order`. All else, and what is raised, is as there.
    """

    name: Literal["fisher"] = "fisher"

    def __call__(self, model: Model, losses: Losses) -> Scores:
        return _mean_over_batches(model, losses, np.square)


class Activation(Entry):
    """|weight| x norm of the activation it reads, over the calibration batches (Wanda: Sun et al. 2024, section 3).

    There a score is one weight's; here a neuron's is the L2 norm over its column of `down`, a head's over its columns
    of `output`, a layer's over both. Needs the batches' forward passes and no gradients. Padded positions count as
    others do. Raises ValueError without a batch or where a score is not finite.
    """

    name: Literal["activation"] = "activation"

    def __call__(self, model: Model, losses: Losses) -> Scores:
        layers = views(model)
        read = {linear: torch.zeros(linear.in_features) for view in layers for linear in (view.output, view.down)}

        def add(linear: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(linear, nn.Linear)
            read[linear] = read[linear].to(inputs[0].device) + inputs[0].detach().double().square().flatten(0, -2).sum(
                0
            )

        hooks = [linear.register_forward_pre_hook(add) for linear in read]
        try:
            batches = forward_passes(model, losses)
        finally:
            for hook in hooks:
                hook.remove()
        heads, neurons = [], []
        for view in layers:
            of_heads, of_neurons = (
                (read[linear].cpu() * linear.weight.detach().double().square().sum(0).cpu()).numpy()
                for linear in (view.output, view.down)
            )
            heads.append(np.sqrt(of_heads.reshape(view.heads, -1).sum(1)))
            neurons.append(np.sqrt(of_neurons))
        check_scores(batches, [*heads, *neurons])
        both = [np.sqrt(np.square(h).sum() + np.square(n).sum()) for h, n in zip(heads, neurons, strict=True)]
        return Scores(tuple(heads), tuple(neurons), np.array(both))


Criterion = Annotated[Magnitude | FirstOrder | Fisher | Activation, Field(discriminator="name"), Shorthand]


def keep_best(scores: Scores, heads: float = 1.0, neurons: float = 1.0, layers: int | None = None) -> Keep:
    """Keep the best share (0..1] of the heads and neurons of every layer, and the `layers` best layers (None: all).

    Shares are per layer, so that all layers keep equal widths where they had them; counts are rounded (halves to
    even) and at least 1. Of equal scores the lower index stays. Kept indices are in their original order.
    """
    widths = tuple(
        Width(_best(of_heads, _count(of_heads, heads)), _best(of_neurons, _count(of_neurons, neurons)))
        for of_heads, of_neurons in zip(scores.heads, scores.neurons, strict=True)
    )
    wanted = len(scores.layers) if layers is None else min(max(1, layers), len(scores.layers))
    return Keep(widths, _best(scores.layers, wanted))


def _mean_over_batches(model: Model, losses: Losses, size: Callable[[Floats], Floats]) -> Scores:
    """`size` of every gate's derivative, mean over batches; a layer's score is the sum over its heads and neurons."""
    layers = views(model)
    weights = [linear.weight for view in layers for linear in (view.output, view.down)]
    heads = [np.zeros(view.heads) for view in layers]
    neurons = [np.zeros(view.neurons) for view in layers]
    batches = 0
    with _differentiable(model, weights):
        for loss in losses():
            gradients = torch.autograd.grad(loss, weights)
            for i, view in enumerate(layers):
                of_inner = _gate_gradients(view.output, gradients[2 * i])
                heads[i] += size(of_inner.reshape(view.heads, -1).sum(1))
                neurons[i] += size(_gate_gradients(view.down, gradients[2 * i + 1]))
            batches += 1
    check_scores(batches, [*heads, *neurons])
    sums = np.array([h.sum() + n.sum() for h, n in zip(heads, neurons, strict=True)])
    return Scores(tuple(h / batches for h in heads), tuple(n / batches for n in neurons), sums / batches)


def forward_passes(model: Model, losses: Losses) -> int:
    """Run the calibration batches without dropout and gradients, for hooks in the model to see; returns how many."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return sum(1 for _ in losses())
    finally:
        model.train(training)


def check_scores(batches: int, scores: Sequence[Floats]) -> None:
    """Raises ValueError without a batch and where a score is not finite."""
    if not batches:
        raise ValueError("losses: at least one calibration batch (got none)")
    if not all(np.isfinite(of_one).all() for of_one in scores):
        raise ValueError("losses: gradients and activations must be finite (got nan or inf)")


def _count(scores: Floats, share: float) -> int:
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share: must be above 0 and at most 1 (got {share})")
    return max(1, round(share * len(scores)))


def _best(scores: Floats, count: int) -> tuple[int, ...]:
    order = np.argsort(-scores, kind="stable")
    return tuple(sorted(int(index) for index in order[:count]))


def _norms(parts: Iterable[Tensor]) -> Floats:
    squares = [part.detach().double().square().flatten(1).sum(1) for part in map(_at_least_2d, parts)]
    return np.asarray(torch.stack(squares).sum(0).sqrt().cpu().numpy(), dtype=np.float64)


def _at_least_2d(part: Tensor) -> Tensor:
    return part[:, None] if part.ndim == 1 else part


def _gate_gradients(linear: nn.Linear, gradient: Tensor) -> Floats:
    """d loss / d (a factor, now 1, on each input of the map): (in_features,)."""
    products = linear.weight.detach().double() * gradient.double()
    return np.asarray(products.sum(0).cpu().numpy(), dtype=np.float64)


@contextmanager
def _differentiable(model: Model, weights: Sequence[Tensor]) -> Iterator[None]:
    training, required = model.training, [weight.requires_grad for weight in weights]
    model.eval()
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight, before in zip(weights, required, strict=True):
            weight.requires_grad_(before)
        model.train(training)
