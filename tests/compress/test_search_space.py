"""The section `search` of a recipe: what may be searched, and every mistake at once; what is proposed."""

import pytest

from compress.pipeline import STAGES
from compress.recipe_file import load_recipe
from compress.search.sampler import Sampler
from compress.search.space import Choices, Range
from compress.stage import Skip
from deploy.errors import UsageError

SPACE = {
    "distil.student.dim": [4, 8],
    "distil.loss": ["listwise_kl", "none"],
    "distil.training.learning_rate": {"low": "1e-3", "high": 0.02, "log": True},
    "prune.sequence.keep_neurons": {"low": 0.25, "high": 1.0, "step": 0.25},
    "prune.sequence.recovery.epochs": {"low": 1, "high": 3},
}


@pytest.fixture
def tiny_recipe(request):
    path = request.config.rootpath / "recipes" / "tiny.yaml"
    return lambda search, *more: load_recipe(path, STAGES, [f"search={search}", *more])


@pytest.fixture
def mistakes(tiny_recipe):
    def refused(search, *more):
        with pytest.raises(UsageError) as caught:
            tiny_recipe(search, *more)
        return list(caught.value.lines)

    return refused


@pytest.fixture
def mistake(mistakes):
    """What is wrong with one dimension of tiny's student."""

    def refused(path, given):
        [line] = mistakes({"of": "student", "space": {path: given}})
        return line

    return refused


def test_a_trial_is_the_variant_with_what_was_chosen_in_its_place(tiny_recipe):
    search = tiny_recipe({"of": "student", "space": SPACE}).search
    trial = search.trial(3, {"distil.student.dim": 4, "distil.loss": "none", "prune.sequence.keep_neurons": 0.25})
    own = search.of
    assert (trial.name, trial.role, trial.teachers) == ("student-t3", "student", own.teachers)
    distil, prune = own.configs["distil"], own.configs["prune"]
    changed = {"student": distil.student.model_copy(update={"dim": 4}), "loss": (Skip(),)}
    assert trial.configs["distil"] == distil.model_copy(update=changed)
    assert trial.configs["prune"].sequence == prune.sequence.model_copy(update={"keep_neurons": 0.25})
    assert all(trial.configs[stage] is own.configs[stage] for stage in own.configs if stage not in ("distil", "prune"))
    # what is chosen as it was changes nothing: no key of the store moves
    assert search.trial(1, {"distil.student.dim": 8, "distil.loss": "listwise_kl"}).configs == own.configs


def test_dimensions_are_choices_or_ranges(tiny_recipe):
    space = tiny_recipe({"of": "student", "space": SPACE}).search.space
    assert space["distil.loss"] == Choices(values=("listwise_kl", "none"))
    assert space["distil.training.learning_rate"] == Range(low=0.001, high=0.02, log=True)
    assert space["prune.sequence.recovery.epochs"].whole and not space["prune.sequence.keep_neurons"].whole
    assert Range(low=1, high=9, step=4).values == (1, 5, 9)
    assert Range(low=1, high=1000).values == (1, 1000) and Range(low=1.0, high=3.0).values == (1.0, 3.0)


def test_mistakes_of_the_section(mistakes):
    space = {"distil.student.dim": [4]}
    assert mistakes(3)[0].startswith("search: should be a valid dictionary")
    assert mistakes({"of": "teacher", "space": space}) == [
        "search.of: no such student or control; allowed: control, student (got 'teacher')"
    ]
    assert sorted(mistakes({"triels": 1, "trials": 0, "space": {}, "stop_margin": 1.0})) == [
        "search.of: is missing",
        "search.space: Dictionary should have at least 1 item after validation, not 0 (got {})",
        "search.stop_margin: should be less than 1 (got 1.0)",
        "search.trials: should be greater than or equal to 1 (got 0)",
        "search.triels: unknown field (got 1); did you mean trials? "
        "allowed: of, trials, startup_trials, stop_margin, space",
    ]
    taken = mistakes({"of": "student", "space": space}, "variants.student-t2={role: student}")
    assert taken == ["variants.student-t2: this name is a trial's; choose another"]


