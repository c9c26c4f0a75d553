"""Where a domain's tables come from: a built-in data set by name, or the user's own files."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_serializer, field_validator

from compress.data import movielens
from compress.data.synthetic import Synthetic
from compress.stage import Entry
from deploy.errors import UsageError
from deploy.tables import Interactions, Items, TableFiles, find_tables, read_interactions, read_items


class Ml100k(Entry):
    """MovieLens-100k: 943 users, 1,682 films, 100,000 ratings (GroupLens)."""

    name: Literal["ml-100k"] = "ml-100k"


DATA_ROOT = "$SLIMREC_DATA"


class Files(Entry):
    """The user's own data: a folder, or an interactions file with the items beside it.

    A path may start with `$SLIMREC_DATA`, the folder that holds a machine's data sets; no other variable is expanded.
    In a cache key the data's content stands for the path; its name alone is kept, because reports show it.
    """

    name: Literal["files"] = "files"
    path: str = Field(min_length=1, max_length=4096)

    @field_validator("path")
    @classmethod
    def _one_variable_at_the_start(cls, value: str) -> str:
        if (value.startswith("$") and not _below_root(value)) or DATA_ROOT in value[1:]:
            raise ValueError(f"a path may start with {DATA_ROOT}/ and names no other variable")
        return value

    @field_serializer("path")
    def _name_alone(self, value: str) -> str:
        return Path(value).stem

    def located(self) -> Path:
        """The path on this machine. Raises UsageError where `$SLIMREC_DATA` is unset or holds no such data set."""
        if not self.path.startswith(DATA_ROOT):
            return Path(self.path)
        below, root = _below_root(self.path), os.environ.get(DATA_ROOT[1:], "")
        found = Path(root).expanduser() / below
        if root and found.exists():
            return found
        name = Path(below).stem
        raise UsageError(
            f"{self.path}: set {DATA_ROOT[1:]} to the folder that holds {below}, with {name}.inter and {name}.item "
            "(RecBole atomic files) or interactions.csv and items.csv inside; docs/DATA.md says where data sets come "
            f"from (got {f'{root}, without {below}' if root else f'{DATA_ROOT[1:]} unset'})"
        )


def _below_root(path: str) -> str:
    return path.removeprefix(DATA_ROOT).strip("/") if path.startswith(f"{DATA_ROOT}/") else ""


BUILT_IN = ("ml-100k", "synthetic")


def _shorthand(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value} if value in BUILT_IN else {"name": "files", "path": value}
    return value


Source = Annotated[
    Ml100k | Synthetic | Files, Field(discriminator="name"), BeforeValidator(_shorthand, json_schema_input_type=Any)
]


def source_name(source: Ml100k | Synthetic | Files) -> str:
    """What a report calls the data set."""
    return Path(source.path).stem if isinstance(source, Files) else source.name


def source_digest(source: Ml100k | Synthetic | Files) -> str:
    """SHA-256 of the data's content, or the pin of what will be downloaded. Never touches the network."""
    if isinstance(source, Synthetic):
        return "synthetic.v1"  # its parameters are in the config
    folder = movielens.installed_folder() if isinstance(source, Ml100k) else source.located()
    if folder is None:
        return f"ml-100k.zip:{movielens.MD5}"
    tables = find_tables(folder)
    digest = hashlib.sha256()
    for path in (tables.interactions, tables.items):
        if path is not None:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_source(
    source: Ml100k | Synthetic | Files, columns: Mapping[str, str], list_separator: str
) -> tuple[Items, Interactions, Path]:
    """The whole catalogue, all events, and the path of the interactions file for messages. Raises UsageError."""
    with _located(source) as tables:
        if tables.items is None:
            raise UsageError(f"{tables.interactions}: no item file beside it; add a .item, items.csv or items.parquet")
        items = read_items(tables.items, columns, list_separator)
        events = read_interactions(tables.interactions, columns, known_items=set(items.ids))
        return items, events, tables.interactions


@contextmanager
def _located(source: Ml100k | Synthetic | Files) -> Iterator[TableFiles]:
    if isinstance(source, Files):
        yield find_tables(source.located())
        return
    folder = movielens.installed_folder() if isinstance(source, Ml100k) else None
    if folder is not None:
        yield find_tables(folder)
        return
    with tempfile.TemporaryDirectory(prefix="slimrec-") as made:
        if isinstance(source, Synthetic):
            source.write(Path(made))
        else:
            movielens.convert(movielens.cached_zip(), Path(made))
        yield find_tables(Path(made))
