"""Folds and learning curves: what is pooled, compared and drawn, by hand; and both commands on the tiny recipe."""

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import curves, folds, studies
from benchmarks.curves import CurveStudy
from benchmarks.folds import FoldStudy
from benchmarks.line_chart import Point, line_chart
from benchmarks.result import Result
from benchmarks.studies import Answered
from deploy.errors import UsageError

ROLES = {"control": "control", "teacher": "teacher", "teacher-scratch": "teacher", "ease": "baseline"}
MACHINE = {"cpu": "a", "flags": [], "cores": 1, "versions": {"numpy": "2"}}


def run_of(ranks: dict[str, dict[str, list[list[int]]]], users: int = 4) -> Answered:
    """variant -> set -> ranks by seed; a baseline has one seed."""
    models, flat = [], {}
    for variant, sets in ranks.items():
        seeds = max(len(by_seed) for by_seed in sets.values())
        for seed in range(seeds):
            name = f"{variant}:{seed}-fp32"
            row = {"name": name, "role": ROLES[variant], "variant": variant, "chosen": False, "precision": "fp32"}
            models.append({**row, "accuracy": {}, "seed": seed})
            flat |= {f"{name}/{cases}": np.array(found[seed], np.int32) for cases, found in sets.items()}
    result = Result.model_validate(
        {
            "recipe": "r",
            "commit": "c",
            "machine": MACHINE,
            "dataset": {"name": "d", "users": users, "items": 9, "interactions": 20},
            "protocol": {"split": "user-folds", "seeds": [0, 1]},
            "models": models,
        }
    )
    return Answered(result, flat)


def test_folds_are_pooled_over_users_and_seeds() -> None:
    first = run_of(
        {
            "control": {"valid": [[1], [0]], "test": [[1, 0], [0, 0]]},
            "teacher": {"valid": [[1], [1]], "test": [[1, 1], [1, 3]]},
            "teacher-scratch": {"valid": [[0], [0]], "test": [[1, 1], [1, 1]]},
            "ease": {"valid": [[1]], "test": [[0, 1]]},
        }
    )
    second = run_of(
        {
            "control": {"valid": [[1], [1]], "test": [[0], [1]]},
            "teacher": {"valid": [[1], [1]], "test": [[3], [3]]},
            "ease": {"valid": [[1]], "test": [[0]]},
        }
    )
    found = folds.study("r", [first, second])
    rows = {row.variant: row for row in found.variants}
    control = rows["control"]
    assert control.test.cases == 3 and control.folds == [0, 1]
    # NDCG per user, over seeds: .5, 0 | .5
    assert control.by_fold == [0.25, 0.5] and control.test.ndcg_10 == pytest.approx(1 / 3)
    assert control.test.recall_10 == pytest.approx(1 / 3) and control.test.precision_10 == pytest.approx(1 / 30)
    assert control.test.f1_10 == pytest.approx(2 / 33)
    # teacher-scratch validates worse, and in one fold it is absent: it leads nowhere
    assert rows["teacher-scratch"].folds == [0]
    assert found.leaders == {"control": "control", "teacher": "teacher", "baseline": "ease"}
    pair = next(c for c in found.comparisons if (c.a, c.b) == ("teacher", "control"))
    assert pair.users == 3 and pair.difference == pytest.approx((0.5 + 0.75 + 0.0) / 3)  # 1-.5, (1+.5)/2-0, .5-.5
    text = folds.markdown(found)
    assert "| teacher | teacher * | " in text and "| teacher-scratch | teacher | " in text
    assert "(1 of 2 folds)" in text and "teacher - control: +0.4167" in text


def test_curves_compare_the_leading_teacher_at_every_share() -> None:
    runs = {
        share: run_of(
            {
                "control": {"valid": [[0]], "test": [[3, 0, 0, 0]]},
                "teacher": {"valid": [[1]], "test": [[1, place, 0, 0]]},
                "teacher-scratch": {"valid": [[2]], "test": [[1, 0, 0, 0]]},
            }
        )
        for share, place in ((0.3, 0), (1.0, 1))
    }
    found = curves.study("r", runs)
    assert [[(p.share, p.users) for p in curve.points] for curve in found.curves] == [[(0.3, 2), (1.0, 4)]] * 3
    rows = {(row.share, row.comparison.b): row for row in found.comparisons}
    assert {row.comparison.a for row in found.comparisons} == {"teacher"} and len(rows) == 4
    assert rows[0.3, "teacher-scratch"].comparison.difference == 0
    whole = rows[1.0, "teacher-scratch"]
    assert whole.comparison.difference == pytest.approx(0.25) and whole.relative == pytest.approx(1.0)
    assert "- 100%: teacher - teacher-scratch: +0.2500" in curves.markdown(found)
    assert "| model | role | 30% (2) | 100% (4) |" in curves.markdown(found)
    drawn = curves.plot(found)
    assert all(name in drawn for name in ("control", "teacher", "teacher-scratch", "30%"))


