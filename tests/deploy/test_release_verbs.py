"""`slimrec release`: what the verbs print, and their exit codes."""

import json

import pytest

from deploy import cli
from deploy.manifest import canonical_json


@pytest.fixture
def release(capsys):
    """Runs `slimrec release ...`, which must end with `code`; returns what it printed."""

    def run(*arguments: object, code: int = 0) -> str:
        assert cli.run_command(["release", *map(str, arguments)]) == code
        captured = capsys.readouterr()
        assert not (captured.out if code else captured.err)
        return captured.err if code else captured.out

    return run


def test_the_way_of_an_update(release, write_tiny, tmp_path):
    device = tmp_path / "device"
    first, second = (write_tiny({"evidence.json": canonical_json({"version": number})}) for number in (1, 2))
    said = release("install", device, first.archive, "--key", first.public_key, "--activate")
    assert said.startswith("tiny@") and ": active, signed by " in said
    document = json.loads(release("install", device, second.folder, "--allow-unsigned", "--json"))
    assert document["active"] is False and document["signed_by"] is None
    assert release("activate", device, document["release"]) == f"{document['release']}: active\n"
    state = json.loads(release("status", device, "--json"))
    assert state["active"] == document["digest"] and len(state["good"]) == 1 and state["problem"] is None
    older = state["good"][0][:12]
    assert "is not one of its candidates" in release(
        "experiment", device, "x", "--arm", f"{document['digest'][:12]}=5", code=2
    )
    assert release("experiment", device, "november", "--arm", f"{older}=12.5", "--shadow", f"{older}=100") == (
        "november: begun\n"
    )
    text = release("status", device)
    assert f"experiment november: arm {older} 12.5 %, shadow {older} 100 %" in text
    assert text.splitlines()[0].split()[0] == "active" and text.splitlines()[1].split()[0] == "candidate"
    assert release("experiment", device, "--stop").startswith("no experiment")
    assert release("rollback", device) == f"tiny@{older}: active\n"
    assert release("status", device).splitlines()[-1] == "rolled back"


def test_mistakes_are_one_line(release, tiny, tmp_path):
    device = tmp_path / "device"
    for arguments, said in [
        (
            ["install", device, tiny.archive],
            "release install: pass --key PUB to pin the signer, or --allow-unsigned",
        ),
        (["install", device, tmp_path / "no", "--allow-unsigned"], f"{tmp_path / 'no'}: no such bundle"),
        (["install", device, "http://127.0.0.1:0/x", "--allow-unsigned"], "'http://127.0.0.1:0/x': not an address"),
        (["activate", device, "tiny@0123"], f"{device}: no such release; installed: none (got 'tiny@0123')"),
        (["rollback", device], f"{device}: no release to go back to"),
        (["experiment", device], "release experiment: pass NAME with --arm or --shadow, or --stop alone"),
        (["experiment", device, "x", "--arm", "ab"], "release experiment: a share is RELEASE=PERCENT"),
        (["install", tiny.archive, tiny.archive, "--allow-unsigned"], "slimrec release install: Invalid value"),
    ]:
        lines = release(*arguments, code=2).splitlines()
        assert len(lines) == 1 and lines[0].startswith(said), lines
    assert release("status", device) == "nothing activated yet\n"


@pytest.mark.parametrize("group", ["release", "feedback"])
def test_every_verb_has_an_example(capsys, group):
    for verb in cli.cli.get_command(None, group).commands:
        assert cli.run_command([group, verb, "--help"]) == 0
        assert f"slimrec {group} {verb} " in capsys.readouterr().out.replace("Usage: slimrec", "")
