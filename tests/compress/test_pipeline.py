"""The tiny recipe through the whole table: resume, plan, gate, budget, and the same bytes every time."""

import json

import numpy as np
import pytest

from benchmarks.result import Result
from compress.pipeline import STAGES
from compress.plan import plan
from compress.recipe_file import load_recipe
from compress.store import Store
from deploy.bundle import open_bundle
from deploy.errors import GateError
from deploy.runtime import Recommender

NO_TEACHER_TRAINING = (
    "source.method.training.epochs=0",
    "source.method.frozen_epochs=0",
    "target.method.training.epochs=0",
    "target.method.frozen_epochs=0",
    "mix=none",
    "variants.control.distil.training={epochs: 12, batch_size: 16}",
)


@pytest.fixture
def tiny_recipe(request):
    path = request.config.rootpath / "recipes" / "tiny.yaml"
    return lambda *overrides: load_recipe(path, STAGES, overrides)


def built(result):
    """(stage, variant) of every step that was not found in the store."""
    return [(stage.name, stage.variant) for stage in result.stages if not stage.cached]


def states(recipe, store):
    return {step.title: step.state for step in plan(recipe, Store(store))}


def models(result):
    return [model.model_dump() for model in result.models]


def test_a_run_leaves_what_it_promises(tiny_run):
    assert {path.name for path in tiny_run.out.iterdir()} == {
        "result.json",
        "ranks.npz",
        "report.html",
        "bundle.slim",
        "bundle",
    }
    result = Result.model_validate_json((tiny_run.out / "result.json").read_text())
    assert result == tiny_run.result
    assert {model.role for model in result.models} == {"teacher", "student", "control", "baseline"}
    assert result.gate.passed and result.selected in {model.name for model in result.models}
    assert result.recipe == "tiny" and result.dataset.items == 20
    archive, folder = (open_bundle(tiny_run.out / name) for name in ("bundle.slim", "bundle"))
    assert archive.digest == folder.digest == result.bundle.digest
    assert result.bundle.size_bytes == (tiny_run.out / "bundle.slim").stat().st_size
    assert len(Recommender.load(tiny_run.out / "bundle.slim").recommend(["f2"], 5).items) == 5
    assert set(result.selection.refused) <= {model.name for model in result.models} - {result.selected}
    timed = [row for model in result.models for row in model.latency]
    assert timed and all(row.percentiles_ms[25] <= row.p50_ms <= row.percentiles_ms[75] for row in timed)
    html = (tiny_run.out / "report.html").read_text()
    assert all(model.name in html for model in result.models)


def test_shrunk_shapes_are_in_the_graphs(tiny_run):
    by_name = {model.name: model for model in tiny_run.result.models}
    teacher, student = by_name["teacher-fp32"], by_name["student-fp32"]
    assert student.params * 2 < teacher.params and student.size_bytes * 10 < teacher.size_bytes


def test_a_second_run_finds_everything(tiny_run, rerun):
    again = rerun()
    assert built(again.result) == []
    assert models(again.result) == models(tiny_run.result)
    assert again.result.model_dump(exclude={"stages"}) == tiny_run.result.model_dump(exclude={"stages"})
    assert again.shipped() == tiny_run.shipped()
    names = [(stage.name, stage.variant, stage.seconds) for stage in again.result.stages]
    assert names == [(stage.name, stage.variant, stage.seconds) for stage in tiny_run.result.stages]


def test_two_fresh_runs_make_the_same_files_whoever_watches(tiny_run, second_run):
    assert second_run.watched and not tiny_run.watched
    assert second_run.store != tiny_run.store and all(not stage.cached for stage in second_run.result.stages[:6])
    assert second_run.digests() == tiny_run.digests()
    assert {
        "history.fp32.onnx",
        "history.int8.onnx",
        "text.int8.onnx",
        "tokenizer.json",
        "items.item",
        "golden.json",
    } < set(tiny_run.shipped())
    assert second_run.shipped() == tiny_run.shipped()
    one, two = (json.loads((run.out / "bundle/manifest.json").read_text()) for run in (tiny_run, second_run))
    for manifest in (one, two):
        for name in manifest["files"].keys() - tiny_run.shipped().keys():
            del manifest["files"][name]
    assert one == two


def test_a_teacher_shows_its_students_warm_items_only(tiny_run):
    """Students mask cold items in training: one in the teacher's list would cost them thousands of nats."""
    [split] = tiny_run.store.glob("data/*/domains/target/split.npz")
    cold = np.load(split)["cold_items"]
    assert len(cold) == 2
    for stage in ("target", "mix"):
        [lists] = tiny_run.store.glob(f"{stage}/*/score_items.npy")
        named = np.load(lists)
        assert named.shape[1] == 10
        assert not np.isin(named, [0, *cold]).any()


def test_a_change_runs_again_only_what_depends_on_it(tiny_run, rerun):
    again = rerun("distil.loss=none")
    variants = {"distil": ["control", "student"], "prune": ["student"], "quantize": ["student"]}
    # the control has no teacher, so that its loss is in its key but not in its bytes: pruning finds them unchanged
    expected = {(stage, variant) for stage, names in variants.items() for variant in names}
    redone = set(built(again.result))
    assert expected <= redone
    assert {stage for stage, _ in redone} == {"distil", "prune", "quantize", "bench", "select", "pack"}
    assert ("prune", "teacher") not in redone and ("quantize", "teacher") not in redone
    assert not {stage for stage, _ in redone} & {"data", "baselines", "pretrain", "source", "target"}
    by_name = {model.name: model for model in tiny_run.result.models}
    for model in again.result.models:
        if model.role in ("teacher", "baseline"):
            assert model.accuracy == by_name[model.name].accuracy


