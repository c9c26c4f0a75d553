"""Advice on every data set at hand as one page: `python -m compress.advise.document docs/ADVISE.md`.

Reads the data sets below `$SLIMREC_DATA` and MovieLens-100k.
"""

import sys
from pathlib import Path

from compress.advise.advise import Recommendation, advise
from compress.advise.facts import Part
from compress.advise.rules import Budget
from compress.data.files import DATA_ROOT, data_root
from deploy.errors import SlimrecError, UsageError

PAIRS = (
    ("sports", "$SLIMREC_DATA/beauty", None),
    ("dbbook", "domain=scifi", "domain=romance"),
    ("ml-100k", "$SLIMREC_DATA/dbbook", None),
)
"""Target, source, and items of the target: where somebody has these data sets."""

HEAD = """# What `slimrec advise` says

Written by `python -m compress.advise.document docs/ADVISE.md` from the data sets of docs/DATA.md; sentences in the last
column that name docs/LOG.md are findings there, other numbers come from the data and from `benchmarks/results/`.
"""


def page(cases: list[tuple[str, str | None, str | None]], budget: Budget) -> str:
    """The page for (data, source, items) of each case. Raises UsageError."""
    return "\n".join([HEAD, *(_section(*case, budget) for case in cases)])


def cases() -> list[tuple[str, str | None, str | None]]:
    """MovieLens-100k, each folder below `$SLIMREC_DATA`, and the pairs whose data sets are there."""
    root = data_root()
    if root is None:
        raise UsageError("SLIMREC_DATA: set it to the folder that holds the data sets; docs/DATA.md")
    names = [path.name for path in sorted(root.iterdir()) if (path / f"{path.name}.inter").is_file()]
    pairs = [(_place(t, names), s, i) for t, s, i in PAIRS if t in (*names, "ml-100k") and Path(s).name in (*names, s)]
    return [("ml-100k", None, None), *((_place(name, names), None, None) for name in names), *pairs]


def _place(name: str, below_root: list[str]) -> str:
    return f"{DATA_ROOT}/{name}" if name in below_root else name


def _section(data: str, source: str | None, items: str | None, budget: Budget) -> str:
    given = f" --source {source}" if source else ""
    given += f" --items {items}" if items else ""
    target = Part(data) if items is None else Part.parse(items, data)
    found = advise(target, None if source is None else Part.parse(source, data), {}, budget)
    recipe = f"<details><summary>the recipe</summary>\n\n```yaml\n{found.recipe}```\n\n</details>\n"
    return f"## `slimrec advise {data}{given}`\n\n{table(found)}\n{recipe}"


def table(found: Recommendation) -> str:
    """The advice as a Markdown table."""
    rows = [f"| {one.about} | {one.choice} | {one.reason.replace('|', chr(92) + '|')} |" for one in found.advice]
    return "\n".join(["| about | recommended | because |", "|---|---|---|", *rows]) + "\n"


def main(arguments: list[str]) -> None:
    """Write the page to the file named, or to stdout."""
    try:
        text = page(cases(), Budget())
    except SlimrecError as error:
        print("\n".join(error.lines), file=sys.stderr)
        sys.exit(error.exit_code)
    if arguments:
        Path(arguments[0]).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main(sys.argv[1:])
