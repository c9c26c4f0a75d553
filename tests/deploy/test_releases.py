"""Releases: verified before they are visible, one atomic pointer, always a way back."""

import contextlib
import json
import random
import shutil
import threading
from pathlib import Path

import pytest

from deploy import disk
from deploy.errors import GateError, UsageError
from deploy.manifest import canonical_json
from deploy.releases import Releases, open_active
from deploy.releases.health import check_health
from deploy.releases.pointer import TRIES, Pointer, read_pointer, write_pointer
from deploy.releases.split import Experiment
from deploy.releases.status import status
from deploy.runtime import Recommender
from tests.deploy.power import FailingDisk, PowerCutError, power_cuts, write_world


def load(folder: Path) -> Recommender:
    """What a server does."""
    return Recommender.load(folder)


def well(folder: Path) -> None:
    """The health check without its process."""
    load(folder)


@pytest.fixture(scope="session")
def versions(write_tiny):
    """Three bundles that differ, signed by one key."""
    return [write_tiny({"evidence.json": canonical_json({"version": number})}) for number in range(3)]


@pytest.fixture
def releases(tmp_path):
    ticks = iter(range(1_000))
    return Releases(tmp_path / "device", health=well, clock=lambda: float(next(ticks)))


def refused(kind: type[Exception], call, *arguments: object, **options: object) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    return str(caught.value)


def active(releases: Releases) -> str:
    """The release that a server opens, asked something."""
    opened = open_active(releases.root, load)
    assert opened.value.recommend(["i1"], 3).source == "model"
    assert opened.value.release == opened.release.release
    return opened.release.digest


def test_install_activate_rollback(releases, versions):
    key = versions[0].public_key
    first = releases.install(versions[0].archive, key)
    assert "no active release" in refused(UsageError, open_active, releases.root, load)
    releases.activate(first.release)
    second = releases.install(versions[1].folder, key)
    assert active(releases) == first.digest and first.signed_by == second.signed_by is not None
    releases.activate(second.digest[:8])
    assert active(releases) == second.digest
    assert releases.rollback().digest == first.digest == active(releases)
    assert "no release to go back to" in refused(UsageError, releases.rollback)
    assert not releases.update(second) and active(releases) == first.digest  # a nightly update does not undo a rollback
    releases.activate(second.digest)
    assert releases.update(second) and active(releases) == second.digest
    assert "no such release" in refused(UsageError, releases.activate, "abcdef")


def test_nothing_unverified_becomes_visible(releases, versions, write_tiny, golden, tmp_path):
    key = versions[0].public_key
    assert "unsigned bundle" in refused(GateError, releases.install, write_tiny(signed=False).archive, key)
    damaged = tmp_path / "damaged.slim"
    data = bytearray(versions[0].archive.read_bytes())
    data[data.index(b"i7\t")] ^= 1
    damaged.write_bytes(data)
    assert "SHA-256" in refused(GateError, releases.install, damaged, key)
    golden["cases"][0]["answers"]["fp32"]["scores"][0] += 1
    other_answers = write_tiny({"golden.json": canonical_json(golden)})
    # the bundle's default precision agrees: the device's own check asks every graph
    assert "cases.0" in refused(
        GateError, Releases(releases.root, health=check_health).install, other_answers.archive, key
    )
    assert "no such bundle" in refused(UsageError, releases.install, tmp_path / "none.slim", key)
    assert "cannot read the key" in refused(
        UsageError, releases.install, "http://127.0.0.1:9/never-asked", tmp_path / "none.pub"
    )
    assert releases.installed() == [] and releases.pointer() == Pointer()
    assert [path.name for path in (releases.root / "incoming").iterdir()] == ["lock"]


