"""MovieLens: the archives' own formats become atomic files, and nothing but the pinned bytes is accepted."""

import hashlib
import importlib.util
import urllib.error
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from compress.data.public.download import Download
from compress.data.public.movielens import Ml1m, Ml100k, MlLatestSmall
from compress.data.public.source import PublicSource
from compress.data.sources import read_source, source_digest
from deploy.errors import UsageError
from deploy.tables import Interactions, Items, find_tables, read_interactions, read_items

FLAGS = {"Drama": 8, "Animation": 3, "Children's": 4, "unknown": 0}


def film(number: int, title: str, *genres: str) -> str:
    flags = ["1" if i in {FLAGS[g] for g in genres} else "0" for i in range(19)]
    return "|".join([str(number), title, "01-Jan-1995", "", "http://us.imdb.com/x", *flags])


def packed(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as files:
        for name, content in members.items():
            files.writestr(name, content)
    return path


def converted(source: PublicSource, folder: Path, *files: Path) -> tuple[Items, Interactions]:
    made = folder / source.title
    made.mkdir(parents=True)
    source.convert(files, made)
    tables = find_tables(made)
    assert tables.items is not None
    return read_items(tables.items), read_interactions(tables.interactions)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    films = [
        film(1, "Toy Story (1995)", "Animation", "Children's"),
        film(2, "Misérables, Les (1995)", "Drama"),
        film(3, "Land Before Time III: The Time of the Great Giving (1995) (V)", "Drama"),
        film(4, "unknown", "unknown"),
    ]
    members = {
        "ml-100k/u.data": b"196\t2\t3\t881250949\n186\t1\t4\t891717742\n",
        "ml-100k/u.item": ("\n".join(films) + "\n").encode("latin-1"),
    }
    return packed(tmp_path / "ml-100k.zip", members)


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SLIMREC_DATA", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return tmp_path / "home" / ".cache" / "slimrec" / "data" / "ml-100k.zip"


def test_100k(archive: Path, tmp_path: Path) -> None:
    items, events = converted(Ml100k(), tmp_path, archive)
    assert items.titles[:2] == ["Toy Story", "Misérables, Les"]
    assert items.titles[3] == "unknown"
    assert items.attributes["release_year"][:2] == ["1995", "1995"]
    assert items.attributes["class"] == ["Animation Children's", "Drama", "Drama", "unknown"]
    assert (events.users, events.items, events.times.tolist()) == (["196", "186"], ["2", "1"], [881250949, 891717742])


def test_1m(tmp_path: Path) -> None:
    films = (
        "1::Toy Story (1995)::Animation|Children's|Comedy\r\n"
        "73::Misérables, Les (1995)::Drama|Musical\r\n"
        "3882::Bootmen: The Film: A Second Look (2000)::Comedy\r\n"
    )
    members = {
        "ml-1m/users.dat": b"1::F::1::10::48067\n",
        "ml-1m/ratings.dat": b"1::73::5::978300760\n1::1::3::978302109\n6040::1::4::956704746\n",
        "ml-1m/movies.dat": films.encode("latin-1"),
    }
    items, events = converted(Ml1m(), tmp_path, packed(tmp_path / "ml-1m.zip", members))
    assert items.ids == ["1", "73", "3882"]
    assert items.titles == ["Toy Story", "Misérables, Les", "Bootmen: The Film: A Second Look"]
    assert items.attributes["release_year"] == ["1995", "1995", "2000"]
    assert items.attributes["class"] == ["Animation Children's Comedy", "Drama Musical", "Comedy"]
    assert events.users == ["1", "6040"]
    assert events.offsets.tolist() == [0, 2, 3]
    assert [events.items[i] for i in events.item_index] == ["73", "1", "1"]
    assert events.times.tolist() == [978300760, 978302109, 956704746]
    assert events.ratings is not None
    assert events.ratings.tolist() == [5, 3, 4]


def test_latest_small(tmp_path: Path) -> None:
    films = (
        "movieId,title,genres\r\n"
        "1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy\r\n"
        '11,"American President, The (1995)",Comedy|Drama|Romance\r\n'
        '82,"Antonia\'s ""Line"" (Antonia) (1995)",Comedy\r\n'
        "171749,Death Note: Desu nôto (2006\u20132007),(no genres listed)\r\n"
    )
    ratings = b"userId,movieId,rating,timestamp\r\n1,11,4.0,964982703\r\n1,1,0.5,964981247\r\n"
    members = {
        "ml-latest-small/ratings.csv": ratings,
        "ml-latest-small/movies.csv": films.encode("utf-8"),
    }
    items, events = converted(MlLatestSmall(), tmp_path, packed(tmp_path / "small.zip", members))
    assert items.titles == [
        "Toy Story",
        "American President, The",
        'Antonia\'s "Line" (Antonia)',
        "Death Note: Desu nôto",
    ]
    assert items.attributes["release_year"] == ["1995", "1995", "1995", "2006"]
    assert items.attributes["class"][3] == "unknown"
    assert events.times.tolist() == [964981247, 964982703]
    assert events.ratings is not None
    assert events.ratings.tolist() == [0.5, 4.0]


def test_a_row_of_another_width_is_named(tmp_path: Path) -> None:
    members = {"ml-1m/ratings.dat": b"1::73::5::978300760\n1::73::5\n", "ml-1m/movies.dat": b"1::A::B\n"}
    with pytest.raises(UsageError, match=r"ml-1m/ratings\.dat, line 2: 4 fields expected \(got 3\)"):
        Ml1m().convert([packed(tmp_path / "a.zip", members)], tmp_path)


def test_the_cache_is_checked_and_read_offline(
    archive: Path, nothing_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_installed.parent.mkdir(parents=True)
    nothing_installed.write_bytes(archive.read_bytes())
    with pytest.raises(UsageError, match="not the file that was pinned, MD5 0e33842e24a9c977be4e0107933c0723"):
        read_source(Ml100k(), {}, " ")
    own = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(Ml100k, "downloads", lambda _self: (Download("ml-100k.zip", "http://nowhere.invalid", own, 1),))
    items, events, _ = read_source(Ml100k(), {}, " ")
    assert (len(items), len(events)) == (4, 2)


def test_without_network_all_three_ways_are_named(nothing_installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_args: object, **_more: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("compress.data.public.download.PAUSE_SECONDS", 0)
    assert source_digest(Ml100k()) == "ml-100k.zip:0e33842e24a9c977be4e0107933c0723"
    with pytest.raises(UsageError) as caught:
        read_source(Ml100k(), {}, " ")
    (line,) = caught.value.lines
    assert all(way in line for way in ("SLIMREC_DATA", "recbole==1.2.1", "network"))
    assert not nothing_installed.exists()


def test_a_named_folder_comes_first(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted(Ml100k(), tmp_path / "mine", archive)
    monkeypatch.setenv("SLIMREC_DATA", str(tmp_path / "mine"))
    assert Ml100k().installed() == tmp_path / "mine" / "ml-100k"
    assert len(read_source(Ml100k(), {}, " ")[0]) == 4
    assert source_digest(Ml100k()) != Ml100k().pin()
