"""The like/dislike head, its teachers, students and mixes, on a world where taste can be learned."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import auc
from compress.baselines.run import BaselinesConfig, train_baselines
from compress.distil.distil import DistilConfig, distil
from compress.distil.losses import SoftLabels
from compress.gate import check_gate
from compress.likes.mix import Pool, user_folds
from compress.likes.model import LikesHead, LikesModel, hold_leaning, with_leanings
from compress.likes.ratings import UserLeaning, ratings_before
from compress.likes.rows import LikeData, read_logits
from compress.likes.training_rows import training_rows
from compress.models.folder import load_array, read_json
from compress.models.sequence import BlockShape, SequenceModel, SequenceShape
from compress.prune.prune import PruneConfig, prune
from compress.stage import RunOptions
from compress.teacher.mix import MixConfig, mix
from compress.teacher.pretrain import PretrainConfig, pretrain
from compress.teacher.transfer import TargetConfig, train_target
from deploy.errors import UsageError

Make = Callable[..., Path]
TRAINING = {"epochs": 12, "batch_size": 64, "learning_rate": 0.01, "warmup_epochs": 1, "validate_every": 3}
SIZES = {"dim": 16, "heads": 2, "neurons": 16, "max_history": 8, "dropout": 0.1}
TWO_LEVEL = {"name": "two_level", **SIZES, "trained_layers": 1, "text_epochs": 2, "training": TRAINING}
OPTIONS = RunOptions(threads=1)


@pytest.fixture(scope="module")
def made(taste_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of baselines, a teacher, its mix, a student of it and a control."""

    def out(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    data, nothing = {"data": taste_data}, out("nothing")
    folders = {name: out(name) for name in ("baselines", "pretrain", "target", "mix", "student", "control")}
    models = [{"name": "liked_fraction"}, {"name": "boosted_trees", "iterations": 50, "leaves": [4], "folds": 2}]
    train_baselines(BaselinesConfig.model_validate({"models": models}), data, folders["baselines"], OPTIONS)
    backbone = {"backbone": {"name": "random", "layers": 2}, "objective": "none", "max_tokens": 8}
    pretrain(PretrainConfig.model_validate(backbone), data, folders["pretrain"], OPTIONS)
    target = TargetConfig.model_validate({"method": TWO_LEVEL})
    train_target(target, {**data, "source": folders["pretrain"]}, folders["target"], OPTIONS)
    members = MixConfig(members=("liked_fraction", "boosted_trees"))
    mix(members, {**data, "baselines": folders["baselines"], "target": folders["target"]}, folders["mix"], OPTIONS)
    student = {"student": {"name": "sequence", **SIZES, "rated": True}, "training": TRAINING, "loss": "soft_labels"}
    pretrain(PretrainConfig.model_validate("none"), data, nothing, OPTIONS)
    for name, teacher in (("student", folders["mix"]), ("control", nothing)):
        distil(DistilConfig.model_validate(student), {**data, "mix": teacher}, folders[name], OPTIONS)
    return folders


def small_model(dim: int = 4) -> LikesModel:
    torch.manual_seed(0)
    shape = SequenceShape(
        n_items=5, dim=dim, head_dim=dim, blocks=(BlockShape(heads=1, neurons=4),), max_history=3, dropout=0.0
    )
    sequence = SequenceModel(shape)
    with torch.no_grad():
        sequence.item_table.copy_(with_leanings(torch.randn(6, dim)))
        sequence.item_table[0] = 0
    hold_leaning(sequence.encoder)
    return LikesModel(sequence, LikesHead(dim, 0.3)).eval()


def test_over_liked_histories_the_head_is_the_ranking_graphs_dot_product() -> None:
    model = small_model()
    history = torch.tensor([[0, 2, 3], [1, 4, 5]])
    likes, items = (history > 0).float(), torch.tensor([1, 3])
    with torch.no_grad():
        logits = model.head(model.sequence.item_table, model.sequence.encoder, history, likes, items)
        ranking = model.sequence.scores(history)[[0, 1], items]
    assert torch.allclose(logits, ranking + 0.3, atol=1e-6)


def test_leanings_of_user_and_item_add_up() -> None:
    """The user vector ends in 1, the item vector has a 1 before its end."""
    model = small_model()
    users = model.sequence.user_vectors(torch.tensor([[0, 0, 2], [1, 4, 5]]))
    assert users[:, -1].tolist() == [1.0, 1.0]
    assert model.sequence.item_table[:, -2].tolist() == [0, 1, 1, 1, 1, 1]
    before = model.sequence.scores(torch.tensor([[0, 0, 2]]))
    with torch.no_grad():
        model.sequence.item_table[3, -1] += 0.5
    assert float((model.sequence.scores(torch.tensor([[0, 0, 2]])) - before)[0, 3].detach()) == pytest.approx(0.5)


def test_dislikes_change_what_a_history_says() -> None:
    model = small_model()
    with torch.no_grad():
        args = (model.sequence.item_table, model.sequence.encoder, torch.tensor([[1, 2, 3]]))
        one = model.head(*args, torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([4]))
        other = model.head(*args, torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([4]))
    assert abs(float(one - other)) > 0.01


def rated_model() -> LikesModel:
    """A small model that reads ratings, its leaning moved away from 0."""
    model = small_model(dim=6)
    head = LikesHead(6, 0.3, rated=True)
    with torch.no_grad():
        head.disliked.copy_(torch.randn(2, 6))
        for parameter in head.leaning.parameters() if head.leaning else ():
            parameter.normal_()
    return LikesModel(model.sequence, head).eval()


def test_ratings_count_what_was_known_before(load: Make, write: Make) -> None:
    data = LikeData.open(load(write()))
    ratings = ratings_before(data, data["train"], 0)
    assert ratings["train"].tolist() == [[0, 0], [1, 0], [0, 0], [1, 0]]  # u1: b liked, then c; u2: d liked, then a
    assert ratings["valid"].tolist() == [[1, 1], [0, 0], [0, 0]]  # u2, then u3, of whom no row trains
    assert ratings["test"].tolist() == [[0, 0], [0, 0], [0, 0]]


def test_a_leaning_is_the_same_for_all_items_and_starts_at_nothing() -> None:
    model = rated_model()
    args = model.sequence.item_table, model.sequence.encoder, torch.tensor([[1, 2], [1, 2]]), torch.ones(2, 2)
    with torch.no_grad():
        few, many = (model.head(*args, torch.tensor([3, 4]), torch.tensor([r, r])) for r in ([1, 1], [30, 2]))
    assert torch.allclose((many - few)[0], (many - few)[1], atol=1e-6) and abs(float((many - few)[0])) > 1e-3
    with pytest.raises(ValueError, match="needs the user's ratings"):
        model.head(*args, torch.tensor([3, 4]))
    assert UserLeaning()(torch.tensor([[5, 1]])).tolist() == [0.0]


def test_a_leaning_by_hand() -> None:
    leaning = UserLeaning(hidden=1)
    with torch.no_grad():
        leaning.up.weight.copy_(torch.tensor([[2.0, 1.0]]))
        leaning.up.bias.fill_(0.5)
        leaning.down.weight.fill_(3.0)
    inner = 2 * np.log(10 / 6) + np.log(25 / 21) + 0.5  # 5 likes, 1 dislike
    gelu = inner * 0.5 * (1 + math.erf(inner / np.sqrt(2)))
    assert leaning(torch.tensor([[5, 1]])).item() == pytest.approx(3 * gelu, rel=1e-5)


def test_soft_labels_by_hand() -> None:
    loss = SoftLabels(weight=0.25, temperature=2.0)
    logits, labels, teacher = torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0])
    assert float(loss(logits, labels, teacher)) == pytest.approx((0.75 + 0.25 * 4) * np.log(2))


