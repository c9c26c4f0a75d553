"""Committed like/dislike tables are what their results say."""

import json

import pytest

from benchmarks.like_tables import markdown
from benchmarks.result import Result
from benchmarks.tables import RESULTS

NAMES = sorted(path.stem for path in RESULTS.glob("*.json") if path.stem.startswith(("collm", "tallrec")))


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_table_is_made_of_its_results(name: str) -> None:
    results = [Result.model_validate(found) for found in json.loads((RESULTS / f"{name}.json").read_text("utf-8"))]
    text = markdown(results)
    assert (RESULTS / f"{name}.md").read_text("utf-8") == text
    roles = {model.role for result in results for model in result.models}
    assert roles == {"teacher", "student", "control", "baseline"} and len(results) in (1, 3)


def test_intervals_and_means_are_over_draws() -> None:
    wanted = json.loads((RESULTS / "tallrec-book-16.json").read_text("utf-8"))
    results = [Result.model_validate(found) for found in wanted]
    own = [model.accuracy.test for result in results for model in result.models if model.variant == "control"]
    low = sum((test.auc_ci95 or (0.0, 0.0))[0] for test in own) / 3
    mean = sum(test.auc or 0.0 for test in own) / 3
    row = next(line for line in markdown(results).splitlines() if "control |" in line)
    assert f"{mean:.4f}" in row and f"{low:.3f}-" in row and len(own) == 3
