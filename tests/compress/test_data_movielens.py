"""MovieLens-100k: the archive's own format becomes atomic files, and nothing but the pinned bytes is accepted."""

import hashlib
import importlib.util
import urllib.error
import zipfile
from pathlib import Path

import pytest

from compress.data import movielens
from compress.data.sources import Ml100k, read_source, source_digest
from deploy.errors import UsageError
from deploy.tables import find_tables, read_interactions, read_items

FLAGS = {"Drama": 8, "Animation": 3, "Children's": 4, "unknown": 0}


def film(number: int, title: str, *genres: str) -> str:
    flags = ["1" if i in {FLAGS[g] for g in genres} else "0" for i in range(19)]
    return "|".join([str(number), title, "01-Jan-1995", "", "http://us.imdb.com/x", *flags])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    films = [
        film(1, "Toy Story (1995)", "Animation", "Children's"),
        film(2, "Misérables, Les (1995)", "Drama"),
        film(3, "Land Before Time III: The Time of the Great Giving (1995) (V)", "Drama"),
        film(4, "unknown", "unknown"),
    ]
    path = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("ml-100k/u.data", "196\t2\t3\t881250949\n186\t1\t4\t891717742\n")
        files.writestr("ml-100k/u.item", ("\n".join(films) + "\n").encode("latin-1"))
    return path


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SLIMREC_DATA", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return tmp_path / "home" / ".cache" / "slimrec" / "data" / "ml-100k.zip"


def test_conversion(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    movielens.convert(archive, folder)
    tables = find_tables(folder)
    assert tables.items is not None
    items = read_items(tables.items)
    assert items.titles[:2] == ["Toy Story", "Misérables, Les"]
    assert items.titles[3] == "unknown"
    assert items.attributes["release_year"][:2] == ["1995", "1995"]
    assert items.attributes["class"] == ["Animation Children's", "Drama", "Drama", "unknown"]
    events = read_interactions(tables.interactions)
    assert (events.users, events.items, events.times.tolist()) == (["196", "186"], ["2", "1"], [881250949, 891717742])


def test_a_damaged_archive_is_refused(tmp_path: Path, archive: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"not a zip")
    with pytest.raises(UsageError, match="not the MovieLens-100k archive"):
        movielens.convert(broken, tmp_path)
    with zipfile.ZipFile(archive, "a") as files, pytest.warns(UserWarning, match="Duplicate name"):
        files.writestr("ml-100k/u.data", "196\t2\n")
    with pytest.raises(UsageError, match=r"u\.data line 1: 4 fields expected \(got 2\)"):
        movielens.convert(archive, tmp_path)


def test_the_cache_is_checked_and_read_offline(
    archive: Path, nothing_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_installed.parent.mkdir(parents=True)
    nothing_installed.write_bytes(archive.read_bytes())
    with pytest.raises(UsageError, match="not the published MovieLens-100k archive"):
        read_source(Ml100k(), {}, " ")
    monkeypatch.setattr(movielens, "MD5", hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest())
    items, events, _ = read_source(Ml100k(), {}, " ")
    assert (len(items), len(events)) == (4, 2)


def test_without_network_all_three_ways_are_named(nothing_installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_args: object, **_more: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    assert source_digest(Ml100k()) == f"ml-100k.zip:{movielens.MD5}"
    with pytest.raises(UsageError) as caught:
        read_source(Ml100k(), {}, " ")
    (line,) = caught.value.lines
    assert all(way in line for way in ("SLIMREC_DATA", "recbole==1.2.1", "network"))
    assert not nothing_installed.exists()


def test_a_named_folder_comes_first(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine" / "ml-100k"
    folder.mkdir(parents=True)
    movielens.convert(archive, folder)
    monkeypatch.setenv("SLIMREC_DATA", str(tmp_path / "mine"))
    assert movielens.installed_folder() == folder
    assert len(read_source(Ml100k(), {}, " ")[0]) == 4
