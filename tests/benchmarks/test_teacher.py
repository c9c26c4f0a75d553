"""The teachers' table: rows by hand, the shipped cases, and the command on the tiny recipe."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import teacher
from benchmarks.case_table import wanted_cases
from benchmarks.result import Result
from benchmarks.studies import Answered, read_plan, without
from benchmarks.teacher import CASES, Case, Cases, main, markdown, row
from compress.commands import find_recipe
from compress.pipeline import STAGES
from compress.recipe_file import load_recipe
from deploy.errors import UsageError

MACHINE = {"cpu": "a", "flags": [], "cores": 1, "versions": {}}


def run_of(ranks: dict[str, list[int]], stages: list[tuple[str, str, float]]) -> Answered:
    """`variant@seed/set` -> ranks; stages as (name, variant, seconds)."""
    names = dict.fromkeys(name.rpartition("/")[0] for name in ranks)
    result = Result.model_validate(
        {
            "recipe": "r",
            "commit": "c",
            "machine": MACHINE,
            "dataset": {"name": "d", "users": 4, "items": 9, "interactions": 20},
            "protocol": {"split": "leave-one-out", "seeds": [0, 1]},
            "models": [
                {"name": n, "role": "teacher", "variant": n.partition("@")[0], "chosen": False, "precision": "fp32"}
                | {"accuracy": {}}
                for n in names
            ],
            "stages": [
                {"name": n, "variant": v, "seconds": s, "cached": False, "peak_rss_mb": 10 * s} for n, v, s in stages
            ],
        }
    )
    return Answered(result, {name: np.array(values, np.int32) for name, values in ranks.items()})


STEPS = [
    ("pretrain", "a", 1.0),
    ("target", "a@1", 3.0),
    ("mix", "a", 2.0),
    ("quantize", "a", 9.0),
    ("target", "b", 4.0),
]


def test_a_row_by_hand() -> None:
    """a names every target first, b none of them: NDCG@10 1 and 0."""
    first, never = [1, 1, 1, 1], [0, 0, 0, 0]
    run = run_of({"a@0/test": first, "a@1/test": first, "b@0/test": never, "b@1/test": never}, STEPS)
    found = row("one", Case(recipe="r", a="a", b="b", times=1.2, least=0.9), run)
    assert (found.a.ndcg_10, found.b and found.b.ndcg_10, found.met) == (1.0, 0.0, True)
    assert found.a.seconds == 3.0 and found.a.peak_rss_mb == 30.0  # (1 + 3 + 2) / 2 seeds; quantizing is no training
    assert found.comparison is not None and found.comparison.verdict == "better" and found.comparison.users == 4
    text = markdown([found])
    assert "| one | a | 1.0000 [1.0000, 1.0000] | 3 | 30 | b |" in text and "at least 0.9, 1.2 times | yes |" in text


def test_a_ratio_without_a_clear_difference_is_not_met() -> None:
    run = run_of({"a@0/test": [1, 1, 0, 0], "b@0/test": [0, 0, 1, 0]}, STEPS)
    found = row("one", Case(recipe="r", a="a", b="b", times=1.2), run)
    assert found.comparison is not None and found.comparison.verdict == "tie" and found.met is False
    assert row("one", Case(recipe="r", a="a", b="b"), run).met is None


def test_cold_cases_are_their_own() -> None:
    run = run_of({"a@0/test": [0, 0], "a@0/cold": [1, 0, 1, 0]}, STEPS)
    found = row("cold", Case(recipe="r", a="a", segment="cold_items", least=0.4), run)
    assert found.a.ndcg_10 == 0.5 and found.met is True
    with pytest.raises(UsageError, match="measured no b on cold_items"):
        row("cold", Case(recipe="r", a="b", segment="cold_items"), run)


def test_shipped_cases_name_variants_of_shipped_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dbbook", "beauty", "sports"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SLIMREC_DATA", str(tmp_path))
    for name, case in read_plan(CASES, Cases).root.items():
        path = find_recipe(Path(without(case.recipe, case.leave, tmp_path / name.replace(" ", "-"), CASES)))
        recipe = load_recipe(path, STAGES, case.changes)
        names = {variant.name for variant in recipe.variants}
        assert {case.a, case.b or case.a} <= names and not names & set(case.leave)
        assert case.segment == "test" or recipe.shared["data"].model_dump()["cold_fraction"] > 0


def test_the_committed_table_is_made_of_its_rows() -> None:
    rows = teacher.table().read()
    assert rows and {found.name for found in rows} <= set(read_plan(CASES, Cases).root)
    assert teacher.TABLE.with_suffix(".md").read_text("utf-8") == markdown(rows)


def test_the_command_on_the_tiny_recipe(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another case's row stays; an unknown case is a mistake that names those there are."""
    tiny = str(Path(__file__).parents[2] / "recipes" / "tiny.yaml")
    plan = {
        "kept": {"recipe": tiny, "a": "control"},
        "made": {"recipe": tiny, "leave": ["text", "student"], "a": "teacher", "b": "control"},
    }
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    monkeypatch.setattr(teacher, "CASES", tmp_path / "cases.yaml")
    monkeypatch.setattr(teacher, "TABLE", tmp_path / "teacher.json")
    monkeypatch.setenv("SLIMREC_STORE", str(tiny_store))
    kept = row("kept", Case(recipe="r", a="a"), run_of({"a@0/test": [1, 0]}, STEPS))
    teacher.table().save(kept, plan)
    main.main(["made", "--seeds", "0", "--out", str(tmp_path / "runs")], standalone_mode=False)
    assert [found.name for found in teacher.table().read()] == ["kept", "made"]
    made = teacher.table().read()[1]
    assert made.a.ndcg_10 > 0 and made.b is not None and made.a.seconds > made.b.seconds > 0
    assert (tmp_path / "teacher.md").read_text() == markdown(teacher.table().read())
    with pytest.raises(UsageError, match="there are: kept; made"):
        main.main(["other"], standalone_mode=False)


def test_a_case_named_whole_is_that_one_alone() -> None:
    plan = {"Beauty": 1, "cold items, Beauty": 2, "films": 3}
    assert wanted_cases(plan, ["Beauty"], CASES) == {"Beauty": 1}
    assert wanted_cases(plan, ["items", "films"], CASES) == {"cold items, Beauty": 2, "films": 3}
    assert wanted_cases(plan, [], CASES) == plan
