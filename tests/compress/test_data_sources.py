"""Where data sets lie: `$SLIMREC_DATA`, and what of a path enters a cache key."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from compress.data.files import Files
from compress.data.load import DataConfig, load_data
from compress.data.sources import read_source, source_digest, source_name
from compress.pipeline import STAGES, check_sources
from compress.recipe_file import load_recipe
from compress.stage import RunOptions
from compress.store import artifact_key
from deploy.errors import UsageError

ITEMS = "item_id:token\ttitle:token_seq\n1\tA\n2\tB\n3\tC\n4\tD\n"
EVENTS = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"u\t{i}\t{i}\n" for i in (1, 2, 3, 4))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sets" / "beauty"
    folder.mkdir(parents=True)
    (folder / "beauty.inter").write_text(EVENTS)
    (folder / "beauty.item").write_text(ITEMS)
    monkeypatch.setenv("SLIMREC_DATA", str(folder.parent))
    return folder.parent


def domains(path: str) -> dict[str, Any]:
    return {"domains": {"target": {"from": path}}}


def key(path: str) -> str:
    return artifact_key(STAGES[0], DataConfig.model_validate(domains(path)), {})


def test_the_variable_is_expanded_when_data_is_read(root: Path) -> None:
    source = Files(path="$SLIMREC_DATA/beauty")
    assert source.located() == root / "beauty"
    items, events, path = read_source(source, {}, " ")
    assert (len(items), len(events), path) == (4, 4, root / "beauty" / "beauty.inter")
    assert source_name(source) == "beauty"


def test_the_key_is_of_the_content_not_of_the_path(root: Path, tmp_path: Path) -> None:
    named, absolute = key("$SLIMREC_DATA/beauty"), key(str(root / "beauty"))
    assert named == absolute
    twin = tmp_path / "elsewhere" / "beauty"
    twin.parent.mkdir()
    (root / "beauty").rename(twin)
    assert key(str(twin)) == named
    (twin / "beauty.item").write_text(ITEMS.replace("D", "E"))
    assert key(str(twin)) != named


def test_equal_content_under_another_name_has_its_own_key(root: Path) -> None:
    """The name is in `dataset.json`, so the bytes differ."""
    before = key("$SLIMREC_DATA/beauty")
    (root / "beauty").rename(root / "sports")
    assert key("$SLIMREC_DATA/sports/beauty.inter") == before
    assert key("$SLIMREC_DATA/sports") != before


def test_a_missing_variable_is_one_line_that_says_what_to_set(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "beauty.yaml"
    control = "role: control, pretrain: none, source: none, target: none"
    data = "{domains: {target: {from: $SLIMREC_DATA/beauty}}}"
    file.write_text(f"data: {data}\nvariants:\n  control: {{{control}}}\n")
    check_sources(load_recipe(file, STAGES))
    monkeypatch.delenv("SLIMREC_DATA")
    recipe = load_recipe(file, STAGES)  # a recipe may be read on any machine
    with pytest.raises(UsageError) as caught:
        check_sources(recipe)
    (line,) = caught.value.lines
    assert line.startswith("$SLIMREC_DATA/beauty: set SLIMREC_DATA to the folder that holds beauty, with beauty.inter")
    assert line.endswith("(got SLIMREC_DATA unset)")
    monkeypatch.setenv("SLIMREC_DATA", str(root / "beauty"))
    with pytest.raises(UsageError, match=r"\(got .*, without beauty\)$"):
        source_digest(Files(path="$SLIMREC_DATA/beauty"))


@pytest.mark.parametrize(
    "path", ["$HOME/beauty", "$SLIMREC_DATA", "$SLIMREC_DATA/", "$SLIMREC_DATAX/b", "/x/$SLIMREC_DATA/b", "${HOME}/b"]
)
def test_no_other_variable_is_expanded(path: str) -> None:
    with pytest.raises(ValidationError, match="names no other variable"):
        Files(path=path)


def test_a_published_split_lies_beside_the_whole(root: Path, tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (root / "beauty" / f"beauty.{part}.inter").write_text(EVENTS)
    (root / "beauty").rename(root / "renamed")
    out = tmp_path / "out"
    out.mkdir()
    load_data(DataConfig.model_validate(domains("$SLIMREC_DATA/renamed")), {}, out, RunOptions())
    assert (out / "dataset.json").is_file()
