"""What an item file offers as text: which columns read as text, how much of it there is, and in which scripts."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np

from compress.data.domains import item_texts
from deploy.tables import Items

SAMPLE = 5000
"""Items that are looked at; drawn evenly over the catalogue."""
MAX_CHARS = 500
WIDE_SEPARATOR = " | "
WITHOUT_SPACES = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})
"""Scripts that set no spaces between words: a character is about a token."""
LEAST_COVERAGE = 0.5
YEARS = ("release_year", "year")


@dataclass(frozen=True)
class TextFacts:
    """`template` is None where no column reads as text. `coverage` is the share of items with a text of their own
    beside the template's punctuation, `distinct` that of different texts; words are counted per text, a character of a
    script without spaces as one. `scripts` are shares of letters, the largest first; `accented` the share of letters
    beyond plain Latin ones."""

    template: str | None
    columns: tuple[str, ...] = ()
    coverage: float = 0.0
    distinct: float = 0.0
    words_median: int = 0
    words_p95: int = 0
    scripts: tuple[tuple[str, float], ...] = ()
    accented: float = 0.0

    @property
    def script(self) -> str:
        """The script of most letters, such as LATIN; empty where there are none."""
        return self.scripts[0][0] if self.scripts else ""


def text_facts(items: Items) -> TextFacts:
    """Choose the columns that read as text and measure the texts they make, on a sample of the catalogue."""
    some = _sample(items)
    values = {items.title_column: items.titles, **items.attributes} if items.title_column else dict(items.attributes)
    columns = [name for name, cells in values.items() if name and _reads_as_text([cells[i] for i in some])]
    if not columns:
        return TextFacts(None)
    year = next((name for name in YEARS if name in items.attributes), None)
    template = _template(columns, year, items)
    made = item_texts("advise", template, items, MAX_CHARS)
    texts = [made[i] for i in some]
    own = [any(values[name][i].strip() for name in columns) for i in some]
    lengths = [count_words(text) for text in texts]
    letters = Counter(script_of(c) for text in texts for c in text if c.isalpha())
    total = sum(letters.values())
    plain = sum(c.isascii() for text in texts for c in text if c.isalpha())
    return TextFacts(
        template,
        tuple(columns),
        float(np.mean(own)),
        len(set(texts)) / len(texts),
        int(np.median(lengths)),
        int(np.quantile(lengths, 0.95)),
        tuple((script, count / total) for script, count in letters.most_common(5)) if total else (),
        1 - plain / total if total else 0.0,
    )


def separator_of(items: Items) -> str:
    """What splits the values of multi-valued columns: ` | ` where a cell in ten has it, else a space."""
    cells = [cells[i] for name, cells in items.attributes.items() if name in items.sequences for i in _sample(items)]
    filled = [cell for cell in cells if cell]
    return WIDE_SEPARATOR if sum(WIDE_SEPARATOR in cell for cell in filled) * 10 > len(filled) else " "


def count_words(text: str) -> int:
    """Words between spaces, and each character of a script that sets none."""
    crowded = sum(script_of(c) in WITHOUT_SPACES for c in text if c.isalpha())
    spaced = "".join(" " if c.isalpha() and script_of(c) in WITHOUT_SPACES else c for c in text)
    return crowded + sum(any(c.isalnum() for c in word) for word in spaced.split())


@lru_cache(maxsize=50_000)
def script_of(letter: str) -> str:
    """The first word of a letter's Unicode name, which is its script: LATIN, CYRILLIC, CJK, ARABIC, ..."""
    name = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "LATIN" if name in ("FULLWIDTH", "MODIFIER", "FEMININE", "MASCULINE") else name.split("-")[0]


def _sample(items: Items) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, len(items) - 1, min(SAMPLE, len(items)))})


def _reads_as_text(cells: Sequence[str]) -> bool:
    """Words in most items: no numbers, codes of one token with digits, or addresses."""
    filled = [cell for cell in cells if cell.strip()]
    if len(filled) < LEAST_COVERAGE * len(cells):
        return False
    return sum(_has_words(cell) for cell in islice(filled, 1000)) > 0.8 * min(len(filled), 1000)


def _has_words(cell: str) -> bool:
    words: Iterable[str] = cell.split()
    return "://" not in cell and any(word.strip(".,|()'\"").isalpha() or not word.isascii() for word in words)


def _template(columns: Sequence[str], year: str | None, items: Items) -> str:
    """The title first, the year behind it, each other column as a sentence."""
    first, *others = sorted(columns, key=lambda name: name != items.title_column)
    shows_year = year is not None and year not in columns and not _repeats_year(items, first, year)
    head = f"{{{first}}} ({{{year}}})" if shows_year else f"{{{first}}}"
    return ". ".join([head, *(f"{{{name}}}" for name in others)])


def _repeats_year(items: Items, column: str, year: str) -> bool:
    """Whether titles end with the year already, as MovieLens' do."""
    titles = items.titles if column == items.title_column else items.attributes[column]
    some = _sample(items)
    return sum(items.attributes[year][i] in titles[i] for i in some) > 0.5 * len(some)
