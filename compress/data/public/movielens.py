"""MovieLens (GroupLens): 100K, 1M and latest-small.

F. Maxwell Harper and Joseph A. Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015.
"""

import importlib.util
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from compress.data.files import data_root
from compress.data.public.archives import columns, member_lines, open_zip, rows
from compress.data.public.download import Download
from compress.data.public.source import PublicSource, Sha256, write_events
from deploy.columns import write_atomic

FILES = "https://files.grouplens.org/datasets/movielens"
MAX_ZIP_BYTES = 50_000_000
NO_GENRE = "unknown"
GENRES = (
    NO_GENRE,
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)


class Ml100k(PublicSource):
    """MovieLens-100k: 943 users, 1,682 films, 100,000 ratings (GroupLens)."""

    name: Literal["ml-100k"] = "ml-100k"
    terms: ClassVar[str] = "GroupLens; research, no redistribution, no commercial use"
    elsewhere: ClassVar[str] = ", or install recbole==1.2.1 with --no-deps"

    def downloads(self) -> tuple[Download, ...]:
        # the MD5 is published beside the archive by GroupLens
        return (Download("ml-100k.zip", f"{FILES}/ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", MAX_ZIP_BYTES),)

    def installed(self) -> Path | None:
        """The atomic files in `$SLIMREC_DATA/ml-100k`, else in an installed recbole wheel (not imported), else None."""
        spec = importlib.util.find_spec("recbole")
        wheel = [Path(place) / "dataset_example" for place in (spec and spec.submodule_search_locations) or ()]
        root = data_root()
        return self._in(([root] if root is not None else []) + wheel)

    def convert(self, files: Sequence[Path], folder: Path) -> None:
        """`u.data` (tab-separated) and `u.item` (`|`-separated, one flag per genre), Latin-1."""
        with open_zip(files[0]) as archive:
            events = _rows(files[0], archive, "ml-100k/u.data", "\t", 4)
            films = _rows(files[0], archive, "ml-100k/u.item", "|", 5 + len(GENRES))
        write_events(folder / "ml-100k.inter", *zip(*events, strict=True))
        genres = [[g for g, flag in zip(GENRES, film[5:], strict=True) if flag == "1"] for film in films]
        _write_films(folder / "ml-100k.item", [film[0] for film in films], [film[1] for film in films], genres)


class Ml1m(PublicSource):
    """MovieLens-1M: 6,040 users, 3,883 films (3,706 rated), 1,000,209 ratings (GroupLens, 2003)."""

    name: Literal["ml-1m"] = "ml-1m"
    terms: ClassVar[str] = "GroupLens; research, no redistribution, no commercial use"

    def downloads(self) -> tuple[Download, ...]:
        # SHA-256 in TensorFlow's on-device recommendation example and in SecretFlow's data sets, and beside
        # GroupLens' own MD5 c4d9eecfca2ab87c1945afe126590906 in several audits of the archive
        checksum = "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"
        return (Download("ml-1m.zip", f"{FILES}/ml-1m.zip", checksum, MAX_ZIP_BYTES),)

    def convert(self, files: Sequence[Path], folder: Path) -> None:
        """`ratings.dat` and `movies.dat`: fields between `::`, genres between `|`, Latin-1."""
        with open_zip(files[0]) as archive:
            events = _rows(files[0], archive, "ml-1m/ratings.dat", "::", 4)
            films = _rows(files[0], archive, "ml-1m/movies.dat", "::", 3)
        write_events(folder / "ml-1m.inter", *zip(*events, strict=True))
        ids, titles, genres = zip(*films, strict=True)
        _write_films(folder / "ml-1m.item", ids, titles, [cell.split("|") for cell in genres])


class MlLatestSmall(PublicSource):
    """MovieLens latest-small (GroupLens): renewed from time to time, so that the recipe says which edition it means."""

    name: Literal["ml-latest-small"] = "ml-latest-small"
    terms: ClassVar[str] = "GroupLens; research, redistribution under the same terms, no commercial use"
    sha256: Sha256 | None = None

    def downloads(self) -> tuple[Download, ...]:
        return (Download("ml-latest-small.zip", f"{FILES}/ml-latest-small.zip", self.sha256, MAX_ZIP_BYTES),)

    def convert(self, files: Sequence[Path], folder: Path) -> None:
        """`ratings.csv` and `movies.csv`: quoted CSV with headers, genres between `|`, UTF-8."""
        with open_zip(files[0]) as archive:
            events, films = (
                columns(f"{files[0]}, {name}", member_lines(archive, f"ml-latest-small/{name}", "utf-8"), wanted)
                for name, wanted in (
                    ("ratings.csv", ("userId", "movieId", "rating", "timestamp")),
                    ("movies.csv", ("movieId", "title", "genres")),
                )
            )
        write_events(folder / "ml-latest-small.inter", *events)
        ids, titles, genres = films
        lists = [[NO_GENRE] if cell == "(no genres listed)" else cell.split("|") for cell in genres]
        _write_films(folder / "ml-latest-small.item", ids, titles, lists)


def _rows(path: Path, archive: zipfile.ZipFile, name: str, separator: str, fields: int) -> list[list[str]]:
    return rows(f"{path}, {name}", member_lines(archive, name, "latin-1"), separator, fields)


def _write_films(path: Path, ids: Sequence[str], titles: Sequence[str], genres: Iterable[Sequence[str]]) -> None:
    split = [_title_and_year(title) for title in titles]
    table = {
        "item_id": ids,
        "movie_title": [title for title, _ in split],
        "release_year": [year for _, year in split],
        "class": [" ".join(some) for some in genres],
    }
    write_atomic(path, table, {"item_id": "token", "release_year": "token"})


def _title_and_year(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)\s*\((\d{4})[^()]*\)\s*", text)
    return (match[1], match[2]) if match else (text.strip(), "unknown")
