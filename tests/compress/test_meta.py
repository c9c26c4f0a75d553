"""Meta-learning: outer steps by hand, what moves and what does not, and a start that adapts where another does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.accuracy import ndcg, ranks_of
from compress.data.dataset import Dataset
from compress.data.few_shot import FewShot
from compress.models.folder import load_sequence, load_text, read_json
from compress.models.sequence import SequenceEncoder
from compress.stage import RunOptions
from compress.teacher.meta import (
    FirstOrderMAML,
    InnerLoop,
    Meta,
    NextItem,
    Reptile,
    batch_of,
    folded,
    meta_train,
)
from compress.teacher.several import merged
from compress.teacher.tasks import Attribute, Task, UserGroups, last_events
from compress.teacher.transfer import SourceConfig, TargetConfig, train_source, train_target
from compress.training import top_of_cases
from deploy.errors import UsageError

CLUSTERS, ITEMS = 4, 12
SIZES: dict[str, Any] = {"dim": 8, "heads": 2, "neurons": 8, "max_history": 5, "dropout": 0.0}
OPTIONS = RunOptions(threads=1)


def world(n_tasks: int, users: int = 24) -> tuple[Tensor, list[Task]]:
    """Items of four kinds. In every task the kind of a user's next item follows from the last one's, in half of the
    tasks upwards and in half downwards: a start can know the kinds, only a task's own events tell the direction."""
    rng = np.random.default_rng(0)
    kinds = np.arange(ITEMS) % CLUSTERS
    states = np.eye(CLUSTERS)[kinds] + 0.3 * rng.normal(size=(ITEMS, CLUSTERS))
    tasks = []
    for number in range(n_tasks):
        sequences = []
        for _ in range(users):
            walk = (rng.integers(CLUSTERS) + (1 if number % 2 else -1) * np.arange(6)) % CLUSTERS
            sequences.append(np.array([rng.choice(np.flatnonzero(kinds == k)) + 1 for k in walk], np.int32))
        tasks.append(Task(f"task {number}", np.arange(1, ITEMS + 1), sequences))
    return torch.tensor(states, dtype=torch.float32), tasks


def new_net(config: Meta) -> NextItem:
    torch.manual_seed(0)
    return NextItem(torch.nn.Linear(CLUSTERS, 8, bias=False), SequenceEncoder(config.shape(ITEMS)))


def state_of(net: NextItem) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.named_parameters()}


def one_step(rule: dict[str, Any], **more: Any) -> Meta:
    """A single outer step from one task, its inner loop one step of SGD."""
    inner = InnerLoop(steps=1, learning_rate=0.1, optimizer="sgd")
    outer = {"epochs": 1, "steps_per_epoch": 1, "tasks_per_step": 2, "held_out": 1, "draws": 1}
    return Meta.model_validate({**SIZES, "rule": rule, "inner": inner, "few_shot": {"events": 10}, **outer, **more})


def warmed(learning_rate: float) -> float:
    """What `fit` makes of a learning rate in the first of one epoch, two epochs of warm-up before it."""
    return learning_rate / 3


# outer steps


def test_reptile_moves_by_the_mean_displacement_of_one_sgd_step() -> None:
    config = one_step({"name": "reptile", "learning_rate": 0.6})
    states, tasks = world(3)
    net = new_net(config)
    start = state_of(net)
    meta_train(config, net, states, tasks, np.random.default_rng(5), OPTIONS, "meta")
    rng = np.random.default_rng(5)
    trained = [tasks[i] for i in rng.permutation(3)[1:]]
    displacements: list[list[Tensor]] = []
    for chosen in rng.choice(2, 2, replace=False):
        support, query = trained[chosen].divide(config.few_shot, rng)
        rng.permutation(len(query))
        by_hand = new_net(config)
        batch = batch_of(trained[chosen], support, states, config.max_history, few=True)
        by_hand(*batch.arguments).backward()
        displacements.append([-0.1 * p.grad for p in by_hand.parameters() if p.grad is not None])
    assert len(displacements[0]) == len(start)
    for (name, before), one, two in zip(start.items(), *displacements, strict=True):
        expected = before + warmed(0.6) * (one + two) / 2
        torch.testing.assert_close(net.get_parameter(name).detach(), expected, atol=1e-6, rtol=1e-5)


def test_first_order_maml_takes_the_querys_gradient_at_the_adapted_weights() -> None:
    config = one_step({"name": "fomaml"})
    states, (task, *_) = world(1)
    net = new_net(config)
    start = state_of(net)
    support, query = task.divide(config.few_shot, np.random.default_rng(0))
    known = batch_of(task, support, states, config.max_history, few=True)
    asked = batch_of(task, query, states, config.max_history)
    adapted = config.inner(net, start, known)
    loss, gradients = FirstOrderMAML().direction(net, start, adapted, asked)
    by_hand = new_net(config)  # stepped in place, then asked
    by_hand(*known.arguments).backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
            parameter.grad = None
    at_adapted = by_hand(*asked.arguments)
    at_adapted.backward()
    torch.testing.assert_close(loss, at_adapted.detach())
    for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    unadapted = torch.autograd.grad(net(*asked.arguments), [net.head.weight])
    assert not torch.allclose(gradients[0], unadapted[0], rtol=1e-2)  # it is not the start's own gradient


