"""The artifact store: keys, sealing, damage, and several processes at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.stage import RunOptions, Stage, StageConfig
from compress.store import Artifact, Store, artifact_key, config_digest, link_tree
from deploy.errors import UsageError

ROOT = Path(__file__).parents[2]


class WriteConfig(StageConfig):
    text: str = "a"
    folder: str = "inner"


def write(config, inputs, out, _options):
    """The texts of all inputs and its own, in one file."""
    (out / config.folder).mkdir()
    above = "".join((path / "inner" / "text").read_text() for path in inputs.values())
    (out / config.folder / "text").write_text(above + config.text)


def failing(_config, _inputs, out, options):
    (out / "half").write_text("half")
    (options.scratch / "kept").write_text("kept")
    raise RuntimeError("stopped")


FIRST = Stage("first", (), WriteConfig, write)
SECOND = Stage("second", ("first",), WriteConfig, write)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def build(store, stage=FIRST, inputs=None, **fields):
    return store.get_or_build(stage, stage.config(**fields), inputs or {}, RunOptions())


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_key_depends_on_everything_that_the_bytes_depend_on():
    digests = {"first": "sha256:1"}
    keys = [
        artifact_key(SECOND, WriteConfig(), digests),
        artifact_key(FIRST, WriteConfig(), digests),
        artifact_key(Stage("second", ("first",), WriteConfig, write, version=2), WriteConfig(), digests),
        artifact_key(SECOND, WriteConfig(text="b"), digests),
        artifact_key(SECOND, WriteConfig(seed=1), digests),
        artifact_key(SECOND, WriteConfig(), {"first": "sha256:2"}),
        artifact_key(SECOND, WriteConfig(), {"third": "sha256:1"}),
        artifact_key(SECOND, WriteConfig(), {}),
        artifact_key(
            Stage("second", ("first",), WriteConfig, write, fingerprint=lambda _: {"cpu": "x"}), WriteConfig(), digests
        ),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 and int(key, 16) >= 0 for key in keys)


def test_the_key_depends_on_nothing_else():
    other = Stage("second", ("first",), WriteConfig, failing, "shared")
    assert artifact_key(other, WriteConfig(text="a"), {"a": "1", "b": "2"}) == artifact_key(
        SECOND, WriteConfig(), {"b": "2", "a": "1"}
    )


@given(st.text(), st.text())
def test_configs_share_a_digest_only_when_equal(one, two):
    same = config_digest(WriteConfig(text=one)) == config_digest(WriteConfig(text=two))
    assert same == (one == two)


def test_an_artifact_is_built_once_and_found_again(store):
    built = build(store, text="x")
    found = build(store, text="x")
    assert (built.cached, found.cached) == (False, True)
    assert found.path == built.path and found.digest == built.digest and found.seconds == built.seconds
    seal = json.loads((built.path / "seal.json").read_text())
    assert seal["stage"] == "first" and seal["config"] == {"seed": 0, "text": "x", "folder": "inner"}
    # SHA-256 of "x"
    assert seal["files"] == {
        "inner/text": {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "size": 1}
    }
    assert files(built.path) == {"inner/text", "seal.json"}
    assert not list(store.root.glob("*/*.partial"))


def test_options_are_not_part_of_the_key(store):
    built = build(store)
    assert store.get_or_build(FIRST, WriteConfig(), {}, RunOptions(threads=7, device="cuda")).path == built.path


def test_the_digest_names_contents_and_paths(store):
    digest = build(store, text="x").digest
    assert build(store, text="x", seed=1).digest == digest
    assert build(store, text="y").digest != digest
    assert build(store, text="x", folder="other").digest != digest


def test_identical_bytes_upstream_stop_a_rebuild(store):
    first, again = build(store, text="x"), build(store, text="x", seed=1)
    assert not again.cached and again.path != first.path
    built = build(store, SECOND, {"first": first})
    assert not built.cached
    assert build(store, SECOND, {"first": again}) == Artifact(
        built.path, built.digest, built.seconds, True, built.peak_rss_mb
    )
    assert not build(store, SECOND, {"first": build(store, text="z")}).cached


@pytest.mark.parametrize("damage", ["cut", "gone", "seal cut", "seal gone", "seal foreign"])
def test_a_damaged_artifact_is_absent_and_built_again(store, damage):
    artifact = build(store, text="abc")
    text, seal = artifact.path / "inner" / "text", artifact.path / "seal.json"
    match damage:
        case "cut":
            text.write_text("ab")
        case "gone":
            text.unlink()
        case "seal cut":
            seal.write_text(seal.read_text()[:40])
        case "seal gone":
            seal.unlink()
        case "seal foreign":
            seal.write_text("[]")
    (artifact.path / "stray").write_text("of a damaged folder")
    assert store.find(FIRST, artifact.path.name) is None
    repaired = build(store, text="abc")
    assert not repaired.cached and repaired.digest == artifact.digest and repaired.path == artifact.path
    assert files(repaired.path) == {"inner/text", "seal.json"}


def test_a_build_that_stops_leaves_nothing_sealed_and_keeps_its_scratch(store):
    stage = Stage("first", (), WriteConfig, failing)
    with pytest.raises(RuntimeError, match="stopped"):
        build(store, stage)
    assert not list(store.entries())
    key = artifact_key(stage, WriteConfig(), {})
    seen = {}

    def resumed(config, inputs, out, options):
        seen["out"], seen["scratch"] = files(out), files(options.scratch)
        write(config, inputs, out, options)

    artifact = build(store, Stage("first", (), WriteConfig, resumed))
    assert artifact.path.name == key and seen == {"out": set(), "scratch": {"kept"}}
    assert not list(store.root.glob("*/*.partial"))


BUILDER = """
import sys, time
from pathlib import Path
from compress.stage import RunOptions, Stage, StageConfig
from compress.store import Store

