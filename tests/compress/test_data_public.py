"""Books, music, shop: slices in the publishers' own formats, and what damaged or hostile archives lead to."""

import gzip
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from compress.data.public import amazon, archives
from compress.data.public.amazon import Amazon2023
from compress.data.public.goodbooks import Goodbooks10k
from compress.data.public.lastfm import HetrecLastfm
from compress.data.public.source import PublicSource
from compress.data.sources import BUILT_IN, PUBLIC, Source, read_source, source_digest, source_name
from deploy.errors import UsageError
from deploy.tables import Interactions, Items, find_tables, read_interactions, read_items

BOOK_COLUMNS = (
    "book_id,goodreads_book_id,best_book_id,work_id,books_count,isbn,isbn13,authors,original_publication_year,"
    "original_title,title,language_code,average_rating,ratings_count,work_ratings_count,work_text_reviews_count,"
    "ratings_1,ratings_2,ratings_3,ratings_4,ratings_5,image_url,small_image_url"
)
TAIL = "4.34,4780653,4942365,155254,66715,127936,560092,1481305,2706317,https://images/m.jpg,https://images/s.jpg"
BOOKS = f'''{BOOK_COLUMNS}
1,2767052,2767052,2792775,272,439023483,9.78043902348e+12,Suzanne Collins,2008.0,The Hunger Games,\
"The Hunger Games (The Hunger Games, #1)",eng,{TAIL}
2,3,3,4640799,491,439554934,9.78043955493e+12,"J.K. Rowling, Mary GrandPré",1997.0,Harry Potter,\
"Harry Potter and the ""Stone""",eng,{TAIL}
3,4,4,5,6,,,Homer,-750.0,Ὀδύσσεια,,,{TAIL}
'''
RATINGS = "user_id,book_id,rating\n1,2,5\n2,1,4\n1,3,3\n"

MUSIC = {
    "artists.dat": "id\tname\turl\tpictureURL\r\n"
    "1\tMALICE MIZER\thttp://www.last.fm/music/MALICE+MIZER\thttp://x/1.jpg\r\n"
    '2\t"Weird Al" Yankovic\thttp://www.last.fm/music/x\t\r\n'
    "51\t宇多田ヒカル\thttp://www.last.fm/music/y\thttp://x/51.jpg\r\n".encode(),
    "tags.dat": "tagID\ttagValue\r\n1\tmetal\r\n13\tchillout\r\n127\tmúsica brasileira\r\n".encode("latin-1"),
    "user_artists.dat": b"userID\tartistID\tweight\r\n2\t51\t13883\r\n2\t1\t11690\r\n3\t2\t1\r\n",
    "user_taggedartists.dat": b"userID\tartistID\ttagID\tday\tmonth\tyear\r\n"
    b"2\t51\t127\t1\t4\t2009\r\n2\t51\t13\t1\t4\t2009\r\n3\t51\t127\t1\t4\t2009\r\n3\t51\t99\t1\t4\t2009\r\n3\t1\t13\t1\t5\t2009\r\n"
    b"4\t1\t1\t1\t5\t2009\r\n",
    "user_friends.dat": b"userID\tfriendID\r\n2\t275\r\n",
}


