"""Recipes: what they may say, and every mistake at once, each with its path, the value and what is allowed."""

import textwrap

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data.load import DataConfig
from compress.distil.distil import DistilConfig
from compress.pipeline import STAGES
from compress.recipe import merge, parse_recipe
from compress.recipe_file import load_recipe
from compress.stage import Skip
from deploy.errors import UsageError

NO_TEACHER = {"pretrain": "none", "source": "none", "target": "none"}
CONTROL = {"role": "control", **NO_TEACHER}
DATA = {"domains": {"target": {"from": "synthetic"}, "source": {"from": "synthetic"}}}


def parsed(**sections):
    return parse_recipe({"data": DATA, "variants": {"control": CONTROL}} | sections, "probe", STAGES)


def mistakes(**sections):
    with pytest.raises(UsageError) as caught:
        parsed(**sections)
    return list(caught.value.lines)


def only(lines):
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "probe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    return write


def refused(path, *overrides):
    with pytest.raises(UsageError) as caught:
        load_recipe(path, STAGES, overrides)
    return list(caught.value.lines)


def test_defaults_are_the_configs_own():
    recipe = parsed()
    assert recipe.shared["data"] == DataConfig.model_validate(DATA)
    [control] = recipe.variants
    assert control.configs["distil"] == DistilConfig()
    assert recipe.seeds == (0,)
    assert list(control.configs) == [stage.name for stage in STAGES if stage.scope == "variant"]


def test_a_variant_overrides_only_what_it_names():
    student = {"role": "student", "distil": {"training": {"epochs": 3}}}
    recipe = parsed(
        distil={"training": {"epochs": 9, "batch_size": 7}, "student": {"name": "sequence", "dim": 12}},
        variants={"control": CONTROL, "student": student},
    )
    distil = {variant.name: variant.configs["distil"] for variant in recipe.variants}
    assert (distil["control"].training.epochs, distil["student"].training.epochs) == (9, 3)
    assert distil["student"].training.batch_size == 7 and distil["student"].student.dim == 12


def test_an_entry_of_another_name_replaces_its_default_whole():
    default = {"student": {"name": "sequence", "dim": 12}, "domain": "target"}
    own = {"student": {"name": "text", "layers": 2}}
    assert merge(default, own) == {"student": {"name": "text", "layers": 2}, "domain": "target"}
    assert merge({"name": "a", "x": 1, "y": {"z": 2}}, {"y": {"w": 3}}) == {"name": "a", "x": 1, "y": {"z": 2, "w": 3}}
    assert merge({"x": 1}, "none") == "none" and merge("none", {}) == "none"


def test_none_skips_a_section_and_a_name_stands_for_an_entry():
    recipe = parsed(variants={"control": CONTROL | {"distil": {"student": "sequence"}, "prune": "none"}})
    configs = recipe.variants[0].configs
    assert configs["pretrain"].backbone.name == configs["source"].method.name == configs["prune"].text.name == "none"
    assert configs["distil"].student.name == "sequence"
    spelled_out = parsed(variants={"control": CONTROL | {"prune": {"sequence": {"name": "none"}, "text": "none"}}})
    assert spelled_out.variants[0].configs["prune"] == configs["prune"]


def test_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parsed().shared["select"].max_size_mb = 1.0


def test_every_mistake_is_reported_at_once():
    lines = mistakes(
        selct={"max_size_mb": 1},
        select={"max_size": 1},
        bench={"rounds": "many"},
        seeds=[0, -1],
        distil={"loss": {"name": "kl"}, "training": {"epochs": 1.5}},
        variants={
            "control": CONTROL | {"prun": {}},
            "student": {"role": "pupil", "distil": {"student": {"name": "sequence", "dims": 8}}},
            "Student": {"role": "student"},
            "plain": "none",
        },
    )
    starts = [
        "selct: unknown section; allowed: description, seeds, variants, search, data, baselines, pretrain,",
        "seeds: must be a list of 1 to 32 different whole numbers from 0 (got [0, -1])",
        "bench.rounds: should be a valid integer, unable to parse string as an integer (got 'many')",
        "select.max_size: unknown field (got 1); did you mean max_size_mb? allowed: seed, max_size_mb, ",
        "variants.control.prun: unknown stage; allowed: role, teacher, pretrain, source, target, mix, distil, ",
        "distil.loss: unknown name (got 'kl'); allowed: ",
        "distil.training.epochs: should be a valid integer, got a number with a fractional part (got 1.5)",
        "variants.student.role: allowed: control, teacher, text_encoder, student (got 'pupil')",
        "variants.student.distil.student.dims: unknown field (got 8); did you mean dim? allowed: ",
        "variants.Student: a name has a-z, 0-9, '.', '_' and '-', at most 64 (got 'Student')",
        "variants.plain: must be a mapping with a `role` (got 'none')",
    ]
    assert len(lines) == len(starts), "\n".join(lines)
    for start in starts:
        assert any(line.startswith(start) for line in lines), f"{start}\n\n" + "\n".join(lines)


