"""What is measured of data, what the rules say about it, and that the recipe they write runs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.cost_model import CostModel, Shape
from compress.advise import cost
from compress.advise.advise import advise
from compress.advise.document import cases, page
from compress.advise.facts import DomainFacts, Facts, Part, gather
from compress.advise.published import FINDINGS, Published
from compress.advise.rules import Advice, Budget, backbone, events, order, size_mb, softmax, student, teacher
from compress.advise.texts import TextFacts, count_words, script_of
from compress.data.load import DataConfig, load_data
from compress.pipeline import STAGES, steps
from compress.recipe import parse_recipe
from compress.recipe_file import load_recipe
from compress.stage import RunOptions
from compress.teacher.two_level import TwoLevel
from deploy.cli import run_command
from deploy.errors import UsageError

CHINESE = TextFacts("{title}", ("title",), 1.0, 1.0, 6, 10, (("CJK", 0.9), ("LATIN", 0.1)), 0.9)
LATIN = replace(CHINESE, scripts=(("LATIN", 1.0),), accented=0.0)
DOMAIN = DomainFacts(
    Part("shop"), "shop", 500, 300, 9000, 18.0, 40.0, 20.0, 0.0, True, "ratings", 5.0, LATIN, "title", " "
)
FACTS = Facts(DOMAIN, {})
NONE = Published(())


@pytest.fixture(scope="session")
def published() -> Published:
    return Published.load()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """40 users rate 12 of 30 films each, in order; titles in Chinese, a genre, an address, a number."""
    folder = tmp_path / "shop"
    folder.mkdir()
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += [f"u{u}\ti{(u + e * (1 + u % 3)) % 30}\t{e // 2 % 2}\t{e}" for u in range(40) for e in range(12)]
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    items = ["item_id:token\ttitle:token_seq\tgenre:token_seq\tpage:token\tcode:token"]
    items += [f"i{i}\t红楼梦{i}\t{'Drama | War' if i % 2 else 'Comedy'}\thttp://a/{i}\t{i}" for i in range(30)]
    (folder / "shop.item").write_text("\n".join(items) + "\n", encoding="utf-8")
    return folder


def repeated_likes() -> int:
    """Events of the shop on an item that its user has liked before."""
    return sum(6 - len({(u + e * (1 + u % 3)) % 30 for e in (2, 3, 6, 7, 10, 11)}) for u in range(40))


def said(advice: Advice | None) -> str:
    assert advice is not None
    return f"{advice.choice} {advice.reason}"


def test_facts_of_a_small_shop(shop: Path) -> None:
    found = gather(Part(str(shop)), None, {}).target
    assert (found.users, found.items, found.ordered, found.feedback, found.top_rating) == (40, 30, True, "likes", 1.0)
    assert found.texts.template == "{title}. {genre}" and found.separator == " | "
    assert found.texts.script == "LATIN" or found.texts.script == "CJK"
    assert found.texts.coverage == 1.0
    assert found.events == 40 * 6 - repeated_likes() and found.per_item > 0  # half of the events are likes


def test_words_and_scripts() -> None:
    assert [script_of(c) for c in "aéжあ猫한"] == ["LATIN", "LATIN", "CYRILLIC", "HIRAGANA", "CJK", "HANGUL"]
    assert count_words("红楼梦 (1987), a film") == 3 + 3 and count_words("...") == 0


def test_rules_follow_the_facts(published: Published) -> None:
    assert said(backbone(FACTS, Budget(), NONE)).startswith("sentence-transformers/all-MiniLM-L6-v2, 32 tokens 100% of")
    for texts, name in ((CHINESE, "bert-base-chinese"), (replace(CHINESE, scripts=(("ARABIC", 1.0),)), "multilingual")):
        assert name in said(backbone(replace(FACTS, target=replace(DOMAIN, texts=texts)), Budget(), NONE))
    assert "mixed with control and EASE 30 events an item, 18 of a median user, dense" in said(
        teacher(FACTS, Budget(), published)
    )
    sparse = replace(FACTS, target=replace(DOMAIN, events=3000))
    assert said(teacher(sparse, Budget(), published)).startswith(
        "two-level 10 events an item, 18 of a median user, sparse"
    )
    assert softmax(FACTS, Budget(), NONE) == Advice(
        "softmax", "full", "300 items: scores of one batch take 3 MB; exact, and small enough"
    )
    assert "sampled" in said(softmax(replace(FACTS, target=replace(DOMAIN, items=20_000)), Budget(), NONE))
    unordered = replace(FACTS, target=replace(DOMAIN, ordered=False))
    assert order(unordered, Budget(), NONE).settings["data"] == {"split": "random_liked"}
    likes = replace(FACTS, target=replace(DOMAIN, feedback="likes", top_rating=1.0))
    assert events(likes, Budget(), NONE).settings == {"data": {"min_rating": 1.0}}


def test_the_budget_decides_the_size(published: Published) -> None:
    free, tight = student(FACTS, Budget(), published), student(FACTS, Budget(max_size_mb=0.05), published)
    assert free.settings["distil"]["student"]["dim"] == 64 and tight.settings["distil"]["student"]["dim"] == 32
    assert "64 dimensions are outside the budget" in tight.reason
    none = student(FACTS, Budget(max_p95_ms=1e-6), published)
    assert "even the smallest is outside the budget" in none.reason


def test_sizes_are_those_that_were_published(published: Published) -> None:
    for precision, bytes_per_number in (("fp32", 4), ("int8_per_row", 1)):
        found = list(published.small_models(precision))
        assert found
        for result, model, _ in found:
            if model.size_bytes and model.variant != "control-small":
                estimate = size_mb(result.dataset.items, 64, bytes_per_number)
                assert estimate == pytest.approx(model.size_bytes / 1e6, rel=0.15)


def test_the_cost_of_a_published_recipe_is_what_it_took(published: Published) -> None:
    for result, recipe in published.runs:
        trained = {"distil", "target", "pretrain"}
        first = [s for s in result.stages if "@" not in (s.variant or "")]  # the recipe as it is has one seed
        took = {(s.name, s.seconds) for s in first if s.name in trained and s.seconds > 1}
        size = cost.Size((result.dataset.interactions, result.dataset.items))
        found = cost.seconds(recipe, size, published)
        assert found is not None
        assert 0.4 * sum(s for _, s in took) < found < 2.5 * sum(s for _, s in took)


def test_equal_trainings_are_counted_once() -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "recipes/quickstart.yaml", STAGES)
    found = [work.kind for work in cost.works(recipe, cost.Size((1000, 100), (900, 90)))]
    assert found.count("pretrain") == 1  # three variants share it
    assert found.count("student") == 3 and found.count("text") == 2
    assert found.count("teacher") == 3  # source, target after it, target from scratch


def test_findings_are_sentences_of_the_log() -> None:
    log = " ".join((Path(__file__).parents[2] / "docs/LOG.md").read_text("utf-8").split())
    missing = [quote for quote in FINDINGS.values() if quote not in log]
    assert not missing


@pytest.mark.parametrize("change", ["as it is", "no text", "no order", "large", "source", "short", "no titles"])
def test_every_recipe_written_is_one_that_loads(change: str, tmp_path: Path, published: Published) -> None:
    from compress.advise.rules import RULES
    from compress.advise.write import recipe_text

    no_text = TextFacts(None)
    targets = {
        "no text": replace(DOMAIN, texts=no_text),
        "no titles": replace(DOMAIN, texts=no_text, title_column=None),
        "no order": replace(DOMAIN, ordered=False, feedback="likes", top_rating=1.0),
        "large": replace(DOMAIN, items=20_000, per_user=6.0),
        "short": replace(DOMAIN, per_user=6.0, p90_user=9.0),
    }
    source = replace(DOMAIN, name="books", ordered=False) if change == "source" else None
    facts = Facts(targets.get(change, DOMAIN), {"user": "customer"}, source=source, shared_users=3)
    text = recipe_text(facts, [a for rule in RULES if (a := rule(facts, Budget(max_size_mb=1.0), published))])
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "r.yaml", STAGES)
    names = {variant.name for variant in recipe.variants}
    assert ("teacher" in names) == (not change.startswith("no t"))
    assert ("teacher-scratch" in names) == (change == "source")
    raw = yaml.safe_load(text)
    if change in ("large", "short"):
        method = next(v for v in recipe.variants if v.name == "teacher").configs["target"].method  # type: ignore[attr-defined]
        wanted = 24  # both have short histories
        assert isinstance(method, TwoLevel) and method.training.epochs == wanted
        assert (method.training.softmax.name == "sampled") == (change == "large")
    if change == "source":
        assert raw["data"]["domains"]["source"]["order"] == "none"
    assert recipe.shared["select"].max_size_mb == 1.0  # type: ignore[attr-defined]
    assert len(list(steps(recipe))) > 10


TINY = (
    "pretrain.backbone={name: random, layers: 1}",
    "pretrain.objective=none",
    "target.method.training.epochs=1",
    "target.method.dim=16",
    "distil.training={epochs: 1}",
    "distil.student.max_history=10",
    "prune={sequence: none, text: none}",
    "quantize.text=[]",
    "baselines.models=[popularity, recent_popularity, {name: ease, lambdas: [100]}]",
    "bench={history: 5, min_runs: 20, min_seconds: 0.1, rounds: 1}",
    "select.max_ndcg_drop=1.0",
)


def test_the_recipe_of_the_command_runs(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["advise", str(shop), "--device", "cpu", "--json", "--max-size-mb", "5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["recipe"] == "shop.yaml" and printed["facts"]["target"]["users"] == 40
    assert {one["about"] for one in printed["advice"]} >= {"protocol", "backbone", "teacher", "student", "time"}
    assert run_command(["advise", str(shop), "--device", "cpu"]) == 2  # never over a file that is there
    assert capsys.readouterr().err.startswith("--out: shop.yaml exists")
    assert run_command(["plan", "shop.yaml", "--store", str(tmp_path / "store")]) == 0
    capsys.readouterr()
    sets = [part for override in TINY for part in ("--set", override)]
    run = ["run", "shop.yaml", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"), "--threads", "1"]
    assert run_command([*run, "--device", "cpu", *sets]) == 0, capsys.readouterr().err
    assert (tmp_path / "out/bundle.slim").is_file()


ROW = "user_id:token\titem_id:token\trating:float\titem_id_list:token_seq\trating_list:token_seq\n"


def test_rows_of_a_published_split_are_seen(shop: Path, tmp_path: Path) -> None:
    for split in ("valid", "test"):
        rows = [f"u{n}\ti{n % 30}\t{n % 2}\ti{(n + 1) % 30} i{(n + 2) % 30}\t1 0\n" for n in range(20)]
        (shop / f"shop.{split}.inter").write_text(ROW + "".join(rows))
    found = advise(Part(str(shop)), None, {}, Budget())
    assert found.facts.rows is not None and found.facts.rows.rows == {"valid": 20, "test": 20}
    raw = yaml.safe_load(found.recipe)
    assert raw["data"]["split"] == {"name": "published", "shots": 10}
    recipe = parse_recipe(raw, "shop", STAGES)
    config = recipe.shared["data"]
    assert isinstance(config, DataConfig)
    (tmp_path / "data").mkdir()
    load_data(config, {}, tmp_path / "data", RunOptions())
    assert json.loads((tmp_path / "data/dataset.json").read_text())["task"] == "likes"


def test_items_of_one_data_set_can_teach_others(shop: Path) -> None:
    target, source = (Part.parse(f"genre={value}", str(shop)) for value in ("Comedy", "Drama"))
    found = advise(target, source, {}, Budget())
    assert 0 < found.facts.shared_users <= 40
    domains = yaml.safe_load(found.recipe)["data"]["domains"]
    assert domains["target"]["not_in"] == "source" and domains["source"]["items"] == {"genre": ["Drama"]}


def test_a_data_set_below_the_root_keeps_no_machines_path(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Part(str(shop)).from_recipe() == str(shop)
    monkeypatch.setenv("SLIMREC_DATA", str(shop.parent))
    assert Part(str(shop)).from_recipe() == "$SLIMREC_DATA/shop"
    written = page([case for case in cases() if case[0] == "$SLIMREC_DATA/shop"], Budget())
    assert "## `slimrec advise $SLIMREC_DATA/shop`" in written and str(shop.parent) not in written
    assert "| backbone | google-bert/" in written or "| backbone | sentence-transformers/" in written


def test_mistakes_are_one_line(shop: Path, tmp_path: Path, refused: Callable[..., list[str]]) -> None:
    out = ("--out", tmp_path / "r.yaml", "--device", "cpu")
    for arguments, words in (
        (["no/such/folder"], "no/such/folder: no such file or folder"),
        ([shop, "--items", "genre"], "--items: ATTRIBUTE=VALUE,... is expected"),
        ([shop, "--items", "colour=red"], "items: unknown attribute"),
        ([shop, "--columns", "user"], "--columns: must be ROLE=NAME pairs"),
    ):
        lines = refused(2, "advise", *arguments, *out)
        assert len(lines) == 1 and words in lines[0], lines
    with pytest.raises(UsageError, match="an attribute and its values"):
        Part.parse("genre=", str(shop))


def test_the_cost_model_of_this_machine_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The estimate and its machine are told; another fit, in the variable, gives another choice."""
    shipped, facts = CostModel.load(), replace(FACTS, target=replace(DOMAIN, items=200_000))
    p95 = {dim: shipped.p95_ms(Shape(items=200_000, dim=dim)) for dim in (64, 32)}
    assert p95[32] < p95[64]
    between = Budget(max_p95_ms=(p95[64] + p95[32]) / 2)
    advice = student(facts, between, NONE)
    assert advice.settings["distil"]["student"]["dim"] == 32
    assert "an estimate fitted on" in advice.reason and shipped.machine in advice.reason
    slow = shipped.model_copy(update={"machine": "a slow one", "coefficients": {"calls": 100.0}})
    (tmp_path / "cost.json").write_text(slow.model_dump_json())
    monkeypatch.setenv("SLIMREC_COST", str(tmp_path / "cost.json"))
    assert "even the smallest is outside the budget" in student(facts, between, NONE).reason
    assert "a slow one" in student(facts, between, NONE).reason


def test_without_published_results_nothing_is_claimed() -> None:
    nothing: list[Any] = [NONE.int8(), list(NONE.small_models("fp32"))]
    assert nothing == [None, []] and NONE.gates == ""