def test_the_health_check_is_a_process(versions, tmp_path, monkeypatch):
    check_health(versions[0].folder)
    assert "took longer" in refused(GateError, check_health, versions[0].folder, 0.01)
    assert "no such bundle" in refused(UsageError, check_health, tmp_path / "none")
    crashing = tmp_path / "deploy"
    crashing.mkdir()
    (crashing / "__init__.py").touch()
    (crashing / "__main__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr("deploy.__file__", str(crashing / "__init__.py"))
    assert "killed (SIGSEGV)" in refused(GateError, check_health, versions[0].folder)


def test_an_unhealthy_release_is_not_activated(releases, versions):
    first, second = (releases.install(one.archive, None) for one in versions[:2])
    releases.activate(first.digest)

    def ill(_: Path) -> None:
        raise GateError("golden.json: no")

    sick = Releases(releases.root, health=ill)
    assert refused(GateError, sick.activate, second.digest) == "golden.json: no"
    assert active(releases) == first.digest
    releases.activate(second.digest)
    assert refused(GateError, sick.rollback) == "golden.json: no"
    assert active(releases) == second.digest


def test_damage_on_the_disk_is_returned_from_and_repaired(releases, versions):
    first, second = (releases.install(one.archive, None) for one in versions[:2])
    releases.activate(first.digest)
    releases.activate(second.digest)
    file = releases.folder(second.digest) / "items.item"
    file.write_bytes(file.read_bytes().replace(b"i7", b"i8"))
    (releases.folder(second.digest) / "extra").touch()
    opened = open_active(releases.root, load)
    assert opened.release.digest == first.digest and "not in manifest.json" in opened.passed_over[0]
    pointer = releases.pointer()
    assert pointer.active == first.digest and pointer.good == [] and pointer.left == [second.digest]
    assert "returned by itself" in pointer.why
    assert "not the bytes that were installed" in refused(GateError, releases.activate, second.digest)
    assert releases.install(versions[1].archive, None).digest == second.digest
    releases.activate(second.digest)
    assert active(releases) == second.digest
    shutil.rmtree(releases.folder(first.digest))
    assert "not the bytes" in refused(GateError, releases.rollback)


def test_another_bundle_in_a_releases_place_is_seen(releases, versions):
    first, second = (releases.install(one.archive, None) for one in versions[:2])
    releases.activate(first.digest)
    releases.activate(second.digest)
    shutil.rmtree(releases.folder(second.digest))
    shutil.copytree(releases.folder(first.digest), releases.folder(second.digest))  # itself a valid bundle
    assert open_active(releases.root, load).release.digest == first.digest


def test_a_release_that_ends_the_server_is_passed_over(releases, versions):
    first, second = (releases.install(one.archive, None) for one in versions[:2])
    releases.activate(first.digest)
    assert active(releases) == first.digest
    releases.activate(second.digest)

    def end(_: Path) -> None:
        raise RuntimeError("as if the process had died here")

    for _ in range(TRIES):
        assert releases.pointer().active == second.digest
        refused(RuntimeError, open_active, releases.root, end)
    assert active(releases) == first.digest
    for _ in range(TRIES + 1):  # proven: a machine that is switched off while it starts does not count
        refused(RuntimeError, open_active, releases.root, end)
    assert active(releases) == first.digest


def test_a_mistake_of_the_operator_is_not_the_releases_fault(releases, versions, tmp_path):
    first, second = (releases.install(one.archive, None) for one in versions[:2])
    releases.activate(first.digest)
    releases.activate(second.digest)
    for _ in range(TRIES + 1):
        assert "cannot read the key" in refused(
            GateError, open_active, releases.root, lambda folder: Recommender.load(folder, tmp_path / "none.pub")
        )
    assert active(releases) == second.digest


def test_a_damaged_pointer_is_survived(releases, versions):
    first, second = (releases.install(one.archive, None) for one in versions[:2])
    releases.activate(first.digest)
    path = releases.root / "pointer"
    path.write_bytes(path.read_bytes()[:-5])
    assert "damaged" in refused(UsageError, releases.pointer)
    assert "damaged" in status(releases)["problem"]
    assert active(releases) == second.digest  # the newest that was installed
    assert releases.pointer().active == second.digest
    path.write_bytes(b"\xff" * 20)
    releases.activate(first.digest)
    assert active(releases) == first.digest


def test_a_folder_that_takes_no_writes_is_still_served(releases, versions, monkeypatch):
    releases.activate(releases.install(versions[0].archive, None).digest)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(disk, "lock", read_only)
    assert active(releases)
    assert "Read-only file system" in refused(UsageError, releases.activate, releases.installed()[0].digest)


def test_old_releases_go(releases, write_tiny):
    many = [write_tiny({"evidence.json": canonical_json({"n": number})}).archive for number in range(5)]
    digests = []
    for archive in many:
        digests.append(releases.install(archive, None, keep=3).digest)
        if len(digests) < 5:
            releases.activate(digests[-1])
    # the newest, the active one, and the one to go back to
    assert [one.digest for one in releases.installed()] == digests[:1:-1]
    releases.install(many[0], None, keep=1)
    assert {one.digest for one in releases.installed()} == {digests[0], digests[3], digests[2]}
    assert [path.name for path in (releases.root / "incoming").iterdir()] == ["lock"]
    assert "keep" in refused(UsageError, releases.install, many[0], None, keep=0)


def test_an_experiment_needs_and_keeps_its_releases(releases, versions):
    first, second, third = (releases.install(one.archive, None) for one in versions)
    split = Experiment(name="november", arms={second.digest: 1000}, shadows={third.digest: 10_000})
    assert "needs an active release" in refused(UsageError, releases.experiment, split)
    releases.activate(first.digest)
    before = releases.pointer().serial
    releases.experiment(split)
    assert releases.pointer().experiment == split and releases.pointer().serial == before + 1
    releases.install(versions[0].archive, None, keep=1)
    assert len(releases.installed()) == 3
    states = {one["digest"]: one["state"] for one in status(releases)["releases"]}
    assert states == {first.digest: "active", second.digest: "candidate", third.digest: "candidate"}
    json.dumps(status(releases))
    releases.activate(second.digest)
    assert releases.pointer().experiment is None


def test_one_install_at_a_time(releases, versions):
    releases.install(versions[0].archive, None)
    with disk.lock(releases.root / "incoming" / "lock"):
        assert "another install" in refused(UsageError, releases.install, versions[1].archive, None)


def test_threads_that_switch_leave_a_valid_pointer(releases, versions):
    digests = [releases.install(one.archive, None).digest for one in versions]
    light = Releases(releases.root, health=lambda _: None)

    def switch(mine: str) -> None:
        for _ in range(5):
            light.activate(mine)

    threads = [threading.Thread(target=switch, args=[digest]) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pointer = releases.pointer()
    assert sorted([pointer.active, *pointer.good]) == sorted(digests)


def test_a_pointer_survives_its_file(tmp_path):
    pointer = Pointer(active="a" * 64, good=["b" * 64], confirmed=True, serial=7, why="because é")
    write_pointer(tmp_path, pointer)
    assert read_pointer(tmp_path) == pointer
    data = (tmp_path / "pointer").read_bytes()
    for place in range(len(data)):
        for changed in (data[:place], data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :]):
            (tmp_path / "pointer").write_bytes(changed)
            refused(UsageError, read_pointer, tmp_path)


class TestPowerCuts:
    """After a cut at any call: a release that answers is active, and the command succeeds when it is repeated."""

    @pytest.fixture
    def device(self, versions, tmp_path):
        """A device with version 0 before version 1, which is active and proven."""
        made = Releases(tmp_path / "made", health=well)
        for one in versions[:2]:
            made.activate(made.install(one.archive, one.public_key).digest)
        open_active(made.root, load)
        return made.root

    @pytest.fixture
    def check(self, device, monkeypatch):
        """Cuts `act` everywhere; returns how often. before, after: what may be active when the machine is on again."""
        copy = lambda root: shutil.copytree(device, root, dirs_exist_ok=True)  # noqa: E731

        def run(act, before: str, after: str) -> int:
            cuts = 0
            monkeypatch.setattr("os.fsync", lambda _: None)  # nothing is asked of this machine's disk
            start = lambda root: act(Releases(root, health=well))  # noqa: E731
            for cuts, done, world in power_cuts(monkeypatch, copy, start):  # noqa: B007
                releases = Releases(world, health=well)
                pointer = releases.pointer()
                assert pointer.active in ((after,) if done else (before, after)), world
                assert active(releases) == pointer.active, world
                for one in releases.installed():
                    assert Recommender.load(releases.folder(one.digest)).release == one.release
                if act is not Releases.rollback or pointer.active == before:
                    act(releases)
                assert active(releases) == after, world
            return cuts

        return run

    @pytest.fixture
    def digests(self, versions):
        return [Recommender.load(one.folder).bundle.digest.removeprefix("sha256:") for one in versions]

    def test_install(self, check, versions, digests):
        def act(releases: Releases) -> None:
            release = releases.install(versions[2].archive, versions[2].public_key, keep=2)
            assert release.digest == digests[2] == releases.installed()[0].digest

        assert check(act, digests[1], digests[1]) > 20

    def test_install_from_a_folder_that_prunes(self, check, device, versions, digests):
        Releases(device, health=well).install(versions[2].folder, None)
        Releases(device, health=well).activate(digests[0])
        Releases(device, health=well).activate(digests[1])

        def act(releases: Releases) -> None:
            releases.install(versions[1].folder, None, keep=1)

        assert check(act, digests[1], digests[1]) > 20

    def test_repair(self, check, device, versions, digests):
        (device / "releases" / digests[0] / "bundle" / "items.item").write_bytes(b"")

        def act(releases: Releases) -> None:
            releases.install(versions[0].archive, None)
            assert Recommender.load(releases.folder(digests[0]))

        with pytest.raises(GateError, match="must be"):
            Recommender.load(device / "releases" / digests[0] / "bundle")
        # while it is not repaired, one of the releases does not open; the active one does
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Releases, "installed", lambda _: [])
            assert check(act, digests[1], digests[1]) > 20

    def test_activate(self, check, device, versions, digests):
        Releases(device, health=well).install(versions[2].archive, None)
        assert check(lambda releases: releases.activate(digests[2]), digests[1], digests[2]) >= 5

    def test_rollback(self, check, digests):
        assert check(Releases.rollback, digests[1], digests[0]) >= 5

    def test_many_lives(self, device, versions, monkeypatch, tmp_path):
        """A device whose power fails again and again, in whatever it does and in what it does to recover."""
        rng, key = random.Random(3), versions[0].public_key
        monkeypatch.setattr("os.fsync", lambda _: None)
        deeds = [
            lambda releases: releases.install(rng.choice(versions).archive, key, keep=rng.randint(1, 3)),
            lambda releases: releases.update(releases.installed()[0]),
            lambda releases: releases.activate(rng.choice(releases.installed()).digest),
            lambda releases: releases.rollback(),
            lambda releases: open_active(releases.root, load),
        ]
        root, cuts = device, 0
        for life in range(150):
            failing = FailingDisk(root, rng.randint(1, 40))
            with monkeypatch.context() as patch, contextlib.suppress(PowerCutError, UsageError):
                patch.setattr("deploy.disk.os", failing)
                for deed in rng.choices(deeds, k=4):
                    deed(Releases(root, health=well))
            failing.close_all()
            if failing.dead:
                cuts += 1
                root = write_world(rng.choice(failing.worlds), tmp_path / f"life-{life}")
            assert active(Releases(root, health=well))
        assert cuts > 50

    def test_first_start_after_an_update(self, check, device, versions, digests):
        made = Releases(device, health=well)
        made.activate(made.install(versions[2].archive, None).digest)
        assert check(lambda releases: open_active(releases.root, load), digests[2], digests[2]) >= 10
