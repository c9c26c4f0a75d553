"""The ablation table: cells by hand, the shipped file of changes, and one small table through real runs."""

from pathlib import Path

import pytest

from benchmarks import ablation
from benchmarks.ablation import REGULARISATION, Ablation, main, markdown, run_row, tabulate
from benchmarks.result import Result
from benchmarks.studies import read_plan, without
from compress.commands import find_recipe
from deploy.errors import UsageError


def shifted(result: Result, by: float) -> Result:
    """The same result with every validation NDCG@10 moved."""
    models = []
    for model in result.models:
        valid = model.accuracy.valid.model_copy(update={"ndcg_10": (model.accuracy.valid.ndcg_10 or 0.0) + by})
        models.append(model.model_copy(update={"accuracy": model.accuracy.model_copy(update={"valid": valid})}))
    return result.model_copy(update={"models": models})


def test_cells_are_means_and_differences_from_the_first_row(tiny_run) -> None:
    plan = Ablation(recipe="tiny", rows={"as it is": [], "crop": ["distil.training.augment=[crop]"]})
    table = tabulate(plan, {"as it is": tiny_run.result, "crop": shifted(tiny_run.result, -0.0123)})
    head, _, first, second, *rest = markdown(table).splitlines()
    fp32 = {m.variant: m for m in tiny_run.result.models if m.precision == "fp32" and m.role != "baseline"}
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert [c.strip() for c in head.strip("|").split("|")][: 1 + len(fp32)] == ["change", *fp32]
    assert cells[0] == "as it is"
    for place, model in enumerate(fp32.values(), start=1):
        value = model.accuracy.valid.ndcg_10
        assert value is not None
        assert cells[place] == f"{value:.4f}"
        assert second.split("|")[place + 1].strip() == f"{value - 0.0123:.4f} (-0.0123)"
    assert "- crop: `distil.training.augment=[crop]`" in rest


def test_int8_models_stand_beside_their_fp32_with_bytes_and_speed(tiny_run) -> None:
    plan = Ablation(recipe="tiny", leave=["text"], int8=True, show=["student"], rows={"as it is": []})
    head, _, first, *_ = markdown(tabulate(plan, {"as it is": tiny_run.result})).splitlines()
    cells = dict(zip(*([c.strip() for c in line.strip("|").split("|")] for line in (head, first)), strict=True))
    assert not any("teacher" in name or "control" in name for name in cells if not name.endswith("x teacher"))
    own = [m for m in tiny_run.result.models if m.variant == "student" and m.precision == "int8"]
    best = max(own, key=lambda m: m.accuracy.valid.ndcg_10 or 0.0)
    assert cells["student int8"] == f"{best.accuracy.valid.ndcg_10:.4f}"
    assert cells["student int8, kB"] == f"{best.size_bytes / 1e3:.0f}"
    assert best.served is not None and best.served.ratio_to_teacher is not None
    assert cells["student int8, x teacher"] == f"{best.served.ratio_to_teacher.median:.3g}"


@pytest.mark.parametrize("file", [REGULARISATION, REGULARISATION.with_name("compression-ablation.yaml")], ids=str)
def test_shipped_changes_name_fields_that_exist_and_each_row_changes_something(file: Path, tmp_path: Path) -> None:
    from compress.pipeline import STAGES
    from compress.recipe_file import load_recipe

    plan = read_plan(file, Ablation)
    recipe = find_recipe(Path(without(plan.recipe, plan.leave, tmp_path, file)))
    seen = []
    for changes in plan.rows.values():
        parsed = load_recipe(recipe, STAGES, [*plan.always, *changes])
        seen.append(str([variant.configs for variant in parsed.variants]))
    assert len(set(seen)) == len(plan.rows) >= 8


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for text, said in (("rows: {a: []}", "recipe"), ("recipe: tiny\nrows: {}", "rows"), ("a: [", "not valid YAML")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UsageError, match=said):
            read_plan(tmp_path / "x.yaml", Ablation)
    with pytest.raises(UsageError, match="cannot read"):
        read_plan(tmp_path / "none.yaml", Ablation)
    with pytest.raises(SystemExit, match="2"):
        run_row(Ablation(recipe="nowhere", rows={"a": []}), tmp_path / "x.yaml", [], tmp_path / "a", [])


def test_a_table_from_a_real_run(tiny_run, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is sealed already: the command reads the store it is given."""
    file = tmp_path / "small.yaml"
    file.write_text(f"recipe: {Path(__file__).parents[2] / 'recipes' / 'tiny.yaml'}\nrows: {{as it is: []}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results")
    main([str(file), "--store", str(tiny_store), "--threads", "1"])
    made = ablation.Table.model_validate_json((tmp_path / "results" / "small.json").read_text())
    assert [row.name for row in made.rows] == ["as it is"]
    fp32 = [m for m in tiny_run.result.models if m.precision == "fp32" and m.role != "baseline"]
    assert {m.name for models in made.rows[0].models.values() for m in models} == {m.name for m in fp32}
    assert (tmp_path / "results" / "small.md").read_text() == markdown(made)
