"""What a page is made of: sections of figures, each figure with its numbers as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.charts.drawing import Drawing


@dataclass(frozen=True)
class Line:
    """A row of a table: its cells in words. `name`: the model that it is of, highlighted with the model's marks."""

    cells: Sequence[str]
    name: str = ""


@dataclass(frozen=True)
class Table:
    """The first column names its row; the columns after the first `texts` are numbers."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]
    texts: int = 1


@dataclass(frozen=True)
class Figure:
    """A drawing under a unique `name`. `pick`: its marks can be chosen."""

    name: str
    drawing: Drawing
    heading: str = ""
    pick: bool = False


@dataclass(frozen=True)
class Section:
    """`name` is its anchor. `legend`: (mark, words); `absent` is said where nothing was measured, with `command`, which
    would measure it."""

    name: str
    title: str
    words: Sequence[str] = ()
    legend: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    absent: str = ""
    command: str = ""
    open_tables: bool = False
