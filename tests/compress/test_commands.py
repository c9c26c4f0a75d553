"""The verbs run, plan, recipes and store as people and scripts see them."""

import json
import os
import re
import time

import pytest

from benchmarks.result import Result
from compress.commands import find_recipe, shipped_recipes
from compress.store import Store
from deploy.cli import run_command
from deploy.errors import UsageError


@pytest.fixture
def said(capsys):
    """Runs a command line that must succeed; returns its stdout and stderr."""

    def run(*arguments):
        assert run_command([str(argument) for argument in arguments]) == 0
        return capsys.readouterr()

    return run


def test_run_json_ends_with_the_result_on_one_line(said, tiny_store, tmp_path):
    printed = said("run", "tiny", "--out", tmp_path / "out", "--store", tiny_store, "--json")
    result = Result.model_validate_json(printed.out.splitlines()[-1])
    assert json.loads(printed.out.splitlines()[-1]) == json.loads((tmp_path / "out/result.json").read_text())
    assert result.selected is not None and all(stage.cached for stage in result.stages)
    assert "distil student" in printed.err and "sealed" in printed.err and "\x1b" not in printed.err


def test_run_prints_a_table_and_how_to_serve(said, tiny_run, tiny_store, tmp_path):
    printed = said("run", "tiny", "--out", tmp_path / "out", "--store", tiny_store).out
    assert all(model.name in printed for model in tiny_run.result.models)
    assert f"{tiny_run.result.selected} <- ships" in printed
    assert printed.splitlines()[-1] == f"serve it: slimrec serve {tmp_path / 'out/bundle.slim'} --allow-unsigned"
    assert "teacher gate passed" in printed and "transfer ratio" in printed


def test_run_writes_to_runs_by_default(said, tiny_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said("run", "tiny", "--store", tiny_store)
    assert (tmp_path / "runs/tiny/bundle.slim").is_file()


def test_plan_says_what_is_sealed(said, tiny_run, tmp_path):
    lines = said("plan", "tiny", "--store", tiny_run.store).out.splitlines()
    n = len(tiny_run.result.stages)
    assert lines[0].split() == ["step", "state", "seconds", "memory", "MB"]
    assert sum(" sealed " in line for line in lines) == n and lines[-1] == f"{n} of {n} sealed; left: 0 s"
    (told,) = [line for line in lines if line.startswith("p95 of an answer in fp32, ")]
    assert re.search(r"control \d+\.\d\d ms.*student \d+\.\d\d ms; an estimate fitted on ", told)
    lines = said("plan", "tiny", "--store", tmp_path / "fresh").out.splitlines()
    assert not any(line.startswith("p95") for line in lines)
    assert lines[-1] == f"0 of {n} sealed; left: 0 s and {n} steps this store has not seen yet"
    lines = said("plan", "tiny", "--store", tiny_run.store, "--set", "select.max_p95_ms=9").out.splitlines()
    assert lines[-1].startswith(f"{n - 2} of {n} sealed; left: ")
    assert [line.split()[:3] for line in lines if line.startswith("select")] == [["select", "to", "run"]]


def test_recipes_lists_each_with_its_purpose(said):
    lines = said("recipes").out.splitlines()[1:]
    starts = [line.split(maxsplit=1) for line in lines if not line.startswith(" ")]
    assert [name for name, _ in starts] == [path.stem for path in shipped_recipes()]
    assert all(len(purpose.split()) > 5 for _, purpose in starts)


def test_a_recipe_is_found_by_path_or_by_name(tmp_path):
    own = tmp_path / "tiny"
    own.write_text("")
    assert find_recipe(own) == own
    assert find_recipe(type(own)("tiny")).name == "tiny.yaml"
    with pytest.raises(UsageError, match=r"shipped ones, by name: .*tiny"):
        find_recipe(own / "no")


def test_store_list_and_prune(said, tiny_run, tiny_store):
    lines = said("store", "list", "--store", tiny_store).out.splitlines()
    folders = {folder.name[:12] for folder, _ in Store(tiny_store).entries()}
    assert {line.split()[1] for line in lines[1:-1]} == folders
    assert lines[-1].endswith(f"MB in {tiny_store} (artifacts that share files are counted in full)")
    old = [folder for folder, seal in Store(tiny_store).entries() if seal["stage"] == "quantize"]
    two_days_ago = time.time() - 2 * 86400
    for folder in old:
        os.utime(folder / "seal.json", (two_days_ago, two_days_ago))
    killed = tiny_store / "prune" / "0.partial"
    killed.mkdir()
    os.utime(killed, (two_days_ago, two_days_ago))
    counts = f"{len(old)} artifacts, 1 killed builds"
    assert (
        said("store", "prune", "--store", tiny_store, "--older-than", 1).out == f"would remove (say --yes): {counts}\n"
    )
    assert killed.exists() and all(folder.exists() for folder in old)
    assert said("store", "prune", "--store", tiny_store, "--older-than", 1, "--yes").out == f"removed: {counts}\n"
    assert not killed.exists() and not any(folder.exists() for folder in old)
    assert len(list(Store(tiny_store).entries())) == len(list(Store(tiny_run.store).entries())) - len(old)


@pytest.mark.parametrize("verb", ["run", "plan", "recipes", "store", "bench", "evaluate"])
def test_every_help_says_what_the_verb_is_for(said, verb):
    text = said(verb, "--help").out
    assert len(text.splitlines()) > 4 and f"slimrec {verb}" in text