@pytest.mark.parametrize(
    ("path", "given", "message"),
    [
        ("distill.loss", ["none"], "distill.loss: unknown stage; allowed: distil, prune"),
        ("mix.members", [[]], "mix.members: this stage is not searched; allowed: distil, prune"),
        ("quantize.history", [[]], "quantize.history: quantizers need no search; list them in quantize, every "),
        ("distil", ["none"], "distil: name a field of distil, such as search.space.distil.FIELD"),
        ("distil.seed", [0, 1], "distil.seed: comes from `seeds` at the top of the recipe"),
        ("distil.los", ["none"], "distil.los: unknown field (got 'none'); did you mean loss? allowed: "),
        ("distil.loss", ["none", "lost"], "distil.loss: unknown name (got 'lost'); allowed: "),
        ("distil.student.dim", 4, "distil.student.dim: a list of choices, or a range {low, high} (got 4)"),
        ("distil.student.dim", [], "distil.student.dim: list different choices, at least one (got [])"),
        ("distil.student.dim", [4, 8, 4], "distil.student.dim: list different choices, at least one (got [4, 8, 4])"),
        ("distil.student.dim", [4, 0], "distil.student.dim: should be greater than 0 (got 0)"),
        ("prune.sequence.keep_neurons", {"low": 0.5, "high": 2}, "prune.sequence.keep_neurons: should be less than or"),
        ("prune.sequence.keep_neurons", {"low": 0, "high": 1.0}, "prune.sequence.keep_neurons: should be greater than"),
        ("distil.student.neurons", {"low": 8, "high": "x"}, "distil.student.neurons.high: must be a finite number"),
        ("distil.student.neurons", {"low": 8, "hi": 9, "high": 9}, "distil.student.neurons.hi: unknown field (got 9)"),
        ("distil.student.neurons", {"low": 8}, "distil.student.neurons.high: is missing"),
        ("distil.student.neurons", {"low": 8, "high": 8}, "distil.student.neurons: low must be below high"),
        ("distil.student.dropout", {"low": 0, "high": 0.5, "log": True}, "distil.student.dropout: low must be above 0"),
        (
            "distil.student.neurons",
            {"low": 1, "high": 9, "log": True, "step": 2},
            "distil.student.neurons: step and log exclude each other",
        ),
        ("distil.student.neurons", {"low": 8, "high": 12, "step": 3}, "distil.student.neurons: step must divide high"),
        # every whole number of a short range is tried, not its ends alone
        ("distil.student.dim", {"low": 2, "high": 4}, ": distil.student.dim=3: distil.student: heads must divide dim"),
    ],
)
def test_mistakes_of_a_dimension(mistake, path, given, message):
    line = mistake(path, given)
    assert line.startswith("search.space" + ("" if message.startswith(":") else ".") + message), line


def test_a_path_below_another_is_refused(mistakes):
    lines = mistakes({"of": "student", "space": {"distil.student": [{"name": "sequence"}], "distil.student.dim": [4]}})
    assert lines == ["search.space.distil.student.dim: lies below search.space.distil.student, which replaces it; "
                     "keep one of the two"]  # fmt: skip


def test_values_are_tried_together(tiny_recipe, mistakes):
    """A dim of 9 does not suit the recipe's two heads, but every proposal has three."""
    assert tiny_recipe({"of": "student", "space": {"distil.student.dim": [6, 9], "distil.student.heads": [3]}})
    [line] = mistakes({"of": "student", "space": {"distil.student.dim": [6, 8], "distil.student.heads": [2, 4]}})
    assert line == (
        "search.space: distil.student.dim=6, distil.student.heads=4: distil.student: heads must divide dim "
        "(got 4 heads, dim 6)"
    )


def test_mistakes_of_variants_come_first(mistakes):
    lines = mistakes({"of": "student", "space": {"distil.student.dim": [0]}}, "variants.student.distil.student.dim=0")
    assert lines == ["variants.student.distil.student.dim: should be greater than 0 (got 0)"]


def proposals(seed, answers, space):
    sampler = Sampler(space, seed, startup_trials=3)
    found = []
    for answer in answers:
        found.append(sampler.ask())
        sampler.tell(answer)
    return found


def test_equal_answers_bring_equal_proposals(tiny_recipe):
    space = tiny_recipe({"of": "student", "space": SPACE}).search.space
    answers = [(0.1, 300), (0.3, 500), None, (0.2, 200), (0.4, 600), None, (0.3, 300), (0.1, 900)]
    first = proposals(0, answers, space)
    assert proposals(0, answers, space) == first
    assert proposals(1, answers, space)[0] != first[0]
    assert proposals(0, [(0.4, 900), (0.1, 100), (0.2, 200), *answers[3:]], space)[:3] == first[:3]  # drawn at random
    assert proposals(0, [(0.4, 900), (0.1, 100), (0.2, 200), *answers[3:]], space)[3:] != first[3:]  # learned from
    for chosen in first:
        assert list(chosen) == list(SPACE)
        assert chosen["distil.student.dim"] in (4, 8) and chosen["distil.loss"] in ("listwise_kl", "none")
        assert 0.001 <= chosen["distil.training.learning_rate"] <= 0.02
        assert chosen["prune.sequence.keep_neurons"] in (0.25, 0.5, 0.75, 1.0)
        assert chosen["prune.sequence.recovery.epochs"] in (1, 2, 3)
