"""Mistakes a user makes, through the real command line: the exit code, one line per mistake, and nothing lost."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = """
data: {domains: {target: {from: ./films}}}
pretrain: none
source: none
target: none
distil: {student: {name: sequence, dim: 8, blocks: 1, neurons: 16, max_history: 5}, training: {epochs: 1}}
prune: none
variants: {control: {role: control}}
bench: {history: 3, min_runs: 5, min_seconds: 0.05, rounds: 1}
"""


@pytest.fixture
def own(tmp_path):
    """A user's folder: a recipe, data, and what an earlier run left."""
    (tmp_path / "films").mkdir()
    ids = [f"i{row}" for row in range(12)]
    rows = [f"u{user},i{(user + step) % 12},{step}" for user in range(9) for step in range(6)]
    (tmp_path / "films/interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows, ""]))
    (tmp_path / "films/items.csv").write_text("\n".join(["item_id,title", *(f"{i},Film {i}" for i in ids), ""]))
    (tmp_path / "own.yaml").write_text(RECIPE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/result.json").write_text("{}")
    (tmp_path / "out/bundle.slim").write_bytes(b"earlier")
    return tmp_path


def state(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def run_refused(own, refused):
    """Runs the user's recipe, which must be refused, and returns the lines; nothing the user had may change."""

    def run(code, *extra, recipe="own.yaml", out="out"):
        before = state(own)
        lines = refused(code, "run", own / recipe, "--out", own / out, "--store", own / "store", *extra)
        assert {path: digest for path, digest in state(own).items() if path in before} == before
        return lines

    return run


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_recipe_runs_without_a_mistake(own, capsys):
    from deploy.cli import run_command

    assert run_command(["run", str(own / "own.yaml"), "--out", str(own / "out"), "--store", str(own / "store")]) == 0
    assert "control-fp32" in capsys.readouterr().out


def test_typos_in_a_recipe_are_told_together_and_before_any_work(own, run_refused):
    edit(own / "own.yaml", "epochs: 1", "epoch: 1")
    edit(own / "own.yaml", "min_runs: 5", "min_runs: five")
    edit(own / "own.yaml", "prune:", "prunne:")
    lines = run_refused(2)
    assert [line.partition(": ")[0] for line in lines] == ["prunne", "bench.min_runs", "distil.training.epoch"]
    assert "did you mean epochs?" in lines[2] and "(got 'five')" in lines[1]
    assert not (own / "store").exists()


@pytest.mark.parametrize(
    ("setting", "start"),
    [
        ("bench.rounds=[1]", "bench.rounds: should be a valid integer (got [1])"),
        ("seeds=[-1]", "seeds: must be a list of 1 to 32 different whole numbers from 0 (got [-1])"),
        ("data.domains.target.text='{nope}'", "data.domains.target.text: unknown column nope; columns: item_id, title"),
        (
            "data.domains.target.items.genre=[War]",
            "data.domains.target.items: unknown attribute; allowed: none in this item file (got 'genre')",
        ),
        ("variants.control.role=student", "variants: a student needs a control to be compared with; add one with"),
        ("distil.student=transformer", "distil.student: unknown name (got 'transformer'); allowed: sequence, text, "),
        ("pack.key=./none.pem", "{own}/none.pem: cannot read the key"),
        ("distil.training", "--set: expected section.field=value (got 'distil.training')"),
        ("data.domains.target.from=./nowhere", "{own}/nowhere: no such file or folder; give a folder with"),
    ],
)
def test_one_wrong_setting(own, run_refused, setting, start):
    lines = run_refused(2, "--set", setting)
    assert len(lines) == 1 and lines[0].startswith(start.format(own=own)), lines


def test_a_recipe_that_is_not_there(own, run_refused):
    [line] = run_refused(2, recipe="onw.yaml")
    assert line.startswith(f"{own}/onw.yaml: no such recipe file; shipped ones, by name: ") and "quickstart" in line


def test_a_recipe_that_is_not_text(own, run_refused):
    (own / "own.yaml").write_bytes(b"data: \xe9\n")
    assert run_refused(2) == [f"{own}/own.yaml: not UTF-8 text (byte 6)"]


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("u0,i2,2", "u0,i2,noon", "line 4, column timestamp", "(got 'noon')"),
        ("u0,i2,2", "u0,i2", "line 4", "3 fields expected as in the header (got 2)"),
        ("u0,i2,2", "u0,i99,2", "line 4, column item_id", "unknown item; add it to the item file or drop the row"),
        ("u0,i2,2", "u0,,2", "line 4, column item_id", "empty"),
        ("user_id,item_id", "user,item_id", "", "user_id"),
    ],
)
def test_broken_interactions_name_row_and_column(own, run_refused, old, new, place, what):
    edit(own / "films/interactions.csv", old, new)
    [line] = run_refused(2)
    assert line.startswith(f"{own}/films/interactions.csv") and place in line and what in line


def test_a_duplicate_item_and_text_that_is_not_utf8(own, run_refused):
    edit(own / "films/items.csv", "i3,Film i3", "i2,Film i3")
    lines = run_refused(2)
    assert len(lines) >= 1 and "items.csv, line 5, column item_id" in lines[0] and "(got 'i2')" in lines[0]
    (own / "films/items.csv").write_bytes(b"item_id,title\ni0,Caf\xe9\n")
    [line] = run_refused(2)
    assert line.startswith(f"{own}/films/items.csv") and "UTF-8" in line and "line 2" in line


def test_an_empty_file_and_users_with_too_few_events(own, run_refused):
    [line] = run_refused(2, "--set", "data.min_events=50")
    assert "no user has 50 events (got at most 6)" in line
    [line] = run_refused(2, "--set", "data.min_events=7", "--set", "data.on_short_users=error")
    assert "9 users with fewer than 7 events" in line
    (own / "films/interactions.csv").write_bytes(b"")
    [line] = run_refused(2)
    assert line.startswith(f"{own}/films/interactions.csv") and "empty" in line


def test_an_out_that_is_a_file_and_a_store_that_cannot_be(own, run_refused, refused):
    (own / "file").write_text("mine")
    [line] = run_refused(2, out="file")
    assert "--out" in line and "is a file" in line
    [line] = run_refused(2, out="file/inside")
    assert line.startswith("--out: cannot make this folder: Not a directory")
    [line] = refused(2, "run", own / "own.yaml", "--out", own / "out", "--store", own / "file/store")
    assert line.startswith("store: cannot make this folder: Not a directory")
    assert (own / "file").read_text() == "mine"


def test_a_budget_nobody_meets_is_exit_3_and_names_the_nearest(own, refused):
    command = ["run", own / "own.yaml", "--out", own / "out", "--store", own / "store"]
    *_, line = refused(3, *command, "--set", "select.max_size_mb=0.000001")
    assert line.startswith("select: no candidate is inside the budget; nearest: control-")
    assert str(own / "out/result.json") in line
    assert '"selected": null' in (own / "out/result.json").read_text()
    assert not (own / "out/bundle.slim").exists()


def test_a_backbone_that_does_not_exist(own):
    """Without a network, quickly and in one line; a process, because the hub's client reads its switch at import."""
    edit(own / "own.yaml", "pretrain: none\nsource: none\ntarget: none", "source: none")
    edit(own / "own.yaml", "{role: control}", "{role: control, pretrain: none, target: none}, t: {role: teacher}")
    before = state(own / "out")
    command = [sys.executable, "-m", "deploy", "run", str(own / "own.yaml"), "--out", str(own / "out")]
    done = subprocess.run(
        [*command, "--store", str(own / "store"), "--set", "pretrain.backbone=nobody/nothing"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(own / "hub")},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pretrain.backbone: cannot load 'nobody/nothing': ")
    assert sum("nobody" in line for line in done.stderr.splitlines()) == 1
    assert state(own / "out") == before


def test_a_backbone_folder_that_is_not_there(own, run_refused):
    settings = ["variants.t.role=teacher", "variants.t.target.method=two_level", "variants.t.pretrain.backbone=./none"]
    settings.append("pack.key=./key.pem")
    assert run_refused(2, *(part for setting in settings for part in ("--set", setting))) == [
        f"pretrain.backbone: no such folder (got {str(own / 'none')!r})",
        f"{own}/key.pem: cannot read the key (No such file or directory)",
    ]
    assert not list((own / "store").iterdir())


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["rnu"], "slimrec: No such command 'rnu'"),
        (["run"], "slimrec run: Missing argument 'RECIPE'"),
        (["run", "tiny", "--sets", "a=1"], "slimrec run: No such option '--sets'"),
        (["run", "tinny"], "tinny: no such recipe file; shipped ones, by name: "),
        (["run", "tiny", "--threads", "-1"], "slimrec run: Invalid value for '--threads'"),
        (["run", "tiny", "--device", "tpu"], "slimrec run: Invalid value for '--device'"),
        (
            ["plan", "tiny", "--set", "select.max_mb=1"],
            "select.max_mb: unknown field (got 1); did you mean max_size_mb?",
        ),
        (["store", "prune"], "slimrec store prune: Missing option '--older-than'"),
        (["bench", "none.slim"], "none.slim: no such bundle"),
        (["evaluate", "none.slim", "none"], "none.slim: no such bundle"),
        (["recommend", "none.slim", "--history", "a"], "none.slim: no such bundle"),
    ],
)
def test_command_lines_that_are_wrong(refused, arguments, start):
    [line] = refused(2, *arguments)
    assert line.startswith(start), line


def test_a_damaged_bundle(tiny_run, refused, tmp_path):
    content = bytearray((tiny_run.out / "bundle.slim").read_bytes())
    damaged = tmp_path / "damaged.slim"
    content[content.index(b"item_id:token") + 40] ^= 1
    damaged.write_bytes(content)
    for verb in (["verify"], ["bench"], ["recommend", "--history", "f2"]):
        [line] = refused(3, verb[0], damaged, *verb[1:])
        assert line.startswith(f"{damaged}: items.item: SHA-256 must be ")
    damaged.write_bytes(content[:2000])
    [line] = refused(2, "verify", damaged)
    assert line.startswith(f"{damaged}: ")
