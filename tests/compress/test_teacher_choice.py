"""Students may name their teachers: validation decides whether the source domain helps, and the run says so."""

import json

import pytest

from compress.gate import TeacherChoice
from compress.pipeline import STAGES, source_helps, steps
from compress.plan import plan
from compress.recipe_file import load_recipe
from compress.store import Store
from deploy.errors import UsageError

TWO = (
    "variants.scratch={role: teacher, source: none, distil: none, prune: none, quantize: none}",
    "variants.student.teacher=[teacher, scratch]",
    "variants.text.teacher=[teacher, scratch]",
)
QUICK = (
    "bench={history: 5, min_runs: 5, min_seconds: 0.05, rounds: 1}",
    "distil.training.epochs=2",
    "prune=none",
    "variants.student.quantize=none",
    "variants.text.distil.student.training.epochs=1",
)


@pytest.fixture
def tiny_recipe(request):
    path = request.config.rootpath / "recipes" / "tiny.yaml"
    return lambda *overrides: load_recipe(path, STAGES, overrides)


@pytest.fixture(scope="module")
def guarded(tiny_runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    return tiny_runner(folder / "out", folder / "store", *TWO, *QUICK)


def test_a_student_that_names_its_teachers_trains_none_itself(tiny_recipe):
    walked = [(s.stage.name, s.chain.variant) for s in steps(tiny_recipe(*TWO)) if s.chain]
    own = {stage for stage, variant in walked if variant == "student"}
    assert own == {"distil", "prune", "quantize"}
    assert ("target", "scratch") in walked and ("target", "teacher") in walked


def test_the_run_learns_from_the_better_and_says_so(guarded):
    choices = {choice.variant: choice for choice in guarded.result.teacher_choices}
    assert set(choices) == {"student", "text"}
    choice = choices["student"]
    assert set(choice.valid) == {"teacher", "scratch"} and choice.chosen == max(choice.valid, key=choice.valid.get)
    assert choice.difference == pytest.approx(abs(choice.valid["teacher"] - choice.valid["scratch"]))
    assert choice.source_helps is (choice.chosen == "teacher")
    told = [line for line in guarded.log if line.startswith("student learns from ")]
    assert len(told) == 1 and choice.chosen in told[0]
    assert ("the source helps" in told[0]) is choice.source_helps
    gate = guarded.result.gate
    assert gate.teacher_valid == pytest.approx(choice.valid[choice.chosen])
    html = (guarded.out / "report.html").read_text()
    assert f"student learned from {choice.chosen}" in html
    spaces = [json.loads(path.read_text()).get("text_space") for path in guarded.store.glob("distil/*/model.json")]
    assert len([space for space in spaces if space]) == 2 and len({space for space in spaces if space}) == 1


def test_the_choice_is_by_validation_alone(guarded, tiny_recipe):
    """The worse one alone gives another student, the better one alone the same artifact."""
    choice = guarded.result.teacher_choices[0]
    for name in choice.valid:
        recipe = tiny_recipe(*TWO[:1], *QUICK, f"variants.student.teacher={name}", "variants.text.teacher=" + name)
        states = {step.title: step.state for step in plan(recipe, Store(guarded.store))}
        assert states["distil student"] == ("sealed" if name == choice.chosen else "to run")
        assert "target student" not in states


def test_a_source_helps_only_where_there_was_a_choice(tiny_recipe):
    recipe = tiny_recipe(
        *TWO, "bench.min_runs=5", "bench.min_seconds=0.05", "bench.rounds=1", "variants.student.quantize=none"
    )
    assert source_helps(recipe, TeacherChoice("teacher", {"teacher": 0.2, "scratch": 0.1})) is True
    assert source_helps(recipe, TeacherChoice("scratch", {"teacher": 0.1, "scratch": 0.2})) is False
    assert source_helps(recipe, TeacherChoice("teacher", {"teacher": 0.2})) is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "variants.student.teacher=nobody",
            "variants.student.teacher: no such teacher; allowed: teacher (got 'nobody')",
        ),
        (
            "variants.student.teacher=control",
            "variants.student.teacher: no such teacher; allowed: teacher (got 'control')",
        ),
        ("variants.control.teacher=teacher", "students and text encoders have one (got role 'control')"),
        ("variants.student.teacher=[teacher, teacher]", "a list of different ones (got ['teacher', 'teacher'])"),
        ("variants.student.teacher=7", "a teacher's name or a list of different ones (got 7)"),
        ("variants.student={role: student, teacher: teacher, source: none}", "variants.student.source: comes from the"),
    ],
)
def test_mistakes(override, line, tiny_recipe):
    with pytest.raises(UsageError) as caught:
        tiny_recipe(override)
    assert any(line in found for found in caught.value.lines), caught.value.lines