store, mark = Path(sys.argv[1]), Path(sys.argv[2])

def slow(config, inputs, out, options):
    with mark.open("a") as file:
        file.write("built\\n")
    for part in range(200):
        (out / str(part)).write_bytes(bytes(20_000))

print("ready", flush=True)
sys.stdin.readline()
artifact = Store(store).get_or_build(Stage("slow", (), StageConfig, slow), StageConfig(), {}, RunOptions())
print(artifact.digest, artifact.cached)
"""


def test_processes_that_want_the_same_key_build_it_once(tmp_path):
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "store"), str(tmp_path / "mark")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert (tmp_path / "mark").read_text() == "built\n"
    assert len({digest for digest, _ in answers}) == 1
    assert sorted(cached for _, cached in answers) == ["False", "True", "True", "True"]


def test_entries_past_and_remove(store):
    one = build(store, text="x")
    two = build(store, SECOND, {"first": one})
    for age, artifact in enumerate((two, one)):
        os.utime(artifact.path / "seal.json", (1e9 + age, 1e9 + age))
    assert [folder for folder, _ in store.entries()] == [two.path, one.path]
    past = store.past()
    cost = (one.seconds, one.peak_rss_mb)
    assert past["first"] == {config_digest(WriteConfig(text="x")): cost, "": cost} and set(past) == {"first", "second"}
    store.remove(one.path)
    assert [folder for folder, _ in store.entries()] == [two.path] and not one.path.exists()
    store.remove(one.path)


def test_link_tree_shares_files_but_not_the_seal(store, tmp_path):
    artifact = build(store, text="x")
    link_tree(artifact.path, tmp_path / "copy")
    assert files(tmp_path / "copy") == {"inner/text"}
    assert (tmp_path / "copy/inner/text").samefile(artifact.path / "inner/text")


def test_link_tree_copies_where_links_do_not_work(store, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    artifact = build(store, text="x")
    link_tree(artifact.path, tmp_path / "copy")
    assert (tmp_path / "copy/inner/text").read_text() == "x"
    assert not (tmp_path / "copy/inner/text").samefile(artifact.path / "inner/text")


def test_where_the_store_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMREC_STORE", str(tmp_path / "named"))
    assert Store().root == tmp_path / "named"
    monkeypatch.delenv("SLIMREC_STORE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Store().root == tmp_path / "home/.cache/slimrec/store"
    assert Store(tmp_path / "own").root == tmp_path / "own"


def test_a_store_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"^store: cannot make this folder: Not a directory \(got .*/file/store\)$"):
        Store(tmp_path / "file" / "store")
    store = Store(tmp_path / "store")
    (store.root / "first").write_text("a file where a folder belongs")
    with pytest.raises(UsageError, match=r"^store: cannot write here: File exists \(got .*/store\)$"):
        build(store)
