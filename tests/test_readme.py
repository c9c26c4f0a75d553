"""Every `slimrec` command line that the README shows is one that the command understands."""

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from benchmarks.headline import BLOCK, block, plots
from deploy.cli import VERBS, cli

README = Path(__file__).parents[1] / "README.md"


def shown(text: str) -> list[str]:
    """The `slimrec` lines of all fenced sh blocks, continuation lines joined."""
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"(\S*/)?slimrec( |$)", line)]


def understand(line: str) -> list[str]:
    """Parses a command line without running it; returns the verbs on the way. Raises click.ClickException."""
    words = shlex.split(line, comments=True)[1:]
    stop = next((i for i, word in enumerate(words) if word in ("|", ">", "&", "&&")), len(words))
    words, command, context, path = words[:stop], cli, None, []
    while isinstance(command, click.Group):
        context = command.make_context("slimrec", list(words), parent=context, resilient_parsing=not words)
        words = [*context._protected_args, *context.args]
        if not words:
            break
        name, found, words = command.resolve_command(context, words)
        assert found is not None and name is not None
        path.append(name)
        command = found
    if not isinstance(command, click.Group):
        command.make_context(" ".join(path), list(words), parent=context)
    return path


@pytest.mark.parametrize("line", shown(README.read_text("utf-8")) or [None])
def test_the_readme_shows_commands_that_parse(line):
    if line is None:
        pytest.skip("the README shows no slimrec command")
    assert understand(line)[0] in VERBS


def test_the_tables_are_those_of_the_committed_results():
    """`python -m benchmarks.headline` writes them."""
    [shown_tables] = BLOCK.findall(README.read_text("utf-8"))
    assert shown_tables == block() and shown_tables.count("ships") == shown_tables.count("`: ") > 0


def test_the_plots_are_those_of_the_committed_results():
    text = README.read_text("utf-8")
    for path, drawing in plots().items():
        assert path.read_text("utf-8") == drawing and f"](docs/{path.name})" in text
        labels = {part.text for part in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")}
        assert {"teacher", "student", "control", "test NDCG@10", "p50, ms, one thread"} <= labels


def test_the_check_finds_what_is_wrong():
    text = (
        "```sh\nslimrec run a \\\n  --out b  # why\n$ .venv/bin/slimrec store list\nls\n```\n```yaml\nslimrec no\n```\n"
    )
    assert [understand(line) for line in shown(text)] == [["run"], ["store", "list"]]
    assert understand("slimrec recommend b --history 1,2 --json | jq .") == ["recommend"]
    for wrong in ("slimrec rnu a", "slimrec run a --outt b", "slimrec verify", "slimrec store lst"):
        with pytest.raises(click.ClickException):
            understand(wrong)