def packed(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as files:
        for name, content in members.items():
            files.writestr(name, content)
    return path


def zipped(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
    return path


def converted(source: PublicSource, folder: Path, *files: Path) -> tuple[Items, Interactions]:
    made = folder / source.title
    made.mkdir()
    source.convert(files, made)
    tables = find_tables(made)
    assert tables.items is not None
    items = read_items(tables.items)
    return items, read_interactions(tables.interactions, known_items=set(items.ids))


def refused(source: PublicSource, folder: Path, *files: Path) -> str:
    with pytest.raises(UsageError) as caught:
        source.convert(files, folder)
    (line,) = caught.value.lines
    assert line.startswith(tuple(map(str, files)))
    return line


def product(asin: str, title: str | None, **more: Any) -> str:
    usual = {
        "main_category": "All Beauty",
        "title": title,
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["a", "b"],
        "description": [],
        "price": None,
        "images": [{"thumb": "https://x/t.jpg", "large": "https://x/l.jpg", "variant": "MAIN", "hi_res": None}],
        "videos": [],
        "store": None,
        "categories": [],
        "details": {"Brand": {"nested": ["deep"]}, "UPC": "617390882781"},
        "parent_asin": asin,
        "bought_together": None,
    }
    return json.dumps({**usual, **more}) + "\n"


def test_goodbooks(tmp_path: Path) -> None:
    archive = packed(tmp_path / "g.zip", {"books.csv": BOOKS.encode(), "ratings.csv": RATINGS.encode()})
    items, events = converted(Goodbooks10k(), tmp_path, archive)
    assert items.ids == ["1", "2", "3"]
    assert items.titles == ["The Hunger Games (The Hunger Games, #1)", 'Harry Potter and the "Stone"', "Ὀδύσσεια"]
    assert items.attributes["author"] == ["Suzanne Collins", "J.K. Rowling | Mary GrandPré", "Homer"]
    assert items.attributes["release_year"] == ["2008", "1997", "-750"]
    assert items.attributes["language"] == ["eng", "eng", "unknown"]
    assert not events.timed  # sorted by time, says the publisher: the order of the rows is the order of events
    assert events.users == ["1", "2"]
    assert [events.items[i] for i in events.item_index] == ["2", "3", "1"]
    assert events.ratings is not None
    assert events.ratings.tolist() == [5, 3, 4]


def test_hetrec_lastfm(tmp_path: Path) -> None:
    items, events = converted(HetrecLastfm(), tmp_path, packed(tmp_path / "l.zip", MUSIC))
    assert items.ids == ["1", "2", "51"]
    assert items.titles == ["MALICE MIZER", '"Weird Al" Yankovic', "宇多田ヒカル"]
    assert items.attributes["tags"] == ["metal | chillout", "", "música brasileira | chillout"]
    assert not events.timed
    assert [events.items[i] for i in events.item_index] == ["51", "1", "2"]
    assert events.ratings is not None
    assert events.ratings.tolist() == [13883, 11690, 1]


def plain(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize("write", [zipped, plain])
def test_amazon(tmp_path: Path, write: Callable[[Path, str], Path]) -> None:
    ratings = write(
        tmp_path / "All_Beauty.csv.gz",
        "user_id,parent_asin,rating,timestamp\n"
        "AEZP6Z2C,B08PFNJF1X,5.0,1588687728923\nAEZP6Z2C,B0BARE0000,1.0,1588615855070\nAGKHLEW2,B00NOTITLE,3.0,1000\n",
    )
    metadata = write(
        tmp_path / "meta.jsonl.gz",
        product("B0UNRATED0", "Nobody rated this")
        + product(
            "B08PFNJF1X",
            "Howard\tLC0008 Leather\n Conditioner",
            store="Howard Products",
            price=9.99,
            categories=["Beauty & Personal Care", "Skin Care"],
        )
        + product("B00NOTITLE", None, categories=None)
        + product("B08PFNJF1X", "Told twice: the first counts"),
    )
    source = Amazon2023(category="All_Beauty")
    items, events = converted(source, tmp_path, ratings, metadata)
    assert items.ids == ["B08PFNJF1X", "B0BARE0000", "B00NOTITLE"]
    assert items.titles == ["Howard LC0008 Leather Conditioner", "B0BARE0000", "B00NOTITLE"]
    assert items.attributes["store"] == ["Howard Products", "", ""]
    assert items.attributes["categories"] == ["Beauty & Personal Care | Skin Care", "", ""]
    assert items.attributes["price"] == ["9.99", "", ""]
    assert events.users == ["AEZP6Z2C", "AGKHLEW2"]
    assert events.times.tolist() == [1588615855.07, 1588687728.923, 1.0]
    assert [events.items[i] for i in events.item_index] == ["B0BARE0000", "B08PFNJF1X", "B00NOTITLE"]


def test_amazon_at_the_hub_and_at_ucsd() -> None:
    ratings, metadata = Amazon2023(category="Magazine_Subscriptions").downloads()
    assert ratings.url.endswith("/resolve/main/benchmark/5core/rating_only/Magazine_Subscriptions.csv")
    assert metadata.url.endswith("/resolve/main/raw/meta_categories/meta_Magazine_Subscriptions.jsonl")
    assert ratings.checksum is not None
    assert metadata.checksum is not None
    packed_source = Amazon2023(category="Video_Games", core=0, host="ucsd")
    ratings, metadata = packed_source.downloads()
    assert ratings.url.endswith("/amazon_2023/benchmark/0core/rating_only/Video_Games.csv.gz")
    assert metadata.url.endswith("/amazon_2023/raw/meta_categories/meta_Video_Games.jsonl.gz")
    assert (ratings.checksum, metadata.checksum) == (None, None)  # other bytes than at the hub
    assert source_name(packed_source) == "amazon-2023-Video_Games-0core"


def test_amazon_takes_the_recipes_digests() -> None:
    ratings, metadata = Amazon2023(category="Video_Games").downloads()
    assert (ratings.checksum, ratings.confirm, metadata.confirm) == (None, "sha256.ratings", "sha256.metadata")
    assert ratings.shown is not None
    both = {"ratings": "a" * 64, "metadata": "b" * 64}
    given = Amazon2023.model_validate({"category": "Video_Games", "sha256": both})
    assert [download.checksum for download in given.downloads()] == ["a" * 64, "b" * 64]
    with pytest.raises(ValidationError):
        Amazon2023.model_validate({"category": "Video_Games", "sha256": {"ratings": "not a digest"}})


@pytest.mark.parametrize(
    ("ratings", "metadata", "told"),
    [
        ("user_id,parent_asin,rating\nu,a,5\n", "", "missing column timestamp"),
        ("user_id,parent_asin,rating,timestamp\nu,a,5,yesterday\n", "", "a timestamp is whole milliseconds"),
        ("user_id,parent_asin,rating,timestamp\nu,a,5,1,2\n", "", "line 2: 4 fields expected as in the header (got 5)"),
        ("user_id,parent_asin,rating,timestamp\n", "", "no rows after the header"),
        ("user_id,parent_asin,rating,timestamp\nu,a,5,1000\n", "{", "line 1: one JSON object per line"),
        ("user_id,parent_asin,rating,timestamp\nu,a,5,1000\n", "[" * 100_000, "line 1: one JSON object per line"),
        ("user_id,parent_asin,rating,timestamp\nu,a,5,1000\n", "[1]\n", "line 1: one JSON object per line"),
        (
            "user_id,parent_asin,rating,timestamp\nu,a,5,1000\n",
            '{"parent_asin": "a", "categories": "none"}\n',
            "line 1: categories are a list",
        ),
    ],
)
def test_amazon_files_of_another_form_are_named(tmp_path: Path, ratings: str, metadata: str, told: str) -> None:
    files = [zipped(tmp_path / "r.csv.gz", ratings), zipped(tmp_path / "m.jsonl.gz", metadata)]
    assert told in refused(Amazon2023(category="All_Beauty"), tmp_path, *files)


def test_truncated_and_foreign_gzip(tmp_path: Path) -> None:
    text = "user_id,parent_asin,rating,timestamp\n" + "".join(f"u{i},a{i},5,{i}\n" for i in range(2000))
    whole = zipped(tmp_path / "r.csv.gz", text)
    metadata = zipped(tmp_path / "m.jsonl.gz", product("a1", "A"))
    whole.write_bytes(whole.read_bytes()[:-200])
    assert "damaged or unknown archive" in refused(Amazon2023(category="All_Beauty"), tmp_path, whole, metadata)
    whole.write_bytes(b"<html>404</html>")
    assert "missing column user_id" in refused(Amazon2023(category="All_Beauty"), tmp_path, whole, metadata)


def test_a_gzip_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(archives, "MAX_TEXT_BYTES", 5000)
    metadata = zipped(tmp_path / "m.jsonl.gz", product("a1", "A"))
    for text in ("x" * 2000, "u,a,5,1\n" * 1000):
        bomb = zipped(tmp_path / "r.csv.gz", "user_id,parent_asin,rating,timestamp\n" + text)
        assert "unpacks to more than" in refused(Amazon2023(category="All_Beauty"), tmp_path, bomb, metadata)


def test_hostile_zip_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Goodbooks10k()
    good = {"books.csv": BOOKS.encode(), "ratings.csv": RATINGS.encode()}
    for name in ("../ratings.csv", "/etc/passwd", "a/../../b", "..\\x"):
        hostile = packed(tmp_path / "t.zip", {**good, name: b"x"})
        assert "a member outside the archive" in refused(source, tmp_path, hostile)
    assert "no item named 'books.csv'" in refused(
        source, tmp_path, packed(tmp_path / "m.zip", {"ratings.csv": RATINGS.encode()})
    )
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 10_000)
    bomb = packed(tmp_path / "b.zip", {**good, "ratings.csv": RATINGS.encode() + b"1,2,3\n" * 10_000})
    assert "ratings.csv unpacks to" in refused(source, tmp_path, bomb)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    assert "2 members, at most 1" in refused(source, tmp_path, packed(tmp_path / "n.zip", good))


def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb may announce few bytes: reading stops there, and the check sum no longer fits."""
    rows = RATINGS.encode() + b"1,2,3\n" * 10_000
    bomb = packed(tmp_path / "b.zip", {"ratings.csv": rows, "books.csv": BOOKS.encode()})
    bomb.write_bytes(bomb.read_bytes().replace(struct.pack("<L", len(rows)), struct.pack("<L", 200)))
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 10_000)
    assert "damaged or unknown archive" in refused(Goodbooks10k(), tmp_path, bomb)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_truncated_zip_archives(tmp_path: Path, keep: float) -> None:
    archive = packed(tmp_path / "l.zip", MUSIC)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep if keep > 1 else len(data) * keep)])
    assert "damaged or unknown archive" in refused(HetrecLastfm(), tmp_path, archive)


def test_flipped_bytes_and_wrong_encodings(tmp_path: Path) -> None:
    source = HetrecLastfm()
    long = b"userID\tartistID\tweight\r\n" + b"2\t51\t13883\r\n" * 500
    archive = packed(tmp_path / "l.zip", {**MUSIC, "user_artists.dat": long})
    data = bytearray(archive.read_bytes())
    at = data.find(b"user_artists.dat") + len("user_artists.dat") + 20
    data[at : at + 4] = b"\xff\xff\xff\xff"
    archive.write_bytes(bytes(data))
    assert "damaged or unknown archive" in refused(source, tmp_path, archive)
    latin = packed(tmp_path / "e.zip", {**MUSIC, "artists.dat": "id\tname\r\n1\tBjörk\r\n".encode("latin-1")})
    assert "can't decode byte" in refused(source, tmp_path, latin)


def test_the_page_on_data_names_every_source_address_and_checksum() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "DATA.md").read_text("utf-8")
    for source in PUBLIC:
        name = source.model_fields["name"].default
        assert f"`{name}`" in page
        if source is not Amazon2023:
            for download in source(name=name).downloads():
                assert f"<{download.url}> | " in page
                assert download.checksum is None or f"`{download.checksum}`" in page
    assert amazon.HUB in page


def test_names_are_shorthands_and_keys_are_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIMREC_DATA", raising=False)
    adapter: TypeAdapter[Any] = TypeAdapter(Source)
    for name in BUILT_IN:
        if name != "amazon-2023":
            assert adapter.validate_python(name).name == name
    with pytest.raises(ValidationError, match="category"):
        adapter.validate_python("amazon-2023")
    for source in PUBLIC:
        if source is not Amazon2023:
            filled = source(name=source.model_fields["name"].default)
            checksum = filled.downloads()[0].checksum
            assert filled.pin().endswith(":unconfirmed" if checksum is None else f":{checksum}")
    source = adapter.validate_python({"name": "amazon-2023", "category": "Software", "sha256": {"ratings": "a" * 64}})
    assert source_digest(source).split(",")[0].endswith(f"/Software.csv:{'a' * 64}")
    assert source_digest(source).endswith("meta_Software.jsonl:unconfirmed")


def test_a_converted_folder_below_slimrec_data_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path / "g.zip", {"books.csv": BOOKS.encode(), "ratings.csv": RATINGS.encode()})
    converted(Goodbooks10k(), tmp_path, archive)
    monkeypatch.setenv("SLIMREC_DATA", str(tmp_path))
    items, events, path = read_source(Goodbooks10k(), {}, " | ")
    assert (len(items), len(events), path) == (3, 3, tmp_path / "goodbooks-10k" / "goodbooks-10k.inter")
    assert source_digest(Goodbooks10k()) != Goodbooks10k().pin()
