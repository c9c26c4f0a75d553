"""goodbooks-10k (Zygmunt Zając, 2017): Goodreads' ten thousand most rated books."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from compress.data.public.archives import columns, member_lines, open_zip
from compress.data.public.download import Download
from compress.data.public.source import LISTS, PublicSource, write_events
from deploy.columns import write_atomic


class Goodbooks10k(PublicSource):
    """goodbooks-10k, release 1.0: 53,424 users, 10,000 books, 5,976,479 ratings in the order of time, without times."""

    name: Literal["goodbooks-10k"] = "goodbooks-10k"
    terms: ClassVar[str] = "Zygmunt Zając, release 1.0; CC BY-SA 4.0"

    def downloads(self) -> tuple[Download, ...]:
        # SHA-256 in Ludwig's data set description (ludwig/datasets/configs/goodbooks_books.yaml)
        checksum = "261b97b56db61f3fb2ce5aadbb13704d30179fcc986c17ace665a0af9ed00731"
        url = "https://github.com/zygmuntz/goodbooks-10k/releases/download/v1.0/goodbooks-10k.zip"
        return (Download("goodbooks-10k.zip", url, checksum, 200_000_000),)

    def convert(self, files: Sequence[Path], folder: Path) -> None:
        """`ratings.csv` and `books.csv`: quoted CSV with headers, authors between commas, UTF-8."""
        wanted = ("book_id", "title", "original_title", "authors", "original_publication_year", "language_code")
        with open_zip(files[0]) as archive:
            events, books = (
                columns(f"{files[0]}, {name}", member_lines(archive, name, "utf-8"), names)
                for name, names in (("ratings.csv", ("user_id", "book_id", "rating")), ("books.csv", wanted))
            )
        write_events(folder / "goodbooks-10k.inter", *events)
        ids, titles, originals, authors, years, languages = books
        table = {
            "item_id": ids,
            "title": [title or original or book for book, title, original in zip(ids, titles, originals, strict=True)],
            "author": [LISTS.join(name.strip() for name in cell.split(",") if name.strip()) for cell in authors],
            "release_year": [year.removesuffix(".0") or "unknown" for year in years],
            "language": [language or "unknown" for language in languages],
        }
        write_atomic(
            folder / "goodbooks-10k.item", table, {"item_id": "token", "release_year": "token", "language": "token"}
        )
