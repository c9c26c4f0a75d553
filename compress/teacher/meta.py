"""Meta-learning: a start from which few interactions of a new domain are enough, learned from many small tasks.

Over item vectors of a language model that stays as it is. A task's inner loop takes a few steps on its support, as the
target stage will on K interactions; the outer step moves the start: Reptile (Nichol, Achiam, Schulman 2018) towards
where the inner loops ended, first-order MAML (Finn, Abbeel, Levine 2017) down the query's gradient there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from benchmarks.accuracy import ndcg, ranks_of
from compress.data.dataset import Dataset
from compress.data.few_shot import FewShot
from compress.models.sequence import EncoderSizes, SequenceEncoder, SequenceModel
from compress.stage import Entry, RunOptions, Shorthand
from compress.teacher.tasks import Sequences, Task, Tasks, UserGroups, last_events
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import Fit, Training, fit, top_of_cases, windows
from deploy.errors import UsageError

State = Mapping[str, Tensor]
"""Parameters of a `NextItem` by name."""


class NextItem(nn.Module):
    """What adapts: the map from an LM's states to item vectors, and the sequence encoder over them."""

    def __init__(self, head: nn.Module, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.head, self.encoder = head, encoder

    def table(self, states: Tensor) -> Tensor:
        """LM states (n, hidden) -> item vectors (n + 1, dim), row 0 zero."""
        return functional.pad(self.head(states), (0, 0, 1, 0))

    def forward(self, states: Tensor, inputs: Tensor, targets: Tensor, candidates: Tensor) -> Tensor:
        """LM states (n, hidden), windows (windows, length) int64 of rows 1..n, (n,) bool -> the next item's mean
        cross-entropy in nats among the candidates."""
        table = self.table(states)
        logits = self.encoder(table[inputs])[targets > 0] @ table[1:].T
        return functional.cross_entropy(logits.masked_fill(~candidates, -1e4), targets[targets > 0] - 1)


@dataclass(frozen=True)
class Batch:
    """What `NextItem` takes: a task's LM states, some of its windows, and which items are candidates."""

    states: Tensor
    inputs: Tensor
    targets: Tensor
    candidates: Tensor

    def loss(self, net: NextItem, at: State) -> Tensor:
        loss: Tensor = functional_call(net, dict(at), self.arguments)
        return loss

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.states, self.inputs, self.targets, self.candidates


class InnerLoop(Entry):
    """Steps on the whole support at once; `adam` is without momentum, as in Nichol et al. 2018."""

    steps: PositiveInt = 5
    learning_rate: PositiveFloat = 2e-3
    optimizer: Literal["sgd", "adam"] = "adam"

    def __call__(self, net: NextItem, start: State, support: Batch) -> State:
        """Adapted copies of `start`; the net itself does not move."""
        state = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
        moved = list(state.values())
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(moved, self.learning_rate)
        else:
            optimizer = torch.optim.Adam(moved, self.learning_rate, betas=(0.0, 0.999))
        for _ in range(self.steps):
            _set_gradients(moved, torch.autograd.grad(support.loss(net, state), moved))
            optimizer.step()
        return state


class Reptile(Entry):
    """The start moves by `learning_rate` times the mean displacement of the inner loops."""

    name: Literal["reptile"] = "reptile"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    most_norm: ClassVar[float] = math.inf

    def optimizer(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups)

    def direction(self, net: NextItem, start: State, adapted: State, query: Batch) -> tuple[Tensor, list[Tensor]]:
        """The query's loss where the inner loop ended, and start minus end."""
        with torch.no_grad():
            loss = query.loss(net, adapted)
        return loss, [start[name].detach() - tensor.detach() for name, tensor in adapted.items()]


class FirstOrderMAML(Entry):
    """AdamW on the gradient of the query's loss at the adapted weights, taken as the start's own."""

    name: Literal["fomaml"] = "fomaml"
    learning_rate: PositiveFloat = 2e-3
    most_norm: ClassVar[float] = 1.0

    def optimizer(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, weight_decay=0.05)

    def direction(self, net: NextItem, start: State, adapted: State, query: Batch) -> tuple[Tensor, list[Tensor]]:  # noqa: ARG002
        """The query's loss where the inner loop ended, and its gradient there."""
        loss = query.loss(net, adapted)
        return loss.detach(), list(torch.autograd.grad(loss, list(adapted.values())))


class Meta(EncoderSizes):
    """A start learned from tasks, for a target stage of the same sizes. The language model stays as it is."""

    name: Literal["meta"] = "meta"
    dim: PositiveInt = 128
    heads: PositiveInt = 4
    neurons: PositiveInt = 256
    tasks: Tasks = UserGroups()
    rule: Annotated[Reptile | FirstOrderMAML, Field(discriminator="name"), Shorthand] = FirstOrderMAML()
    inner: InnerLoop = InnerLoop()
    few_shot: FewShot = FewShot(events=20)
    head: bool = True  # false: the map from the LM's states to item vectors stays too
    query_users: PositiveInt = 64
    tasks_per_step: PositiveInt = 4
    epochs: NonNegativeInt = 20
    steps_per_epoch: PositiveInt = 25
    validate_every: PositiveInt = 2
    patience: PositiveInt = 10
    held_out: PositiveInt = 2  # tasks to validate on, never trained on
    draws: PositiveInt = 4  # supports drawn of each of them

    @property
    def two_level(self) -> TwoLevel:
        """The teacher that is learned for: of these sizes, over text alone, with a language model that stays."""
        sizes = {name: getattr(self, name) for name in EncoderSizes.model_fields}
        return TwoLevel(**sizes, id_vectors=False, trained_layers=0)

    @property
    def training(self) -> Training:
        """The outer loop, as `fit` takes it: its warm-up and decay scale the outer steps too."""
        return Training(
            epochs=self.epochs,
            learning_rate=self.rule.learning_rate,
            validate_every=self.validate_every,
            patience=self.patience,
        )


def train_meta(
    config: Meta, teacher: TwoLevelTeacher, dataset: Dataset, rng: np.random.Generator, options: RunOptions, what: str
) -> Fit:
    """Train the teacher's head and sequence encoder in place, on tasks of the domain's training events."""
    net = NextItem(teacher.text.head, teacher.encoder)
    return meta_train(config, net, teacher.bank, config.tasks(dataset, rng), rng, options, what)


def meta_train(
    config: Meta,
    net: NextItem,
    states: Tensor,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    options: RunOptions,
    what: str,
) -> Fit:
    """Leave `net` at the start that, adapted to K interactions of tasks held out, ranks their other users' last events
    best. `states` (n_items, hidden) are those of the domain's items. Raises UsageError where tasks are too few."""
    usable = [task for task in tasks if len(task.divide(config.few_shot, np.random.default_rng(0))[1])]
    if len(usable) <= config.held_out:
        raise UsageError(
            f"source.method.held_out: leaves no task to train on; {len(usable)} of {len(tasks)} tasks have users "
            f"beyond {config.few_shot.events} events (got {config.held_out})"
        )
    order = rng.permutation(len(usable))
    held_out, trained = ([usable[i] for i in part] for part in np.split(order, [config.held_out]))
    options.log(f"{what}: {len(trained)} tasks; held out: {', '.join(task.name for task in held_out)}")
    start = {
        name: parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and (config.head or not name.startswith("head."))
    }

    def epoch(_number: int) -> Iterator[Tensor]:
        for _ in range(config.steps_per_epoch):
            drawn = rng.choice(len(trained), min(config.tasks_per_step, len(trained)), replace=False)
            found = [_direction(config, net, start, states, trained[i], rng) for i in drawn]
            mean = [torch.stack(parts).mean(0) for parts in zip(*(parts for _, parts in found), strict=True)]
            yield _carrying(torch.stack([loss for loss, _ in found]).mean(), list(start.values()), mean)

    def validate(_number: int) -> float:
        net.eval()
        return float(np.mean([_adapted_ndcg(config, net, start, states, task) for task in held_out]))

    return fit(
        net,
        [(list(start.values()), 1.0)],
        config.training,
        epoch,
        validate,
        options,
        what,
        rng=rng,
        optimizer_of=config.rule.optimizer,
        most_norm=config.rule.most_norm,
    )


def batch_of(task: Task, sequences: Sequences, states: Tensor, length: int, few: bool = False) -> Batch:
    """All windows of some of a task's users. Where few events are known the items among them are the candidates, as in
    the target stage, which masks what has no training event; else all of the task's."""
    cut = windows(sequences, length)
    inputs, targets, _ = cut.batch(np.arange(len(cut.inputs)))
    candidates = np.full(len(task.items), not few)
    candidates[np.unique(np.concatenate(sequences)) - 1] = True
    here, asked = (torch.from_numpy(array).to(states.device) for array in (task.items - 1, candidates))
    return Batch(states[here], inputs.to(states.device), targets.to(states.device), asked)


def _direction(
    config: Meta, net: NextItem, start: State, states: Tensor, task: Task, rng: np.random.Generator
) -> tuple[Tensor, list[Tensor]]:
    support, query = task.divide(config.few_shot, rng)
    asked = [query[i] for i in rng.permutation(len(query))[: config.query_users]]
    adapted = config.inner(net, start, batch_of(task, support, states, config.max_history, few=True))
    return config.rule.direction(net, start, adapted, batch_of(task, asked, states, config.max_history))


def _adapted_ndcg(config: Meta, net: NextItem, start: State, states: Tensor, task: Task) -> float:
    found: list[NDArray[np.float64]] = []
    for draw in range(config.draws):
        support, query = task.divide(config.few_shot, np.random.default_rng(draw))
        batch = batch_of(task, support, states, config.max_history, few=True)
        cases = last_events(query)
        top = top_of_cases(folded(net, config.inner(net, start, batch), batch.states), cases, 10)
        found.append(ndcg(ranks_of(top, cases.targets), 10))
    return float(np.concatenate(found).mean())


@torch.no_grad()
def folded(net: NextItem, state: State, states: Tensor) -> SequenceModel:
    """The sequence model over the items with these LM states (n, hidden), at `state` in place of the net's own."""
    whole = {**dict(net.named_parameters()), **state}
    model = SequenceModel(net.encoder.shape.model_copy(update={"n_items": len(states)})).to(states.device)
    head = {name.removeprefix("head."): tensor for name, tensor in whole.items() if name.startswith("head.")}
    model.item_table[1:] = functional_call(net.head, head, (states,))
    prefix = "encoder."
    model.encoder.load_state_dict({n.removeprefix(prefix): t for n, t in whole.items() if n.startswith(prefix)})
    return model.eval()


def _set_gradients(tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = gradient


def _carrying(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A loss of this value with these gradients: how an outer step enters a loop that calls `backward`."""
    total = torch.stack([(p * g).sum() for p, g in zip(parameters, gradients, strict=True)]).sum()
    return value + total - total.detach()