def test_reptiles_direction_is_start_minus_end() -> None:
    config = one_step({"name": "reptile"})
    states, (task, *_) = world(1)
    net = new_net(config)
    start = state_of(net)
    batch = batch_of(task, task.sequences[:3], states, config.max_history)
    adapted = config.inner(net, start, batch)
    _, found = Reptile().direction(net, start, adapted, batch)
    for before, after, direction in zip(start.values(), adapted.values(), found, strict=True):
        torch.testing.assert_close(direction, before - after)
    assert all(torch.equal(before, net.get_parameter(name)) for name, before in start.items())  # copies moved


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_inner_loop_lowers_the_supports_loss(optimizer: str) -> None:
    config = one_step({"name": "fomaml"})
    states, (task, *_) = world(1)
    net = new_net(config)
    batch = batch_of(task, task.sequences[:4], states, config.max_history)
    inner = InnerLoop.model_validate({"steps": 4, "learning_rate": 0.02, "optimizer": optimizer})
    adapted = inner(net, state_of(net), batch)
    assert batch.loss(net, adapted) < batch.loss(net, state_of(net))


def test_without_head_the_map_to_item_vectors_stays() -> None:
    config = one_step({"name": "fomaml"}, head=False)
    states, tasks = world(3)
    net = new_net(config)
    start = state_of(net)
    meta_train(config, net, states, tasks, np.random.default_rng(0), OPTIONS, "meta")
    moved = {name for name, before in start.items() if not torch.equal(before, net.get_parameter(name))}
    assert "head.weight" not in moved and any(name.startswith("encoder.") for name in moved)


# what it is for


@pytest.mark.parametrize(
    ("rule", "inner", "from_the_task"),
    [
        ({"name": "fomaml", "learning_rate": 0.02}, {"steps": 3, "learning_rate": 0.2, "optimizer": "sgd"}, 0.04),
        # Reptile learns what tasks have in common: here it may owe the inner loop nothing
        ({"name": "reptile"}, {"steps": 6, "learning_rate": 0.02, "optimizer": "adam"}, None),
    ],
)
def test_the_start_adapts_to_new_tasks_where_another_does_not(
    rule: dict[str, Any], inner: dict[str, Any], from_the_task: float | None
) -> None:
    outer = {"epochs": 15, "steps_per_epoch": 8, "tasks_per_step": 2, "held_out": 2, "draws": 1, "query_users": 8}
    config = Meta.model_validate({**SIZES, "rule": rule, "inner": inner, "few_shot": {"events": 20}, **outer})
    states, tasks = world(16)
    net = new_net(config)
    scratch = state_of(net)
    meta_train(config, net, states, tasks[:12], np.random.default_rng(0), OPTIONS, "meta")

    def score(start: dict[str, Tensor], adapts: bool = True) -> float:
        found = []
        for task in tasks[12:]:
            support, query = task.divide(config.few_shot, np.random.default_rng(9))
            batch = batch_of(task, support, states, config.max_history, few=True)
            cases = last_events(query)
            model = folded(net, config.inner(net, start, batch) if adapts else start, batch.states)
            found.append(ndcg(ranks_of(top_of_cases(model, cases, 10), cases.targets), 10).mean())
        return float(np.mean(found))

    adapted = score(state_of(net))
    assert adapted > score(scratch) + 0.03
    if from_the_task is not None:
        assert adapted > score(state_of(net), adapts=False) + from_the_task


# tasks


def test_a_task_is_divided_by_users() -> None:
    _, (task, *_) = world(1)
    support, query = task.divide(FewShot(events=12, per_user=5), np.random.default_rng(3))
    assert sorted(map(len, support)) == [2, 5, 5]
    assert len(query) == len(task.sequences) - 3
    asked = {id(events) for events in query}
    rest = [events for events in task.sequences if id(events) not in asked]
    for events, known in zip(rest, support, strict=True):
        np.testing.assert_array_equal(events[: len(known)], known)


def test_few_events_are_told_apart_among_themselves() -> None:
    states, (task, *_) = world(1)
    net = new_net(one_step({"name": "fomaml"}))
    some = [np.array([3, 1, 7], np.int32)]
    few, many = (batch_of(task, some, states, 5, few=few) for few in (True, False))
    assert (few.candidates.nonzero()[:, 0] + 1).tolist() == [1, 3, 7] and many.candidates.all()
    table = net.table(states).detach()
    users = net.encoder(table[torch.tensor([[3, 1]])])[0]
    by_hand = [-(users[i] @ table[[1, 3, 7]].T).log_softmax(0)[place] for i, place in ((0, 0), (1, 2))]
    torch.testing.assert_close(net(*few.arguments), torch.stack(by_hand).mean())
    assert net(*many.arguments) > net(*few.arguments)