def test_a_change_in_one_variant_leaves_the_others(rerun):
    redone = built(rerun("variants.student.distil.training.epochs=1").result)
    assert {variant for stage, variant in redone if stage in ("distil", "prune", "quantize")} == {"student"}


def test_plan_before_and_after_and_after_a_change(tiny_recipe, tiny_run, tmp_path):
    fresh = states(tiny_recipe(), tmp_path / "fresh")
    assert fresh.pop("data") == "to run"
    assert set(fresh.values()) == {"waits"}
    assert set(states(tiny_recipe(), tiny_run.store).values()) == {"sealed"}
    changed = states(tiny_recipe("variants.student.prune.sequence.keep_neurons=0.25"), tiny_run.store)
    left = {title: state for title, state in changed.items() if state != "sealed"}
    assert left == {
        "prune student": "to run",
        "quantize student": "waits",
        "bench": "waits",
        "select": "waits",
        "pack": "waits",
    }


def test_plan_foretells_time_and_memory_from_like_steps(tiny_recipe, tiny_run):
    steps = {step.title: step for step in plan(tiny_recipe("seeds=[7]"), Store(tiny_run.store))}
    assert steps["distil student@7"].state == "waits" and steps["distil student@7"].seconds > 0
    assert steps["bench"].seconds > 0.2 and steps["bench"].peak_rss_mb > 50
    assert next(plan(tiny_recipe(), Store(tiny_run.store.parent / "unseen"))).seconds is None


def test_plan_builds_nothing(tiny_recipe, tmp_path):
    states(tiny_recipe(), tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_a_teacher_that_fails_the_gate_teaches_nothing_and_the_control_ships(rerun):
    done = rerun(*NO_TEACHER_TRAINING)
    result = done.result
    assert not result.gate.passed and result.gate.teacher_valid <= result.gate.control_valid
    assert not [model.name for model in result.models if model.role == "student"]
    assert result.selected.startswith("control-") and result.transfer_ratio is None
    [reason] = [row.why for row in result.not_measured if row.what == "student student"]
    assert reason.startswith("its teacher failed the gate: ")
    assert any("teacher gate of student" in line and "the compressed control ships" in line for line in done.log)
    assert not {stage.name for stage in result.stages if stage.variant == "student"} & {"distil", "prune", "quantize"}
    assert Recommender.load(done.out / "bundle.slim").recommend(["f2"], 3).items


def test_plan_after_a_failed_gate_leaves_its_students_out(rerun, tiny_recipe, tiny_store):
    rerun(*NO_TEACHER_TRAINING)
    planned = states(tiny_recipe(*NO_TEACHER_TRAINING), tiny_store)
    out = {title for title, state in planned.items() if state == "left out"}
    assert out == {"distil student", "prune student", "quantize student"}
    assert set(planned.values()) == {"sealed", "left out"}


def test_a_budget_nobody_meets_writes_the_result_and_leaves_no_stale_bundle(rerun, tiny_recipe, tiny_store, tmp_path):
    budget, out = "select.max_size_mb=0.000001", tmp_path / "out"
    assert (rerun().out / "bundle.slim").exists()
    with pytest.raises(GateError) as caught:
        rerun(budget)
    [line] = caught.value.lines
    assert line.startswith("select: no candidate is inside the budget; nearest: ")
    result = Result.model_validate_json((out / "result.json").read_text())
    assert result.selected is None and result.bundle is None
    assert 1 <= len(result.selection.nearest) <= 3 and result.selection.nearest[0] in line
    assert {path.name for path in out.iterdir()} == {"result.json", "ranks.npz", "report.html"}
    planned = states(tiny_recipe(budget), tiny_store)
    assert planned.pop("pack") == "left out" and set(planned.values()) == {"sealed"}
    assert rerun().shipped()


def test_seeds_are_chains_of_their_own_and_are_averaged(rerun):
    result = rerun("seeds=[0, 1]").result
    assert result.protocol.seeds == [0, 1]
    names = {model.name for model in result.models}
    assert {"control-fp32", "control@1-fp32", "student@1-fp32", "teacher@1-fp32"} <= names
    redone = built(result)
    assert ("distil", "control") not in redone and ("distil", "control@1") in redone


def test_a_damaged_artifact_is_built_again_to_the_same_bytes(tiny_run, tiny_store, rerun):
    graph = next(tiny_store.glob("quantize/*/history.int8_per_row.onnx"))
    graph.write_bytes(graph.read_bytes()[:100])
    done = rerun()
    assert [stage for stage, _ in built(done.result)] == ["quantize"]
    assert done.digests() == tiny_run.digests() and done.shipped() == tiny_run.shipped()


def test_steps_read_only_sealed_folders_of_earlier_stages():
    order = [stage.name for stage in STAGES]
    for stage in STAGES:
        assert all(order.index(name) < order.index(stage.name) for name in stage.inputs)
    assert len(set(order)) == len(order)
