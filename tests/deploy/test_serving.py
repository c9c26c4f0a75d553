"""What a server holds: the right model for each user, exchanged without a restart, never none."""

import shutil
import threading
from collections import Counter

import pytest

from deploy.errors import GateError, UsageError
from deploy.releases import Serving
from deploy.releases.split import Experiment
from deploy.runtime import Recommender

USERS = [f"u{number}" for number in range(200)]


def answering(serving, user=None):
    return serving.model_for(user).bundle.digest.removeprefix("sha256:")


def test_models_are_exchanged_while_it_runs(device):
    releases, (first, second, _) = device
    serving = Serving(releases.root, Recommender.load)
    held = serving.model_for("ana")
    assert answering(serving) == first and not serving.refresh()
    releases.activate(second)
    assert serving.refresh() and answering(serving) == second and not serving.refresh()
    assert held.recommend(["i1"], 3).items  # a request that had the old one ends well
    releases.rollback()
    assert serving.refresh() and answering(serving) == first


def test_an_experiment_splits_users_and_reuses_what_is_open(device):
    releases, (first, second, third) = device
    loads = Counter()

    def load(folder):
        loads[folder.parent.name] += 1
        return Recommender.load(folder)

    serving = Serving(releases.root, load)
    split = Experiment(name="november", arms={second: 3000}, shadows={third: 10_000})
    releases.experiment(split)
    assert serving.refresh() and serving.shadow_for(None) is None
    for user in USERS:
        assert answering(serving, user) == (split.answers(user) or first)
        assert serving.shadow_for(user).bundle.digest.endswith(third)
    assert answering(serving) == first
    releases.experiment(None)
    assert serving.refresh() and {answering(serving, user) for user in USERS} == {first}
    assert serving.shadow_for("ana") is None
    assert loads == {first: 1, second: 1, third: 1}


def test_a_candidate_that_does_not_open_leaves_its_users_to_the_active_one(device):
    releases, (first, second, _) = device
    releases.experiment(Experiment(name="n", arms={second: 10_000}))
    (releases.folder(second) / "items.item").write_bytes(b"")
    serving = Serving(releases.root, Recommender.load)
    assert {answering(serving, user) for user in USERS} == {first}
    assert serving.problems[0].startswith(f"{second[:12]}: ")


def test_what_is_open_goes_on_answering(device):
    releases, (first, second, _) = device
    serving = Serving(releases.root, Recommender.load)
    releases.activate(second)
    (releases.folder(second) / "items.item").write_bytes(b"")
    (releases.folder(first) / "items.item").write_bytes(b"")  # and there is none to return to on the disk
    # the first is open: it is returned to as it was verified, whatever became of its files
    assert serving.refresh() and answering(serving) == first
    assert serving.problems and releases.pointer().active == first
    shutil.rmtree(releases.folder(first).parent)
    releases.experiment(None)  # a change, after which nothing opens
    assert not serving.refresh() and answering(serving) == first
    assert serving.problems == (f"{first[:12]}: not installed",)
    path = releases.root / "pointer"
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    assert not serving.refresh() and answering(serving) == first
    path.write_bytes(whole)
    with pytest.raises(GateError):
        Serving(releases.root, Recommender.load)


def test_nothing_active_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="no active release"):
        Serving(tmp_path, Recommender.load)


def test_threads_always_have_a_model(device):
    releases, digests = device
    serving = Serving(releases.root, Recommender.load)
    stop, failed = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                assert answering(serving, "ana") in digests
            except Exception as error:
                failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for digest in digests * 3:
        releases.activate(digest)
        serving.refresh()
    stop.set()
    thread.join()
    assert not failed and answering(serving) == digests[-1]
