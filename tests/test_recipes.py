"""Every shipped recipe validates against the table of stages."""

from pathlib import Path

import pytest

from compress.pipeline import STAGES, steps
from compress.recipe_file import load_recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").rglob("*.yaml"))


def test_the_promised_recipes_ship():
    assert {"quickstart", "movielens", "tiny"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_validates(path):
    recipe = load_recipe(path, STAGES)
    assert recipe.description, "`slimrec recipes` says what a recipe is for"
    walked = list(steps(recipe))
    assert {step.stage.name for step in walked} == {stage.name for stage in STAGES}
    assert len(walked) == len({step.title for step in walked})


def test_titles_tell_steps_of_several_seeds_apart():
    walked = list(steps(load_recipe(RECIPES[0], STAGES, ["seeds=[0, 3]"])))
    assert len(walked) == len({step.title for step in walked})
    assert {step.config.seed for step in walked if step.chain} == {0, 3}
