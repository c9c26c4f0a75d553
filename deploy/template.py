"""How an item reads as text: a template over item columns, filled alike where models are made and on a device."""

from collections.abc import Mapping
from string import Formatter


def template_columns(template: str) -> list[str]:
    """The column names in a text template; raises ValueError where it is not plain `{column}` text."""
    names = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name or spec or conversion:
            raise ValueError(f"a template holds plain {{column}} names (got {template!r})")
        names.append(name)
    return names


def fill(template: str | None, cells: Mapping[str, str]) -> str:
    """The text of an item, white space collapsed: its title, or the template with its cells (KeyError without one)."""
    if template is None:
        return one_line(cells["title"])
    parts = Formatter().parse(template)
    return one_line("".join(literal + ("" if name is None else cells[name]) for literal, name, _, _ in parts))


def one_line(text: str) -> str:
    """White space collapsed."""
    return " ".join(text.split())
