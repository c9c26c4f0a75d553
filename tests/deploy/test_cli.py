"""Exit codes, one line per mistake, and what the verbs print."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy import cli
from deploy.errors import GateError

ROOT = Path(__file__).parents[2]


def slimrec(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The command as a process."""
    command = [sys.executable, "-m", "deploy", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, **options)  # type: ignore[call-overload]


@pytest.fixture
def refused(capsys):
    """Runs a command line that must fail with `code`; returns its lines on stderr."""

    def run(code: int, *arguments: object) -> list[str]:
        assert cli.run_command([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return run


@pytest.fixture
def said(capsys):
    """Runs a command line that must succeed; returns its stdout."""

    def run(*arguments: object) -> str:
        assert cli.run_command([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return run


def test_help_names_every_verb_and_imports_none(said):
    text = said("--help")
    assert all(f"  {verb} " in text for verb in cli.VERBS)
    probe = "import sys; from deploy.cli import run_command; run_command(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, text=True, capture_output=True, check=True)
    assert "numpy" not in done.stdout and "deploy.runtime" not in done.stdout


@pytest.mark.parametrize("verb", [name for name, verb in cli.VERBS.items() if verb.target.startswith("deploy.")])
def test_every_help_has_an_example(said, verb):
    assert f"slimrec {verb} " in said(verb, "--help").replace("Usage: slimrec", "")
    assert cli.VERBS[verb].help == cli.cli.get_command(None, verb).short_help


def test_version():
    done = slimrec("--version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (done.returncode, done.stdout) == (0, f"slimrec, version {project['version']}\n")


def test_verify(said, tiny):
    text = said("verify", tiny.archive)
    assert "integrity only" in text and "fp32, int8, text as recorded" in text
    document = json.loads(said("verify", tiny.folder, "--key", tiny.public_key, "--json"))
    assert document["level"] == "signed" and document["golden"] == ["fp32", "int8", "text"]
    assert json.loads(said("verify", tiny.folder, "--files-only", "--json"))["golden"] == []


def test_recommend(said, tiny):
    lines = said("recommend", tiny.archive, "--history", "i3, i9", "-k", 4).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    text = said(
        "recommend", tiny.archive, "--history", "i3,x", "--exclude", "i9", "-k", 3, "--json", "--precision", "fp32"
    )
    document = json.loads(text)
    assert text.count("\n") == 1
    assert [f"{item['id']}" for item in document["items"]][:1] != ["i9"] and len(document["items"]) == 3
    assert document["unknown"] == ["x"] and document["release"].startswith("tiny@")


def test_recommend_says_what_it_skipped(tiny):
    result = CliRunner().invoke(cli.cli, ["recommend", str(tiny.folder), "--history", "x", "-k", "2"])
    assert result.stderr.splitlines() == [
        "unknown id, skipped: x",
        "no known id in the history: recently popular items",
    ]
    assert [line.split()[2] for line in result.stdout.splitlines()] == ["i7", "i3"]


def test_key_new(said, refused, tmp_path):
    assert "vendor.pub: public key" in said("key", "new", tmp_path / "vendor")
    assert refused(2, "key", "new", tmp_path / "vendor")[0].endswith("choose another name")
    assert "No such file" in refused(2, "key", "new", tmp_path / "no" / "vendor")[0]


def test_usage_mistakes_are_one_line(refused, tiny, tmp_path):
    for arguments, expected in [
        (["frobnicate"], "slimrec: No such command 'frobnicate'"),
        (["verify"], "slimrec verify: Missing argument 'BUNDLE'"),
        (["verify", "x", "--kye", "y"], "slimrec verify: No such option '--kye'"),
        (["recommend", tiny.folder], "slimrec recommend: Missing option '--history'"),
        (["recommend", tiny.folder, "--history", "i1", "-k", "0"], "slimrec recommend: Invalid value for '-k': 0"),
        (["serve", tiny.folder], "serve: pass --key PUB to pin the signer, or --allow-unsigned"),
        (["serve", tiny.folder, "--key", tiny.public_key, "--port", "70000"], "slimrec serve: Invalid value for"),
        (["verify", tmp_path / "none.slim"], f"{tmp_path}/none.slim: no such bundle"),
        (["verify", tiny.folder, "--key", tmp_path / "none.pub"], f"{tmp_path}/none.pub: cannot read the key"),
        (["recommend", tiny.folder, "--history", "i1", "--precision", "int2"], "precision: the bundle has fp32, int8"),
    ]:
        lines = refused(2, *arguments)
        assert len(lines) == 1 and lines[0].startswith(expected), lines


def test_damage_is_exit_3_or_2(tiny, tmp_path):
    data = bytearray(tiny.archive.read_bytes())
    damaged = tmp_path / "damaged.slim"
    data[data.index(b"i7\t")] ^= 1
    damaged.write_bytes(data)
    done = slimrec("verify", damaged)
    assert done.returncode == 3 and done.stderr.startswith(f"{damaged}: items.item: SHA-256 must be ")
    damaged.write_bytes(data[:5000])
    done = slimrec("recommend", damaged, "--history", "i1")
    assert done.returncode == 2 and done.stderr.startswith(f"{damaged}: cut short in ")
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_a_gate_keeps_its_code(monkeypatch, refused, tiny):
    def fail(*_: object) -> None:
        raise GateError("first: no", "second: no")

    monkeypatch.setattr("deploy.bundle.open_bundle", fail)
    assert refused(3, "verify", tiny.folder) == ["first: no", "second: no"]


def test_an_absent_extra_is_one_line(monkeypatch, refused):
    monkeypatch.setitem(cli.VERBS, "run", cli.Verb("compress_probe:run", ""))

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="torch.nn" if name == "compress_probe" else name)

    monkeypatch.setattr(cli, "import_module", absent)
    assert refused(2, "run", "x.yaml") == [
        'slimrec run: needs the compress extra: pip install "slimrec[compress]" (no module torch.nn)'
    ]
    with pytest.raises(ModuleNotFoundError, match=r"deploy\.commands"):
        cli.run_command(["verify", "x"])


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_interrupt_is_130(monkeypatch, refused, tiny):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt  # not by a signal: where the suite runs in the background, SIGINT is ignored

    monkeypatch.setattr("deploy.bundle.open_bundle", interrupted)
    assert refused(130, "verify", tiny.folder) == ["slimrec: interrupted"]


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_a_closed_pipe_is_quiet(tiny):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "deploy", "recommend", str(tiny.folder), "--history", "i1"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