def test_a_mistake_in_a_default_is_reported_once_and_one_in_an_override_under_its_variant():
    variants = {"control": CONTROL, "a": {"role": "student"}, "b": {"role": "student", "distil": {"domain": "source"}}}
    line = only(mistakes(distil={"training": {"epochs": "x"}}, variants=variants))
    assert line.startswith("distil.training.epochs: should be a valid integer")
    variants["b"] = {"role": "student", "distil": {"training": {"epochs": "x"}}}
    line = only(mistakes(distil={"training": {"epochs": 4}}, variants=variants))
    assert line.startswith("variants.b.distil.training.epochs: should be a valid integer")


def test_roles():
    assert only(mistakes(variants={"a": {}})) == (
        "variants.a.role: allowed: control, teacher, text_encoder, student (got None)"
    )
    assert only(mistakes(variants={"a": {"role": "student"}})) == (
        "variants: a student needs a control to be compared with; add one with role: control"
    )
    assert only(mistakes(variants={"a": {"role": "teacher"}})).startswith("variants: nothing can ship; add one with")
    assert only(mistakes(variants={"a": {"role": "control"}})) == (
        "variants.a: a control is trained without a teacher; add source: none, target: none"
    )
    assert only(mistakes(variants={})).startswith("variants: name at least one, such as ")
    frozen = {"role": "control", "source": "none", "target": {"method": "frozen"}}
    assert parsed(variants={"reads-text": frozen}).variants[0].role == "control"


def test_domains():
    one = {"domains": {"target": {"from": "synthetic"}}}
    both = {"control": CONTROL, "student": {"role": "student"}}
    assert only(mistakes(data=one, variants=both)) == (
        "source.domain: no such domain in data.domains; allowed: target (got 'source')"
    )
    assert len(parsed(data=one, source="none", variants=both).variants) == 2
    assert only(mistakes(bench={"domain": "films"})).startswith("bench.domain: no such domain in data.domains")
    lines = mistakes(data={"domains": {"films": {"from": "synthetic", "not_in": "books"}}}, source="none")
    assert any(line.startswith("data.domains: one domain is called target") for line in lines)


def test_seeds():
    assert parsed(seeds=[3, 1]).seeds == (3, 1)
    for bad in ([], [0, 0], [-1], "abc", [2**32], 3, None, [1.5]):
        assert only(mistakes(seeds=bad)).startswith("seeds: must be a list of 1 to 32 different whole numbers from 0")
    assert only(mistakes(distil={"seed": 1})) == "distil.seed: comes from `seeds` at the top of the recipe"
    assert only(mistakes(variants={"control": CONTROL | {"distil": {"seed": 1}}})) == (
        "variants.control.distil.seed: comes from `seeds` at the top of the recipe"
    )
    assert only(mistakes(bench={"seed": -1})).startswith("bench.seed: should be greater than or equal to 0 (got -1)")


def test_description_is_one_line():
    assert parsed(description=" a\n  b ").description == "a b"
    assert only(mistakes(description=["a"])) == "description: must be text (got ['a'])"


GOOD = """
    data: {domains: {target: {from: synthetic}}}
    source: none
    variants: {control: {role: control, target: none}}
"""


def test_overrides(recipe_file):
    path = recipe_file(GOOD)
    recipe = load_recipe(
        path,
        STAGES,
        [
            "select.max_size_mb=2.5",
            "variants.control.distil.training.epochs=3",
            "distil.loss=none",
            "seeds=[4]",
            "variants.control.distil.student=sequence",
            "variants.control.distil.student.dim=24",
            "pack.name=a=b",
            "pack.name=probe",
        ],
    )
    assert recipe.name == "probe" and recipe.seeds == (4,)
    assert recipe.shared["select"].max_size_mb == 2.5 and recipe.shared["pack"].name == "probe"
    distil = recipe.variants[0].configs["distil"]
    assert (distil.training.epochs, distil.loss, distil.student.dim) == (3, (Skip(),), 24)
    assert load_recipe(path, STAGES).shared["select"].max_size_mb is None