def test_last_events_are_the_cases() -> None:
    cases = last_events([np.array([3, 1, 2], np.int32), np.array([5, 4], np.int32)])
    assert cases.targets.tolist() == [2, 4]
    assert cases.histories(3).tolist() == [[0, 3, 1], [0, 0, 5]]


def test_user_groups_share_nobody_and_lose_nobody(film_dataset: Dataset) -> None:
    tasks = UserGroups(groups=7)(film_dataset, np.random.default_rng(0))
    assert [len(task.sequences) for task in tasks] == [12, 12, 12, 11, 11, 11, 11]
    assert all(task.items.tolist() == list(range(1, film_dataset.n_items + 1)) for task in tasks)
    found = sorted(tuple(events) for task in tasks for events in task.sequences)
    assert found == sorted(tuple(events) for events in film_dataset.train_sequences() if len(events) > 1)


def test_an_attributes_values_are_tasks_over_their_items(film_dataset: Dataset) -> None:
    years = film_dataset.attributes["release_year"]
    tasks = Attribute(attribute="release_year")(film_dataset, np.random.default_rng(0))
    assert [task.name for task in tasks] == sorted(set(years))
    for task in tasks:
        assert [years[row - 1] for row in task.items] == [task.name] * len(task.items)
    task = max(tasks, key=lambda t: len(t.sequences))
    rows = set(task.items.tolist())
    wanted = [[r for r in events.tolist() if r in rows] for events in film_dataset.train_sequences()]
    assert [task.items[events - 1].tolist() for events in task.sequences] == [w for w in wanted if len(w) > 1]


def test_values_of_a_list_are_split(film_dataset: Dataset) -> None:
    held = film_dataset.list_separators
    assert held == {"class": " "}
    tasks = Attribute(attribute="class")(film_dataset, np.random.default_rng(0))
    assert [task.name for task in tasks] == ["Drama"]
    with pytest.raises(UsageError, match=r"tasks.attribute: unknown attribute; allowed: .*'clas'"):
        Attribute(attribute="clas")(film_dataset, np.random.default_rng(0))


def test_mixed_sources_are_tasks_too(film_data: Path) -> None:
    domains = {name: Dataset.open(film_data, name) for name in ("source", "target")}
    first, second = Attribute(attribute="domain")(merged(domains)[0], np.random.default_rng(0))
    assert (first.name, second.name) == ("source", "target")
    for task, dataset in ((first, domains["source"]), (second, domains["target"])):
        expected = [events.tolist() for events in dataset.train_sequences() if len(events) > 1]
        assert [events.tolist() for events in task.sequences] == expected


def test_tasks_without_users_to_ask_do_not_count() -> None:
    states, tasks = world(3, users=2)
    config = one_step({"name": "fomaml"})
    with pytest.raises(UsageError, match="0 of 3 tasks have users beyond 10 events"):
        meta_train(config, new_net(config), states, tasks, np.random.default_rng(0), OPTIONS, "meta")


# in the table of stages


def test_the_target_starts_from_it(build: Callable[..., Path], film_data: Path, film_teacher: dict[str, Path]) -> None:
    sizes = {"dim": 16, "heads": 2, "neurons": 32, "max_history": 10}
    outer = {"epochs": 2, "steps_per_epoch": 2, "validate_every": 1, "few_shot": {"events": 10}}
    method = {"name": "meta", **sizes, **outer, "tasks": {"name": "user_groups", "groups": 5}}
    config = SourceConfig.model_validate({"method": method})
    assert config.teaches
    folder = build(train_source, config, data=film_data, pretrain=film_teacher["pretrain"])
    again = build(train_source, config, data=film_data, pretrain=film_teacher["pretrain"])
    for name in ("sequence/model.safetensors", "text/head.safetensors", "text/model.safetensors"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()
    before, after = load_text(film_teacher["pretrain"]), load_text(folder)
    assert before is not None and after is not None
    for name, tensor in before.lm.state_dict().items():
        assert torch.equal(tensor, after.lm.state_dict()[name]), name
    assert read_json(folder / "curve.json")[0][0] == 0

    resting = {"name": "two_level", **sizes, "id_vectors": False, "trained_layers": 0, "training": {"epochs": 0}}
    target = TargetConfig.model_validate({"method": resting, "cached_scores": 5})
    end = build(train_target, target, data=film_data, source=folder)
    start_model, end_model = load_sequence(folder), load_sequence(end)
    assert start_model is not None and end_model is not None
    for name, tensor in start_model.encoder.state_dict().items():
        assert torch.equal(tensor, end_model.encoder.state_dict()[name]), name
    assert (folder / "text" / "head.safetensors").read_bytes() == (end / "text" / "head.safetensors").read_bytes()