def test_models_learn_taste_from_rated_histories(made: dict[str, Path], taste_data: Path) -> None:
    rows = LikeData.open(taste_data)["test"]
    found = {name: auc(read_logits(made[name] / "logits.npz")["test"], rows.labels) or 0.0 for name in made_models}
    assert found["target"] > 0.8 and found["mix"] > 0.8 and found["student"] > 0.75, found
    metrics = read_json(made["target"] / "metrics.json")
    valid = LikeData.open(taste_data)["valid"]
    own = auc(read_logits(made["target"] / "logits.npz")["valid"], valid.labels)
    assert metrics["valid_auc"] == pytest.approx(own, abs=1e-6)


made_models = ("target", "mix", "student", "control")


def test_a_model_folder_answers_as_it_did(made: dict[str, Path], taste_data: Path) -> None:
    data = LikeData.open(taste_data)
    ratings = ratings_before(data, training_rows(data), 0)
    for name in ("target", "student"):
        model = LikesModel.load(made[name])
        assert model is not None and (model.head.leaning is not None) == (name == "student")
        found = model.logits(data["test"], ratings["test"])
        assert np.allclose(found, read_logits(made[name] / "logits.npz")["test"], atol=1e-5)
    assert LikesModel.load(made["pretrain"]) is None


def test_the_gate_compares_aucs(made: dict[str, Path]) -> None:
    gate = check_gate([made["mix"]], [[made["control"]]])
    assert gate.teacher_valid == pytest.approx(read_json(made["mix"] / "metrics.json")["valid_auc"])
    assert gate.difference == pytest.approx(gate.teacher_valid - gate.control_valid)
    assert gate.passed == (gate.difference > 0) and gate.ci95[0] < gate.difference < gate.ci95[1]
    values = load_array(made["mix"], "valid_values")
    assert values is not None and values.shape == (10,)


def test_the_mix_says_who_is_heard(made: dict[str, Path]) -> None:
    metrics = read_json(made["mix"] / "metrics.json")
    assert set(metrics["shares"]) == {"teacher", "liked_fraction", "boosted_trees"}
    assert sum(metrics["shares"].values()) == pytest.approx(1) and min(metrics["shares"].values()) >= 0
    assert metrics["shares"]["liked_fraction"] < 0.2  # everyone here likes half of all