def test_bad_overrides(recipe_file):
    path = recipe_file(GOOD)
    assert refused(path, "select.max_size_mb", "=1", "a..b=1", "select.max_size_mb=[1") == [
        "--set: expected section.field=value (got 'select.max_size_mb')",
        "--set: expected section.field=value (got '=1')",
        "--set: expected section.field=value (got 'a..b=1')",
        "--set select.max_size_mb: the value is not valid YAML (got '[1')",
    ]
    lines = refused(path, "selct.max_size_mb=1", "select.max_size_mb=small", "seeds.x=1", "variants.control.role=x")
    assert [line.partition(":")[0] for line in lines] == [
        "selct",
        "seeds",
        "select.max_size_mb",
        "variants.control.role",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: \xff", "not UTF-8 text (byte 6)"),
        (b"data: [", "not valid YAML"),
        (b"data: {}\ndata: {}", "key 'data' is given twice"),
        (b"distil: {training: {epochs: 1, epochs: 2}}", "key 'epochs' is given twice"),
        (b"a: &x [1]\nb: *x", "aliases (*name) are not supported"),
        (b"a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"? [a]\n: b", "found unhashable key"),
        (b"- data", "a recipe is a mapping of sections (got list)"),
        (b"", "a recipe is a mapping of sections (got NoneType)"),
        (b"[" * 100_000, "nested too deeply to be a recipe"),
        (b"#" * 1_000_001, "a recipe has at most 1000000 bytes (got 1000001)"),
    ],
)
def test_files_that_are_no_recipe(recipe_file, text, expected):
    path = recipe_file(text)
    line = only(refused(path))
    assert line.startswith(f"{path}: ") and expected in line


def test_a_yaml_mistake_names_its_line(recipe_file):
    assert "line 3, column 1" in only(refused(recipe_file(b"a: 1\nb: 2\na: 3\n")))


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        line = only(refused(path))
        assert line.startswith(f"{path}: cannot read the recipe: ") and "`slimrec recipes`" in line


def test_paths_are_relative_to_the_recipe(recipe_file, tmp_path, monkeypatch):
    path = recipe_file(GOOD.replace("from: synthetic", "from: ./films") + "    pretrain: {backbone: ../lm}\n")
    monkeypatch.chdir("/")
    recipe = load_recipe(path, STAGES, ["pack.key=./key.pem"])
    assert recipe.shared["data"].domains["target"].source.path == str(tmp_path / "films")
    assert recipe.variants[0].configs["pretrain"].backbone.model == str(tmp_path.parent / "lm")
    assert recipe.shared["pack"].key == str(tmp_path / "key.pem")


STUDENT = {"role": "student"}
TAIL = {"cached_scores": {"tail": 20}}


@pytest.mark.parametrize(
    ("sections", "left"),
    [
        ({}, False),
        ({"target": TAIL}, True),
        ({"target": TAIL, "mix": {"members": ["control"]}}, False),  # the mix scores anew
        ({"mix": {"members": ["control"], **TAIL}}, True),
    ],
)
@pytest.mark.parametrize("stage", ["distil", "prune"])
def test_a_loss_that_no_teacher_leaves_enough_for_is_told_before_any_teacher_is_trained(stage, sections, left):
    control = {**CONTROL, "mix": "none"}
    student = {**STUDENT, stage: {"loss": ["listwise_kl", "sampled_kl"]}}
    given = {"variants": {"control": control, "student": student}} | sections
    if left:
        assert parsed(**given).variants[1].configs[stage].wants
    else:
        line = only(mistakes(**given))
        assert line.startswith(f"variants.student: {stage}.loss needs a cached tail; set cached_scores: {{tail: 100}}")
        assert line.endswith("(teacher: student)")


def test_which_of_several_teachers_leaves_too_little_is_named():
    teachers = {
        "rich": {"role": "teacher", "target": {"cached_scores": {"user_vectors": True}}},
        "poor": {"role": "teacher"},
    }
    student = {**STUDENT, "teacher": ["rich", "poor"], "distil": {"loss": "full_kl"}}
    line = only(mistakes(variants={"control": CONTROL, **teachers, "student": student}))
    assert "cached user vectors" in line and line.endswith("(teacher: poor)")


def test_a_control_may_keep_the_section_loss_it_does_not_use():
    assert parsed(distil={"loss": "full_kl"}).variants[0].configs["distil"].wants


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["none", "", "kl", "sequence", "text", "control", "student", "synthetic", "ml-100k", "name"])
)
words = st.sampled_from(
    ["name", "role", "student", "loss", "training", "epochs", "domains", "target", "from", "items", "backbone", "seed"]
)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.integers(0, 2), inner, max_size=4)
)
sections = st.dictionaries(
    st.sampled_from([*(stage.name for stage in STAGES), "variants", "seeds", "description"]) | st.integers(0, 1), trees
)


@settings(max_examples=150, deadline=None)
@given(raw=sections, own=trees)
def test_any_yaml_is_parsed_or_refused_in_lines(raw, own):
    raw = yaml.safe_load(yaml.safe_dump({"data": DATA, "variants": {"control": CONTROL, "own": own}} | raw))
    try:
        recipe = parse_recipe(raw, "probe", STAGES)
    except UsageError as error:
        assert error.lines and len(set(error.lines)) == len(error.lines)
        assert all(": " in line and line.partition(":")[0] for line in error.lines)
    else:
        assert recipe.variants
