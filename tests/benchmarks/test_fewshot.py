"""K interactions: what is averaged and compared, by hand; the command on the tiny recipe, with a meta-learned start."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import fewshot, studies
from benchmarks.fewshot import FewShotStudy
from benchmarks.result import Result
from benchmarks.studies import Answered
from deploy.errors import UsageError

MACHINE = {"cpu": "a", "flags": [], "cores": 1, "versions": {"numpy": "2"}}
ROLES = {"control": "control", "meta": "teacher", "scratch": "teacher"}


def run_of(ranks: dict[str, list[int]]) -> Answered:
    """variant -> test ranks of one draw."""
    rows = [
        {"name": f"{v}-fp32", "role": ROLES[v], "variant": v, "chosen": False, "precision": "fp32", "accuracy": {}}
        for v in ranks
    ]
    result = {
        "recipe": "r",
        "commit": "c",
        "machine": MACHINE,
        "dataset": {"name": "d", "users": 2, "items": 9, "interactions": 20},
        "protocol": {"split": "leave-one-out", "seeds": [0]},
        "models": rows,
    }
    return Answered(Result.model_validate(result), {f"{v}-fp32/test": np.array(r, np.int32) for v, r in ranks.items()})


def test_draws_are_averaged_and_teachers_compared_in_pairs() -> None:
    runs = {
        5: [
            run_of({"control": [0, 0], "meta": [1, 0], "scratch": [0, 0]}),
            run_of({"meta": [1, 3], "scratch": [3, 0]}),
        ],
        20: [run_of({"control": [3, 3], "meta": [1, 1], "scratch": [1, 1]}) for _ in range(2)],
    }
    found = fewshot.study("r", runs, [0, 4])
    assert found.seeds == [0, 4]
    meta, scratch, control = (next(v for v in found.variants if v.variant == n) for n in ("meta", "scratch", "control"))
    assert [shot.events for shot in meta.shots] == [5, 20]
    assert [shot.events for shot in control.shots] == [20]  # at 5 one draw lacks it
    assert meta.shots[0].per_draw == [0.5, 0.75] and meta.shots[0].test.ndcg_10 == pytest.approx(0.625)
    assert scratch.shots[0].test.ndcg_10 == pytest.approx(0.125) and meta.shots[0].test.cases == 2
    first, second = found.comparisons
    assert (first.events, first.comparison.a, first.comparison.b) == (5, "meta", "scratch")
    assert first.comparison.difference == pytest.approx((0.75 + 0.25) / 2) and first.comparison.users == 2
    assert (second.events, second.comparison.difference) == (20, 0)
    text = fewshot.markdown(found)
    assert "| model | role | K = 5 | K = 20 |" in text and "| control | control |  | 0.5000" in text
    assert (
        "(0.5000 to 0.7500)" in text
        and "- K = 20: meta - scratch: +0.0000 [+0.0000, +0.0000], tie; p 1.000 after Holm" in text
    )


@pytest.mark.parametrize("text", ["1", "5,a", "", "2.5"])
def test_interactions_that_teach_nothing_are_refused(text: str) -> None:
    assert fewshot.whole_numbers("--events", "20,5", 2) == [5, 20]
    with pytest.raises(UsageError, match="--events: whole numbers from 2"):
        fewshot.whole_numbers("--events", text, 2)


META = "{name: meta, dim: 16, heads: 2, neurons: 32, max_history: 10, epochs: 1, steps_per_epoch: 2, held_out: 1"
QUICK = (
    f"source.method={META}, few_shot: {{events: 10}}, tasks: {{name: user_groups, groups: 4}}}}",
    "variants.student.target.method.training.epochs=1",
    "variants.teacher.target.method.training.epochs=1",
    "pretrain.objective=none",
    "prune=none",
    "quantize=none",
)


def test_ten_interactions_of_the_tiny_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_runner: Any) -> None:
    def run(_recipe: str, out: Path, overrides: list[str], _arguments: object) -> None:
        tiny_runner(out, tmp_path / "store", *overrides)

    monkeypatch.setattr(studies, "run_recipe", run)
    monkeypatch.setattr(studies, "RESULTS", tmp_path / "results")
    sets = [part for override in QUICK for part in ("--set", override)]
    given = ["tiny", "--events", "10", "--seeds", "1", "--out", str(tmp_path / "out"), *sets]
    done = CliRunner().invoke(fewshot.main, given)
    assert done.exit_code == 0, (done.output, done.exception)
    found = FewShotStudy.model_validate_json((tmp_path / "results/tiny.fewshot.json").read_text())
    assert {v.variant for v in found.variants} >= {"control", "teacher", "popularity"}
    assert all(shot.events == 10 and shot.test.cases == found.dataset.users for v in found.variants for shot in v.shots)
    with np.load(next((tmp_path / "store/data").glob("*/domains/target/split.npz")), allow_pickle=False) as split:
        assert split["train"].sum() == 10
    assert (tmp_path / "results/tiny.fewshot.md").read_text() == fewshot.markdown(found)
