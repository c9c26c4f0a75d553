"""What a public data set is: its files at the publisher's, and how they become atomic files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import StringConstraints

from compress.data.files import data_root
from compress.data.public.download import Download, fetch
from compress.stage import Entry
from deploy.columns import write_atomic

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
LISTS = " | "
"""Between the values of a multi-valued column whose values hold spaces: `list_separator` of the recipe's domain."""


class PublicSource(Entry):
    """A data set that its publisher gives away. Nothing of it is part of slimrec: `terms` says who
    publishes it and what they allow (docs/DATA.md)."""

    name: str
    elsewhere: ClassVar[str] = ""
    terms: ClassVar[str]

    @property
    def title(self) -> str:
        """What a report calls it, and its folder's name below `$SLIMREC_DATA`."""
        return self.name

    def downloads(self) -> tuple[Download, ...]:
        """Its files, in the order `convert` wants them."""
        raise NotImplementedError

    def convert(self, files: Sequence[Path], folder: Path) -> None:
        """Writes `<title>.inter` and `<title>.item` into `folder` from the publisher's files. Raises UsageError."""
        raise NotImplementedError

    def installed(self) -> Path | None:
        """A folder on this machine that holds it as atomic files: `$SLIMREC_DATA/<title>`, else None."""
        root = data_root()
        return self._in([root]) if root is not None else None

    def pin(self) -> str:
        """Stands for the content of what will be downloaded. Never touches the network."""
        return ",".join(download.pin for download in self.downloads())

    def write(self, folder: Path) -> None:
        """Writes the atomic files into `folder`, from the cache or from the publisher. Raises UsageError."""
        way = f"name a folder that holds {self.title}/{self.title}.inter and {self.title}.item in SLIMREC_DATA"
        self.convert(fetch(self.downloads(), way + self.elsewhere), folder)

    def _in(self, roots: Sequence[Path]) -> Path | None:
        folders = (root / self.title for root in roots)
        return next((folder for folder in folders if (folder / f"{self.title}.inter").is_file()), None)


EVENT_TYPES = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}


def write_events(
    path: Path, users: Sequence[str], items: Sequence[str], ratings: Sequence[str], times: Sequence[str] = ()
) -> None:
    """Writes an atomic interactions file; without `times` (seconds) the order of the rows is the order of events."""
    table = {"user_id": users, "item_id": items, "rating": ratings} | ({"timestamp": times} if times else {})
    write_atomic(path, table, EVENT_TYPES)
