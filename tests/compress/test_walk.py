"""Steps side by side: the same files, told in one place, whoever built them."""

import pytest

from compress.pipeline import STAGES
from compress.recipe_file import load_recipe
from compress.stage import RunOptions
from compress.store import Store
from compress.walk import Walk


def test_three_at_work_make_the_same_files(tiny_run, tiny_runner, tmp_path):
    done = tiny_runner(tmp_path / "out", tmp_path / "store", jobs=3)
    assert done.digests() == tiny_run.digests()
    assert done.shipped() == tiny_run.shipped()
    named = [(stage.name, stage.variant, stage.cached) for stage in done.result.stages]
    assert named == [(stage.name, stage.variant, stage.cached) for stage in tiny_run.result.stages]
    assert [model.name for model in done.result.models] == [model.name for model in tiny_run.result.models]
    # every step that was built is told once, by whoever built it
    ends = sorted(line.rsplit(maxsplit=2)[0] for line in done.log if line.endswith(" s") and not line.startswith(" "))
    assert ends == sorted(line.rsplit(maxsplit=2)[0] for line in tiny_run.log if line.endswith(" s") and line[0] != " ")


def test_with_helpers_too_what_is_sealed_is_found(tiny_run, tiny_runner, tiny_store, tmp_path):
    again = tiny_runner(tmp_path / "out", tiny_store, jobs=2)
    assert all(stage.cached for stage in again.result.stages)
    assert again.result.models == tiny_run.result.models


def test_a_mistake_that_a_worker_meets_is_told_once(refused, tmp_path):
    folders = ["--out", tmp_path / "out", "--store", tmp_path / "store"]
    stages = ("pretrain", "source", "target", "mix")
    untaught = [word for stage in stages for word in ("--set", f"variants.text.{stage}=none")]
    lines = refused(2, "run", "tiny", *folders, "--jobs", "2", *untaught)
    assert sum("a text student needs a teacher" in line for line in lines) == 1


def test_a_step_that_nobody_builds_is_an_error_not_a_wait(request, tmp_path):
    recipe = load_recipe(request.config.rootpath / "recipes" / "tiny.yaml", STAGES)
    walk = Walk(recipe, Store(tmp_path), RunOptions(threads=1))
    walk.waiting = [step for step in walk.waiting if step.title == "source teacher"]  # what it reads is never built
    with pytest.raises(RuntimeError, match=r"nobody builds.*source teacher"):
        walk.to_the_end()
