"""Drawings as SVG text: no plotting library, no script, and the same parts for a page and for a file.

Horizontal places are percent of the plot's width, vertical ones pixels, as are marks and letters: in a page a drawing
is as wide as its column, and its letters stay as large on a phone as on a desk. Outside of a page `standalone` gives
the plot a width, and the colours that a page has in its style sheet.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.charts.style import FILE_STYLE, ROLES

Percent = float

MARKS = {
    "circle": "M6 0A6 6 0 1 1-6 0A6 6 0 1 1 6 0Z",
    "square": "M-5-5H5V5H-5Z",
    "diamond": "M0-7L7 0L0 7L-7 0Z",
    "triangle": "M0-6.5L6.5 5.5H-6.5Z",
    "cross": "M-5-5L5 5M-5 5L5-5",
    "tick": "M0-7V7",
}
"""Outlines around (0, 0), told apart without colour."""

_NARROW = 300  # pixels: the plot's width on a small phone, for which labels are placed
_CHARACTER = 7.2  # pixels, of a label, in the mean


@dataclass(frozen=True)
class Drawing:
    """`parts` in a plot `height` pixels high, with room for the letters of a vertical axis at its `left`, in pixels.

    `title` is read first to those who do not see it; `description` says what there is to be seen.
    """

    parts: Sequence[str]
    height: int
    title: str
    description: str
    left: int = 0

    def inline(self, name: str) -> str:
        """For a page, which gives `left` as padding around it. `name` is unique there."""
        return (
            f'<svg class="chart" width="100%" height="{self.height}" role="img" '
            f'aria-labelledby="{name}-title" aria-describedby="{name}-desc">'
            f'<title id="{name}-title">{html.escape(self.title)}</title>'
            f'<desc id="{name}-desc">{html.escape(self.description)}</desc>{"".join(self.parts)}</svg>'
        )

    def standalone(self, width: int, right: int = 16) -> str:
        """A file of its own, `width` pixels wide, light or dark as its reader; `right`: room beside the plot."""
        plot = width - self.left - right
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {self.height}" role="img" '
            f'aria-labelledby="title desc"><title id="title">{html.escape(self.title)}</title>'
            f'<desc id="desc">{html.escape(self.description)}</desc><style>{FILE_STYLE}</style>'
            f'<rect width="{width}" height="{self.height}" class="paper"/>\n'
            f'<svg x="{self.left}" width="{plot}" height="{self.height}" overflow="visible">\n'
            + "\n".join(self.parts)
            + "\n</svg></svg>\n"
        )


def line(x1: Percent, y1: float, x2: Percent, y2: float, kind: str) -> str:
    """`kind`: its classes in the style sheet."""
    return f'<line x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}" class="{kind}"/>'


def bar(x1: Percent, x2: Percent, y: float, height: float, kind: str) -> str:
    """A filled box from x1 to x2, its top at y."""
    return (
        f'<rect x="{x1:.2f}%" y="{y:.1f}" width="{max(x2 - x1, 0.0):.2f}%" height="{height:.1f}" '
        f'class="{html.escape(kind)}"/>'
    )


def mark(x: Percent, y: float, shape: str, kind: str) -> str:
    """One of `MARKS` at a place."""
    return f'<svg x="{x:.2f}%" y="{y:.1f}" overflow="visible"><path d="{MARKS[shape]}" class="{kind}"/></svg>'


def text(x: Percent, y: float, words: str, anchor: str = "start", kind: str = "", dx: float = 0) -> str:
    """`anchor`: which part of the words stands at x, moved by `dx` pixels: `start`, `middle` or `end`."""
    moved = f' dx="{dx:g}"' if dx else ""
    kinds = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.2f}%" y="{y:.1f}"{moved} text-anchor="{anchor}"{kinds}>{html.escape(words)}</text>'


def legend(kinds: Sequence[str], y: float) -> list[str]:
    """Roles and their marks in one line that ends at the plot's right edge, for a file: a page has its own."""
    parts, place = [], 0.0
    for kind in reversed(kinds):
        place -= _CHARACTER * len(kind)
        words = f'<text x="{place:.1f}" y="{y:.1f}" class="number">{html.escape(kind)}</text>'
        place -= 12
        moved = f"translate({place:.1f} {y - 4:.1f})"
        parts.append(f'{words}<path transform="{moved}" d="{MARKS[ROLES[kind]]}" class="{kind}"/>')
        place -= 18
    return [f'<svg x="100%" overflow="visible">{"".join(parts)}</svg>']


def of_model(name: str, parts: Sequence[str], words: str = "") -> str:
    """What is drawn of one model: a page highlights it with the model's other marks. `words` describe it."""
    label = f' aria-label="{html.escape(words)}"' if words else ""
    return f'<g data-model="{html.escape(name)}"{label}>{"".join(parts)}</g>'


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


class Labels:
    """Places names beside marks where a phone has room for them; a name without room is left out."""

    def __init__(self, marks: Sequence[tuple[Percent, float]], top: float, bottom: float) -> None:
        self._top, self._bottom = top, bottom
        self._taken = [_Box(x * _NARROW / 100 - 8, x * _NARROW / 100 + 8, y - 8, y + 8) for x, y in marks]

    def place(self, x: Percent, y: float, words: str) -> str:
        """Above, below, right or left of (x, y), whichever is free first; empty where none is."""
        at, width = x * _NARROW / 100, _CHARACTER * len(words)
        for anchor, dx, dy in (
            ("middle", 0, -13),
            ("middle", 0, 21),
            ("start", 12, 4),
            ("end", -12, 4),
            ("start", 0, -13),
            ("end", 0, -13),
            ("start", 0, 21),
            ("end", 0, 21),
            ("start", 0, -27),
            ("end", 0, -27),
            ("start", 0, 35),
            ("end", 0, 35),
            ("start", 24, 4),
            ("end", -24, 4),
        ):
            start = at + dx - {"start": 0, "middle": width / 2, "end": width}[anchor]
            box = _Box(start, start + width, y + dy - 10, y + dy + 3)
            inside = box.left >= -4 and box.right <= _NARROW + 4 and box.top >= self._top and box.bottom <= self._bottom
            if inside and not any(box.meets(other) for other in self._taken):
                self._taken.append(box)
                return text(x, y + dy, words, anchor, "name", dx)
        return ""
