"""Mixes: what they score by hand, that weights are the likeliest, and that graphs say what the members say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.accuracy import ndcg
from compress.baselines.run import fitted
from compress.chain import Chain, gathered_name
from compress.data.dataset import Dataset
from compress.models.folder import load_array, load_mix, load_scorer, model_facts, read_json
from compress.models.mix import ItemBias, ItemItem, Member, MemberFacts, Mix
from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.prune.prune import PruneConfig, prune
from compress.quantize.graph import history_graph
from compress.quantize.parity import Questions, history_parity
from compress.stage import RunOptions
from compress.teacher.cache import CachedScores, cached_scores
from compress.teacher.mix import MixConfig, _Fitting, _mixed, mix
from compress.training import validation_ranks
from deploy.errors import UsageError
from deploy.ranker import Ranker

Run = Callable[..., Path]
N = 12


def sequence_model(max_history: int, dim: int, seed: int, blocks: int = 1) -> SequenceModel:
    torch.manual_seed(seed)
    block = BlockShape(heads=2, neurons=6)
    shape = SequenceShape(n_items=N, dim=dim, head_dim=4, blocks=(block,) * blocks, max_history=max_history)
    model = SequenceModel(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.item_table[0] = 0.0
    return model.eval()


def some_mix() -> Mix:
    """The text's model reads 4 events, a control 6, EASE 2, the bias none."""
    rng = np.random.default_rng(0)
    item_item = torch.from_numpy(rng.normal(size=(N + 1, N + 1)).astype(np.float32))
    item_item[0] = 0.0
    members: list[Member] = [
        sequence_model(4, 8, 1),
        sequence_model(6, 12, 2, blocks=2),
        ItemItem(item_item, 2),
        ItemBias(torch.from_numpy(rng.normal(size=N + 1).astype(np.float32))),
    ]
    kinds = ["sequence", "sequence", "item_item", "item_bias"]
    facts = [
        MemberFacts.model_validate(
            {"name": f"m{i}", "kind": kind, "weight": 0.5 * (i + 1), "reads_text": i == 0, "last": 2 if i == 2 else 0}
        )
        for i, kind in enumerate(kinds)
    ]
    return Mix(members, facts).eval()


HISTORIES = np.array([[0, 0, 0, 0, 0, 3], [0, 0, 5, 1, 2, 9], [4, 5, 6, 7, 8, 9]], np.int64)


@torch.no_grad()
def by_hand(model: Mix, history: NDArray[np.int64]) -> NDArray[np.float32]:
    text, control, ease, bias = model.each_member()
    assert isinstance(text, SequenceModel) and isinstance(control, SequenceModel)
    assert isinstance(ease, ItemItem) and isinstance(bias, ItemBias)
    rows = torch.from_numpy(history)
    total = 0.5 * (text.user_vectors(rows[-4:][None]) @ text.item_table.T)[0]
    total += 1.0 * (control.user_vectors(rows[None]) @ control.item_table.T)[0]
    total += 1.5 * (ease.weights[rows[-1]] + ease.weights[rows[-2]]) + 2.0 * bias.bias
    return np.asarray(total.numpy(), np.float32)


def test_a_mix_is_the_weighted_sum_of_its_members() -> None:
    model = some_mix()
    assert (model.n_items, model.max_history) == (N, 6)
    with torch.no_grad():
        scores = model.scores(torch.from_numpy(HISTORIES)).numpy()
    for row, history in zip(scores, HISTORIES, strict=True):
        np.testing.assert_allclose(row, by_hand(model, history), atol=1e-4)


def test_a_saved_mix_is_the_same(tmp_path: Path) -> None:
    model = some_mix()
    model.save(tmp_path / "mix")
    loaded = Mix.load(tmp_path / "mix")
    assert loaded.facts == model.facts
    with torch.no_grad():
        rows = torch.from_numpy(HISTORIES)
        assert torch.equal(loaded.scores(rows), model.scores(rows))


