"""A search in a run: who is stopped, who goes on, and that a second run finds every trial in the store."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.result import Result, Search
from compress.chain import Chain
from compress.pipeline import STAGES, Run, steps
from compress.plan import plan
from compress.recipe_file import load_recipe
from compress.search.trials import Trial, Values, front, reason_to_stop, run_search, search_trials
from compress.stage import RunOptions
from compress.store import Artifact, Store
from compress.walk import Walk

SEARCH = {
    "of": "student",
    "trials": 4,
    "startup_trials": 2,
    "stop_margin": 0.0,
    "space": {
        "distil.student.dim": [4, 8],
        "distil.training.learning_rate": {"low": 1e-3, "high": 0.02, "log": True},
        "prune.sequence.keep_neurons": {"low": 0.25, "high": 1.0},
        "distil.loss": ["listwise_kl", "none"],
    },
}
OVERRIDES = (f"search={SEARCH}", "bench={history: 5, min_runs: 5, min_seconds: 0.05, rounds: 1}")
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


@pytest.fixture(scope="module")
def searched(tiny_run, tiny_runner, tmp_path_factory):
    """A search on top of the finished tiny run."""
    folder = tmp_path_factory.mktemp("searched")
    store = shutil.copytree(tiny_run.store, folder / "store")
    return tiny_runner(folder / "out", store, *OVERRIDES)


@pytest.fixture
def trial(tiny_recipe):
    """A trial of given values, by name: stopped where none came after pruning."""
    student = tiny_recipe(OVERRIDES[0]).search.of

    def made(name, pruned, distilled=None):
        distilled = distilled or Values(0.5, 100)
        reason = None if pruned else "bad"
        return Trial(replace(student, name=name), {}, (), distilled, pruned and Values(*pruned), reason)

    return made


def names(trials):
    return [trial.variant.name for trial in trials]


def built(result):
    return [(stage.name, stage.variant) for stage in result.stages if not stage.cached]


def test_the_front_by_hand(trial):
    trials = [
        trial("small", (0.30, 100)),
        trial("worse", (0.39, 300)),  # both beaten by `good`
        trial("good", (0.40, 200)),
        trial("best", (0.41, 900)),
        trial("equal", (0.40, 200)),  # found again
        trial("as-good-larger", (0.41, 901)),
        trial("weak", (0.29, 100)),
        trial("stopped", None, Values(0.9, 1)),
    ]
    assert names(front(trials)) == ["small", "good", "best"]
    assert names(front(trials[::-1])) == ["equal", "best", "small"]
    assert front([]) == front(trials[-1:]) == []


def test_bad_trials_stop_by_hand(tiny_recipe):
    """The median of finished trials that are no larger, less a tenth; the first three always finish."""
    search = tiny_recipe(f"search={SEARCH | {'startup_trials': 3, 'stop_margin': 0.1}}").search
    finished = [Values(0.20, 100), Values(0.30, 100), Values(0.50, 200), Values(0.90, 400)]
    assert reason_to_stop(search, Values(0.01, 400), finished[:2]) is None
    assert reason_to_stop(search, Values(0.26, 399), finished) == (  # of .2, .3 and .5
        "validation 0.2600 after distil, median of trials no larger 0.3000"
    )
    assert reason_to_stop(search, Values(0.271, 399), finished) is None
    assert reason_to_stop(search, Values(0.35, 400), finished) is not None  # of all four: .4
    assert reason_to_stop(search, Values(0.37, 400), finished) is None
    assert reason_to_stop(search, Values(0.01, 99), finished) is None  # the smallest so far
    never = tiny_recipe(f"search={str(SEARCH | {'stop_margin': None}).replace('None', 'null')}").search
    assert reason_to_stop(never, Values(0.0, 400), finished) is None


def test_a_run_goes_on_with_the_front(searched):
    found = searched.result.search
    assert [each.name for each in found.trials] == [f"student-t{number}" for number in range(1, 5)]
    assert (found.metric, found.of.name) == ("ndcg@10", "student")
    on_front = {each.name for each in found.trials if each.front}
    assert on_front and not any(each.front for each in found.trials if each.stopped)
    by_name = {model.name: model for model in searched.result.models}
    for each in found.trials:
        of_trial = {name for name, model in by_name.items() if model.variant == each.name}
        assert len(of_trial) == (3 if each.front else 0), "fp32 and both quantizers of the recipe"
        assert list(each.chosen) == list(SEARCH["space"])
        if each.front:
            measured = by_name[f"{each.name}-fp32"]
            assert measured.params == each.params
            assert measured.accuracy.valid.ndcg_10 == pytest.approx(each.valid, abs=1e-6)
            assert measured.latency and measured.role == "student"
    candidates = set(by_name)
    assert set(searched.result.selection.front) <= candidates and searched.result.selected in candidates
    written = by_name["student-fp32"]
    assert (written.params, written.accuracy.valid.ndcg_10) == (
        found.of.params,
        pytest.approx(found.of.valid, abs=1e-6),
    )
    assert Search.model_validate_json((searched.out / "search.json").read_text()) == found
    assert Result.model_validate_json((searched.out / "result.json").read_text()) == searched.result
    page = (searched.out / "report.html").read_text()
    assert "What the search tried" in page and all(each.name in page for each in found.trials)


def test_trials_are_stages_like_any_other(searched):
    """Only what a trial changes is computed, each once; stopped ones have no `prune`."""
    done = built(searched.result)
    trials = searched.result.search.trials
    assert {(stage, name) for stage, name in done if stage in ("distil", "prune")} == {
        *(("distil", each.name) for each in trials),
        *(("prune", each.name) for each in trials if each.stopped is None),
    }
    assert len(done) == len(set(done))
    assert {stage for stage, _ in done} <= {"distil", "prune", "quantize", "bench", "select", "pack"}


def test_a_second_run_trains_nothing(searched, tiny_runner, tmp_path):
    again = tiny_runner(tmp_path / "out", searched.store, *OVERRIDES)
    assert built(again.result) == []
    assert again.result.search == searched.result.search
    assert again.result.models == searched.result.models


def test_more_trials_go_on_from_those_there_are(searched, tiny_recipe):
    """The first four are proposed again, whatever comes after them: a search that was killed resumes so."""
    recipe = tiny_recipe(f"search={SEARCH | {'trials': 5}}")
    found = {step.title: step.state for step in plan(recipe, Store(searched.store))}
    assert [found[f"distil student-t{number}"] for number in range(1, 6)] == ["sealed"] * 4 + ["to run"]
    assert found["prune student-t5"] == found["bench"] == "waits"
    stopped = [each.name for each in searched.result.search.trials if each.stopped]
    assert stopped and not any(f"prune {name}" in found for name in stopped)


def test_plan_follows_a_search_to_its_end(searched, tiny_recipe):
    planned = list(plan(tiny_recipe(*OVERRIDES), Store(searched.store)))
    assert {step.state for step in planned} == {"sealed"}
    titles = [step.title for step in planned]
    assert len(titles) == len(set(titles))
    assert sorted(titles) == sorted(
        stage.name if stage.variant is None else f"{stage.name} {stage.variant}" for stage in searched.result.stages
    )


def test_before_the_first_run_all_trials_wait(tiny_recipe, tmp_path):
    planned = list(plan(tiny_recipe(*OVERRIDES), Store(tmp_path)))
    to_come = [step.title for step in planned if step.of_trial]
    assert to_come == [f"{stage} student-t{number}" for number in range(1, 5) for stage in ("distil", "prune")]
    assert {step.state for step in planned if step.of_trial} == {"waits"}


def test_plan_says_how_many_trials_are_to_come(searched, capsys):
    from deploy.cli import run_command

    more = f"search={SEARCH | {'trials': 6}}"
    assert run_command(["plan", "tiny", "--store", str(searched.store), "--set", more]) == 0
    assert "search: 2 of at most 6 trials of student to come" in capsys.readouterr().out
    assert run_command(["plan", "tiny", "--store", str(searched.store)]) == 0
    assert "search" not in capsys.readouterr().out


def test_where_the_teacher_fails_nothing_is_searched(rerun, tiny_recipe):
    overrides = (*OVERRIDES, *NO_TEACHER_TRAINING)
    failed = rerun(*overrides)
    assert failed.result.search is None and not (failed.out / "search.json").exists()
    assert "search: no trials of student, whose teacher failed the gate" in failed.log
    absent = {item.what: item.why for item in failed.result.not_measured}
    assert absent["search of student"] == "its teacher failed the gate"
    assert not any(stage.variant and stage.variant.startswith("student-t") for stage in failed.result.stages)
    assert not any(step.of_trial for step in plan(tiny_recipe(*overrides), Store(failed.store)))


@pytest.mark.usefixtures("tiny_run")
def test_a_controls_search_runs_in_all_seeds(tiny_recipe, tiny_store):
    """The trials of the first seed only, what goes on in all; no gate is asked."""
    search = SEARCH | {"of": "control", "trials": 2, "space": {"distil.student.dim": [4, 16]}}
    recipe = tiny_recipe(f"search={search}", "seeds=[0, 1]", "variants={control: {role: control, pretrain: none, "
                         "source: none, target: none, mix: none}}")  # fmt: skip
    store, options = Store(tiny_store), RunOptions(threads=1)
    run = Walk(recipe, store, options, gather=False).to_the_end()
    longer = run_search(recipe, run, lambda step, inputs: store.get_or_build(step.stage, step.config, inputs, options),
                        lambda _line: None)  # fmt: skip
    assert {each.chosen["distil.student.dim"] for each in run.search.trials} == {4, 16}
    tried = {chain.name for _, chain in run.artifacts if chain and chain.variant != "control"}
    tried |= {step.chain.name for step, _ in run.aside}
    assert tried == {"control-t1", "control-t2"}
    going_on = [variant for variant in longer.variants if variant.name != "control"]
    assert {variant.name for variant in going_on} == {each.name for each in run.search.trials if each.front}
    chains = {step.chain for step in steps(longer) if step.chain}
    assert {Chain("control", variant.name, seed) for variant in going_on for seed in (0, 1)} <= chains


def test_what_was_proposed_before_is_no_trial_of_its_own(tiny_recipe, searched):
    """Two choices make two trials, however many are asked for; each is built once."""
    search = {"of": "control", "trials": 5, "startup_trials": 1, "space": {"distil.student.dim": [4, 8]}}
    recipe = tiny_recipe(f"search={search}")
    run, asked = Run(), []
    folder = next(Path(searched.store).glob("distil/*/sequence")).parent
    for step in steps(recipe):
        run.artifacts[step.stage.name, step.chain] = Artifact(folder, "sha256:0", 0.0)

    def build(step, _inputs):
        asked.append(step.title)
        return Artifact(folder, "sha256:0", 0.0)

    found = list(search_trials(recipe, run.artifacts, build))
    assert asked == ["distil control-t1", "prune control-t1", "distil control-t2", "prune control-t2"]
    assert sorted(each.chosen["distil.student.dim"] for each in found) == [4, 8]
    assert names(front(found)) == ["control-t1"]  # equal values: the first


def test_the_record_is_plain_json(searched):
    raw = json.loads((searched.out / "search.json").read_text())
    assert set(raw["trials"][0]) == {"name", "chosen", "valid", "params", "stopped", "front"}
