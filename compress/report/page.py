"""The page from its parts. Nothing in it is fetched, and its policy lets no other script run than its own."""

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.charts.drawing import MARKS
from benchmarks.charts.style import ROLES, style
from benchmarks.result import Result
from benchmarks.seeds import by_candidate
from compress.report.conditions import conditions, how_to_repeat
from compress.report.extras import Extras
from compress.report.headline import headline
from compress.report.models import columns, model_rows
from compress.report.sections import not_measured, sections
from compress.report.words import facts, served_path

_PAIR = re.compile(r", (?=[-+\d.]+\])")  # between the ends of an interval, where no line may break
_FOLDER = Path(__file__).with_name("template")


def write_report(result: Result, out: Path, extras: Extras | None = None) -> None:
    """Writes the page to the file `out`."""
    out.write_text(render_report(result, extras), encoding="utf-8")


def render_report(result: Result, extras: Extras | None = None) -> str:
    """The page as text: everything on it is from `result` and `extras`."""
    candidates = by_candidate(result.models)
    extras = extras or Extras()
    found = sections(result, candidates, extras)
    path = served_path(result.models, result.metric)
    styles, script = style(":root") + _file("page.css"), _file("page.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            result=result,
            headline=headline(result, candidates),
            columns=columns(result),
            models=model_rows(result, candidates),
            sections=found,
            not_measured=not_measured(result, candidates, found, extras.peers),
            conditions=conditions(result),
            how_to_repeat=how_to_repeat(result),
            styles=Markup(styles),
            script=Markup(script),
            policy=Markup(_policy(styles, script)),
            facts=_as_script({one.name: facts(one, result.metric, path) for one in candidates}),
            record=_as_script(result.model_dump(mode="json", by_alias=True)),
        )
    )


def _policy(styles: str, script: str) -> str:
    """Only these two texts may style and act: whatever a name in the data holds, it is text."""
    own = f"style-src {_hash(styles)}; script-src {_hash(script)}"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _as_script(value: object) -> Markup:
    """JSON for a script element: no letter in it can end the element or begin a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _mark(kind: str) -> Markup:
    """A legend's key: the mark of a role, or a dot in the colour of what is no role."""
    outline = MARKS[ROLES.get(kind, "circle")]
    assert kind.isalnum()
    return Markup(
        f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true"><path d="{outline}" class="{kind}"/></svg>'
    )


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["mark"] = _mark
    environment.filters["whole_intervals"] = lambda words: _PAIR.sub(",\N{NO-BREAK SPACE}", words)
    environment.filters["svg"] = lambda figure: Markup(figure.drawing.inline(figure.name))
    return environment