def test_weights_find_the_member_that_knows() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=2000)
    labels = rng.random(2000) < 1 / (1 + np.exp(-2 * truth))
    noise = rng.normal(size=(2, 2000))
    members = {"knows": {"valid": 5 * truth}, "noise": {"valid": noise[0]}, "turned": {"valid": noise[1] - truth}}
    pool = Pool(members, labels)  # type: ignore[arg-type]
    weights = pool.weights(np.ones(2000, bool))
    slope = (weights[:-1] / pool.spread)[0] * 5
    assert slope == pytest.approx(2.0, abs=0.2) and abs(weights[-1]) < 0.15
    assert weights[1] < 0.15 and 0 <= weights[2] < 0.05  # never negative: what is turned around is left out


def test_a_users_rows_are_in_one_fold() -> None:
    users = np.array([3, 3, 5, 9, 9, 9, 11], np.int32)
    fold = user_folds(users, 2, 0)
    assert len({(u, f) for u, f in zip(users.tolist(), fold.tolist(), strict=True)}) == 4
    assert sorted(np.unique(fold)) == [0, 1]


def test_what_does_not_fit_the_task_is_refused(made: dict[str, Path], taste_data: Path, tmp_path: Path) -> None:
    wrong = DistilConfig.model_validate({"student": {"name": "sequence", **SIZES}, "loss": "listwise_kl"})
    with pytest.raises(UsageError, match=r"soft_labels or none \(got listwise_kl\)"):
        distil(wrong, {"data": taste_data, "mix": made["mix"]}, tmp_path, OPTIONS)
    for widths in ({"nested": (4, 16)}, {"table_dim": 4}, {"id_vectors": False}):
        narrow = DistilConfig.model_validate({"student": {"name": "sequence", **SIZES, **widths}, "loss": "none"})
        with pytest.raises(UsageError, match="not for like/dislike rows"):
            distil(narrow, {"data": taste_data, "mix": made["mix"]}, tmp_path, OPTIONS)
    with pytest.raises(UsageError, match=r"prune.loss: .* soft_labels or none \(got listwise_kl\)"):
        prune(
            PruneConfig.model_validate({"sequence": "structured"}),
            {"data": taste_data, "mix": made["mix"], "distil": made["student"]},
            tmp_path,
            OPTIONS,
        )


def test_a_leaning_column_is_not_cut(made: dict[str, Path], taste_data: Path, tmp_path: Path) -> None:
    config = PruneConfig.model_validate({"sequence": {"name": "structured", "keep_dims": 0.5}, "loss": "soft_labels"})
    with pytest.raises(UsageError, match=r"keep_dims: like/dislike tables keep their width \(got 0.5\)"):
        prune(config, {"data": taste_data, "mix": made["mix"], "distil": made["student"]}, tmp_path, OPTIONS)


@pytest.mark.parametrize(
    ("name", "teacher", "steps"), [("student", "mix", 1), ("student", "mix", 2), ("control", "pretrain", 1)]
)
def test_a_student_is_pruned_and_recovers(
    made: dict[str, Path], taste_data: Path, tmp_path: Path, name: str, teacher: str, steps: int
) -> None:
    """Half of the heads and a quarter of the neurons really go; the head, the text map and what it knew stay."""
    recovery = {**TRAINING, "epochs": 3, "learning_rate": 0.003, "validate_every": 1}
    sequence = {"name": "structured", "keep_heads": 0.5, "keep_neurons": 0.25, "recovery": recovery, "steps": steps}
    config = PruneConfig.model_validate({"sequence": sequence, "loss": "soft_labels", "text": "none"})
    prune(config, {"data": taste_data, "mix": made[teacher], "distil": made[name]}, tmp_path, OPTIONS)
    before, after = LikesModel.load(made[name]), LikesModel.load(tmp_path)
    assert before is not None and after is not None
    assert after.sequence.shape.blocks == (BlockShape(heads=1, neurons=4),)
    assert (after.head.leaning is None) == (before.head.leaning is None)
    assert after.sequence.item_table[1:, -2].eq(1).all() and after.sequence.encoder.norm.bias[-1] == 1
    rows = LikeData.open(taste_data)["test"]
    found, wanted = (auc(read_logits(of / "logits.npz")["test"], rows.labels) or 0.0 for of in (tmp_path, made[name]))
    assert found > wanted - 0.05
    maps = [load_array(of, "text_map") for of in (tmp_path, made[name])]
    assert [of is None for of in maps] == [name == "control"] * 2
    assert read_json(tmp_path / "model.json")["text_space"] == read_json(made[name] / "model.json")["text_space"]
    curve = read_json(tmp_path / "curve.json")
    assert read_json(tmp_path / "metrics.json")["valid_auc"] == pytest.approx(max(v for *_, v in curve), abs=1e-6)