@pytest.mark.parametrize("vectors_given", [False, True])
def test_one_graph_holds_the_whole_mix(tmp_path: Path, vectors_given: bool) -> None:
    model = some_mix()
    onnx.save(history_graph(model, vectors_given=vectors_given), tmp_path / "history.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "history.onnx", providers=["CPUExecutionProvider"])
    text = model.each_member()[0]
    assert isinstance(text, SequenceModel)
    for history in HISTORIES:
        feeds: dict[str, Any] = {"history": history[None], "exclude": np.zeros((1, 1), np.int64), "k": np.array([N])}
        if vectors_given:
            feeds["vectors"] = text.item_table.detach().numpy()[history][None]
        scores, rows = session.run(None, feeds)
        wanted = by_hand(model, history)
        wanted[[0, *history]] = -np.inf
        left = np.isfinite(scores[0])
        assert left.sum() == N - len({*history} - {0})
        np.testing.assert_allclose(scores[0][left], wanted[rows[0][left]], atol=1e-4)
        assert (np.diff(scores[0][left]) <= 1e-6).all()


def test_int8_tables_in_a_mix_stay_near(tmp_path: Path) -> None:
    model = some_mix()
    onnx.save(history_graph(model, "int8"), tmp_path / "history.onnx")
    scores, rows = Ranker(tmp_path / "history.onnx").rank(HISTORIES[-1:], np.zeros((1, 1), np.int64), 5)
    np.testing.assert_allclose(scores[0], by_hand(model, HISTORIES[-1])[rows[0]], atol=0.3)


# the weights


def fitting_of(dataset: Dataset, members: list[Member]) -> _Fitting:
    return _Fitting(members, dataset.cases("valid"), np.random.default_rng(0), "cpu")


def some_members(dataset: Dataset) -> list[Member]:
    rng = np.random.default_rng(1)
    popular = torch.from_numpy(np.log1p(dataset.popularity).astype(np.float32))
    noise = torch.from_numpy(rng.normal(size=dataset.n_items + 1).astype(np.float32))
    pairs = torch.from_numpy(rng.normal(size=(dataset.n_items + 1,) * 2).astype(np.float32))
    return [ItemBias(popular), ItemBias(noise), ItemItem(pairs, 3)]


def test_weights_are_those_of_highest_likelihood(film_dataset: Dataset) -> None:
    fitting = fitting_of(film_dataset, some_members(film_dataset))
    weights = fitting.weights()
    assert (weights >= 0).all()

    def loss(some: NDArray[np.float64]) -> float:
        scaled = torch.from_numpy(some * fitting.spread).float()
        return float(functional.cross_entropy(torch.einsum("m,mci->ci", scaled, fitting.scores), fitting.targets))

    best = loss(weights)
    assert best < loss(np.zeros(3))
    for member in range(3):
        for step in (-0.05, 0.05):
            moved = weights.copy()
            moved[member] = max(0.0, moved[member] + step)
            assert loss(moved) >= best - 1e-5


def test_validation_ranks_do_not_see_their_own_user(film_dataset: Dataset) -> None:
    fitting = fitting_of(film_dataset, some_members(film_dataset))
    asked: list[NDArray[np.bool_]] = []
    weights = fitting.weights

    def spy(held_out: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        assert held_out is not None
        asked.append(held_out)
        return weights(held_out)

    fitting.weights = spy  # type: ignore[method-assign]
    ranks = fitting.crossed_ranks(4, np.random.default_rng(0))
    assert ranks.shape == (len(film_dataset.cases("valid")),)
    held = np.array(asked)
    assert len(asked) == 4 and (held.sum(0) == 1).all()


def test_a_member_that_says_nothing_is_told_by_its_share(film_dataset: Dataset) -> None:
    nothing = ItemBias(torch.zeros(film_dataset.n_items + 1))
    fitting = fitting_of(film_dataset, [*some_members(film_dataset), nothing])
    shares = fitting.shares(fitting.weights())
    assert shares[3] < 0.01 < shares[0]
    fewer = fitting.among(np.array(shares) > 0.01)
    assert len(fewer.members) == len(fewer.weights()) == sum(share > 0.01 for share in shares)


def test_one_case_alone_is_ranked_with_equal_shares(film_dataset: Dataset) -> None:
    cases = film_dataset.cases("valid")
    one = replace(
        cases, **{name: getattr(cases, name)[:1] for name in ("users", "targets", "tail", "short", "starts", "stops")}
    )
    fitting = _Fitting(some_members(film_dataset), one, np.random.default_rng(0), "cpu")
    assert fitting.crossed_ranks(5, np.random.default_rng(0)).shape == (1,)
    assert fitting.shares(fitting.weights(np.ones(1, bool))) == pytest.approx([1 / 3] * 3)


# the stage


@pytest.fixture(scope="module")
def mixed(build: Run, film_inputs: dict[str, Path], film_teacher: dict[str, Path]) -> Path:
    config = MixConfig(members=("control", "ease", "popularity"), cached_scores=10)
    member = gathered_name("member", Chain("control", "control", 0))
    inputs = {"data": film_inputs["data"], "baselines": film_inputs["baselines"], "target": film_teacher["target"]}
    return build(mix, config, **inputs, **{member: film_inputs["distil/control:control:0"]})


def test_the_stage_leaves_a_teacher_that_ranks_as_the_mix(
    mixed: Path, film_teacher: dict[str, Path], film_dataset: Dataset
) -> None:
    assert model_facts(mixed)["parts"] == ["text", "mix"]
    model = load_mix(mixed)
    assert model is not None
    metrics = read_json(mixed / "metrics.json")
    every = ["teacher", "control", "ease", "popularity"]
    assert list(metrics["alone"]) == sorted(every) and "teacher" not in metrics["left_out"]
    assert [fact.name for fact in model.facts] == [name for name in every if name not in metrics["left_out"]]
    assert [fact.reads_text for fact in model.facts] == [fact.name == "teacher" for fact in model.facts]
    assert all(share >= 0.01 for name, share in metrics["shares"].items() if name != "teacher")
    assert sum(metrics["shares"].values()) == pytest.approx(1.0)
    own, ranks = load_array(film_teacher["target"], "valid_ranks"), load_array(mixed, "valid_ranks")
    assert own is not None and ranks is not None
    assert metrics["alone"]["teacher"] == pytest.approx(ndcg(own, 10).mean())
    assert metrics["valid_ndcg@10"] == pytest.approx(ndcg(ranks, 10).mean())
    # weights chosen on all users and on four fifths of them are nearly the same
    assert np.mean(validation_ranks(model, film_dataset) == ranks) > 0.5
    lists = cached_scores(model, film_dataset, CachedScores(top=10), RunOptions())
    assert all(np.array_equal(load_array(mixed, name), array) for name, array in lists.items())  # type: ignore[arg-type]
    vectors = "item_vectors.npy"
    assert (mixed / vectors).read_bytes() == (film_teacher["target"] / vectors).read_bytes()


@pytest.mark.parametrize("name", ["popularity", "recent_popularity", "ease"])
def test_every_baseline_that_may_join_has_a_graph(
    name: str, film_inputs: dict[str, Path], film_teacher: dict[str, Path], film_dataset: Dataset, tmp_path: Path
) -> None:
    own = load_scorer(film_teacher["target"])
    assert isinstance(own, SequenceModel)
    other = fitted(name, read_json(film_inputs["baselines"] / "baselines.json"), film_dataset)
    model = _mixed({"teacher": (own, True), name: (other, False)}, np.array([0.7, 0.3])).eval()
    onnx.save(history_graph(model), tmp_path / "history.onnx")
    questions = Questions.of(film_dataset.cases("valid"), model.max_history, 20)
    assert history_parity(model, tmp_path / "history.onnx", questions, exact=True)["relative_difference"] < 1e-4


def test_without_members_the_teacher_goes_on_as_it_is(
    build: Run, film_inputs: dict[str, Path], film_teacher: dict[str, Path]
) -> None:
    inputs = {"data": film_inputs["data"], "baselines": film_inputs["baselines"], "target": film_teacher["target"]}
    folder = build(mix, MixConfig.model_validate("none"), **inputs)
    assert load_mix(folder) is None and isinstance(load_scorer(folder), SequenceModel)
    assert (folder / "scores.npy").read_bytes() == (film_teacher["target"] / "scores.npy").read_bytes()


def test_a_mix_is_not_pruned(build: Run, mixed: Path, film_data: Path) -> None:
    with pytest.raises(UsageError, match="prune: none"):
        build(prune, PruneConfig(), data=film_data, mix=mixed, distil=mixed)
    folder = build(prune, PruneConfig.model_validate("none"), data=film_data, mix=mixed, distil=mixed)
    assert load_mix(folder) is not None
