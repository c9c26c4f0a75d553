"""The command line: one table of verbs, imported only when used, and one place that turns errors into exit codes."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from deploy.errors import SlimrecError, UsageError


class Verb(NamedTuple):
    """Where a command object lives (`module:name`), and the line that `slimrec --help` shows."""

    target: str
    help: str


VERBS = {
    "run": Verb("compress.commands:run", "Run or resume a recipe, from data to bundle."),
    "plan": Verb("compress.commands:plan", "Show what a run would do, and what is cached."),
    "advise": Verb("compress.advise.command:advise", "Recommend a recipe for data, with reasons."),
    "recipes": Verb("compress.commands:recipes", "List the recipes, with what each is for."),
    "report": Verb("compress.report.command:report", "Write a run's page anew, with a bench beside it."),
    "store": Verb("compress.commands:store", "List and prune the artifact store."),
    "bench": Verb("benchmarks.commands:bench", "Measure a bundle's latency and memory on this machine."),
    "evaluate": Verb("benchmarks.commands:evaluate", "Measure a bundle's accuracy on data."),
    "verify": Verb("deploy.commands.verify:verify", "Check a bundle's files, signature and golden answers."),
    "recommend": Verb("deploy.commands.recommend:recommend", "Recommend items for a history."),
    "serve": Verb("deploy.commands.serve:serve", "Answer over HTTP."),
    "web": Verb("deploy.commands.web:web", "Write a page that answers in a browser, offline."),
    "key": Verb("deploy.commands.key:key", "Make keys that sign bundles."),
    "release": Verb("deploy.commands.release:release", "Install, update and roll back bundles on a device."),
    "feedback": Verb("deploy.commands.feedback:feedback", "Read, export and delete what a device recorded."),
}

# What `slimrec[compress]` adds to the base install, by import name.
COMPRESS_EXTRA = frozenset(
    {"filelock", "jinja2", "onnx", "onnxscript", "pyarrow", "safetensors", "torch", "transformers"}
)


class LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, _, name = verb.target.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="slimrec", prog_name="slimrec")
def cli() -> None:
    """From a pretrained language model to a proven small recommender on a device.

    \b
    slimrec run recipes/quickstart.yaml --out runs/quickstart
    slimrec recommend runs/quickstart/bundle.slim --history 50,181
    slimrec serve runs/quickstart/bundle.slim --allow-unsigned
    """


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; a mistake is written to stderr, one line each."""
    try:
        with cli.make_context("slimrec", list(arguments)) as context:
            cli.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return UsageError.exit_code
    except click.ClickException as error:
        return _refuse(_usage_line(error), UsageError.exit_code)
    except SlimrecError as error:
        return _refuse("\n".join(error.lines), error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in COMPRESS_EXTRA:
            raise
        verb = next((argument for argument in arguments if not argument.startswith("-")), "")
        line = f'slimrec {verb}: needs the compress extra: pip install "slimrec[compress]" (no module {error.name})'
        return _refuse(line, UsageError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _refuse("slimrec: interrupted", 130)
    except BrokenPipeError:
        # The reader has gone; the interpreter's own flush at exit must not complain about it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def main() -> NoReturn:
    """The `slimrec` command."""
    sys.exit(run_command(sys.argv[1:]))


def _usage_line(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "slimrec"
    what = " ".join(error.format_message().split()).rstrip(".")
    return f'{path}: {what}; try "{path} --help"'


def _refuse(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
