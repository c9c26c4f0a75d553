"""Last.fm plays, tags and friendships of HetRec 2011 (Cantador, Brusilovsky, Kuflik; RecSys 2011 workshop)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from compress.data.public.archives import columns, member_lines, open_zip
from compress.data.public.download import Download
from compress.data.public.source import LISTS, PublicSource, write_events
from deploy.columns import write_atomic

MAX_TAGS = 10


class HetrecLastfm(PublicSource):
    """HetRec 2011 Last.fm: 1,892 users, 17,632 artists, 92,834 play counts; neither times nor an order."""

    name: Literal["hetrec-lastfm"] = "hetrec-lastfm"
    terms: ClassVar[str] = "HetRec 2011, IR group of UAM, at GroupLens; non-commercial"

    def downloads(self) -> tuple[Download, ...]:
        # SHA-256 in OmniRec's data loaders (register_dataloader("HetrecLastFM")) and four more projects
        checksum = "6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c"
        url = "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip"
        return (Download("hetrec2011-lastfm-2k.zip", url, checksum, 50_000_000),)

    def convert(self, files: Sequence[Path], folder: Path) -> None:
        """`.dat` files: tab-separated with headers, no quoting; `tags.dat` is Latin-1, the others UTF-8.

        An artist's tags are the ten most assigned, most first, ties in the order of `tags.dat`; an assignment of a tag
        that has no name there says nothing. A rating is a count of plays.
        """
        with open_zip(files[0]) as archive:

            def read(name: str, wanted: Sequence[str], encoding: str = "utf-8") -> list[list[str]]:
                lines = member_lines(archive, name, encoding)
                return columns(f"{files[0]}, {name}", lines, wanted, separator="\t", quoted=False)

            plays = read("user_artists.dat", ("userID", "artistID", "weight"))
            ids, names = read("artists.dat", ("id", "name"))
            tags = dict(zip(*read("tags.dat", ("tagID", "tagValue"), "latin-1"), strict=True))
            tagged = read("user_taggedartists.dat", ("artistID", "tagID"))
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for artist, tag in zip(*tagged, strict=True):
            counts[artist][tag] += 1
        place = {tag: place for place, tag in enumerate(tags)}

        def most_assigned(artist: str) -> list[str]:
            named = [tag for tag in counts[artist] if tag in place]
            return sorted(named, key=lambda tag: (-counts[artist][tag], place[tag]))[:MAX_TAGS]

        table = {
            "item_id": ids,
            "title": [name or artist for artist, name in zip(ids, names, strict=True)],
            "tags": [LISTS.join(tags[tag] for tag in most_assigned(artist)) for artist in ids],
        }
        write_events(folder / "hetrec-lastfm.inter", *plays)
        write_atomic(folder / "hetrec-lastfm.item", table, {"item_id": "token"})