def test_a_chart_is_svg_with_points_where_they_belong() -> None:
    line = [Point(0.01, 0.1, 0.05, 0.15), Point(1, 0.2, 0.1, 0.3)]
    tree = ElementTree.fromstring(line_chart({"a<b": line}, "x", "y", {0.01: "1%", 1: "100%"}))
    dots = [e for e in tree.iter() if e.tag.endswith("circle")]
    (x0, y0), (x1, y1) = ((float(d.get("cx", "").rstrip("%")), float(d.get("cy", ""))) for d in dots)
    assert 0 < x0 < 10 and x0 + x1 == pytest.approx(100) and y0 > y1
    assert "a<b" in {e.text for e in tree.iter()}
    with pytest.raises(ValueError, match="logarithmic"):
        line_chart({"a": [Point(0, 1, 1, 1)]}, "x", "y", {})


def test_shares_that_are_none_are_refused() -> None:
    assert curves.parse_shares("1,0.1") == [0.1, 1.0]
    for text in ("0", "1.5", "a", "nan"):
        with pytest.raises(UsageError, match="--shares"):
            curves.parse_shares(text)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_runner: Any) -> Path:
    """Runs without a process for each; results go to a folder of the test's."""

    def run(_recipe: str, out: Path, overrides: list[str], _arguments: object) -> None:
        tiny_runner(out, tmp_path / "store", *overrides)

    monkeypatch.setattr(studies, "run_recipe", run)
    monkeypatch.setattr(studies, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(curves, "RESULTS", tmp_path / "results")
    return tmp_path


QUICK = (
    "variants.student.target.method.training.epochs=1",
    "variants.teacher.target.method.training.epochs=1",
    "pretrain.objective=none",
    "source=none",
    "prune=none",
    "quantize=none",
)


def arguments(*more: str) -> list[str]:
    return ["tiny", *more, *(part for override in QUICK for part in ("--set", override))]


def test_three_folds_of_the_tiny_recipe(in_process: Path) -> None:
    done = CliRunner().invoke(folds.main, arguments("--folds", "3", "--out", str(in_process / "out")))
    assert done.exit_code == 0, done.output
    found = FoldStudy.model_validate_json((in_process / "results/tiny.folds.json").read_text())
    rows = {row.variant: row for row in found.variants}
    assert {"control", "teacher", "popularity", "ease"} <= set(rows)
    # over all folds every user with a history is asked once
    assert rows["control"].test.cases == rows["ease"].test.cases == found.dataset.users
    assert (in_process / "results/tiny.folds.md").read_text() == folds.markdown(found)
    assert done.output.strip() == folds.markdown(found).strip()


def test_two_shares_of_the_tiny_recipe(in_process: Path) -> None:
    given = ("--shares", "0.2,1", "--seeds", "0", "--out", str(in_process / "out"))
    done = CliRunner().invoke(curves.main, arguments(*given))
    assert done.exit_code == 0, done.output
    found = CurveStudy.model_validate_json((in_process / "results/tiny.curves.json").read_text())
    control = next(curve for curve in found.curves if curve.variant == "control")
    few, all_users = control.points
    assert few.test.cases == all_users.test.cases and few.users < all_users.users == found.dataset.users
    ElementTree.fromstring((in_process / "results/tiny.curves.svg").read_text())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-recipe", "--shares", "1"], "no-such-recipe: no such recipe file"),  # the run's own words
        (["tiny", "--shares", "2"], "--shares: numbers above 0"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["curves", *arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        studies.run_command(curves.main)
    said = capfd.readouterr()
    assert stop.value.code == 2 and said.out == ""
    assert said.err.startswith(words) and len(said.err.splitlines()) == 1
