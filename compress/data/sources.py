"""Where a domain's tables come from: a built-in data set by name, or the user's own files."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from compress.data.extras import check_extras
from compress.data.files import Files
from compress.data.public.amazon import Amazon2023
from compress.data.public.goodbooks import Goodbooks10k
from compress.data.public.lastfm import HetrecLastfm
from compress.data.public.movielens import Ml1m, Ml100k, MlLatestSmall
from compress.data.public.source import PublicSource
from compress.data.synthetic import Synthetic
from deploy.errors import UsageError
from deploy.tables import Interactions, Items, TableFiles, find_tables, read_interactions, read_items

PUBLIC: tuple[type[PublicSource], ...] = (Ml100k, Ml1m, MlLatestSmall, Goodbooks10k, HetrecLastfm, Amazon2023)
BUILT_IN = ("synthetic", *(source.model_fields["name"].default for source in PUBLIC))


def _shorthand(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value} if value in BUILT_IN else {"name": "files", "path": value}
    return value


Source = Annotated[
    Ml100k | Ml1m | MlLatestSmall | Goodbooks10k | HetrecLastfm | Amazon2023 | Synthetic | Files,
    Field(discriminator="name"),
    BeforeValidator(_shorthand, json_schema_input_type=Any),
]


def source_name(source: Source) -> str:
    """What a report calls the data set."""
    if isinstance(source, Files):
        return Path(source.path).stem
    return source.title if isinstance(source, PublicSource) else source.name


def source_terms(name: str) -> str | None:
    """Who publishes the source called `name` and what they allow; None where its user has to know."""
    if name == Synthetic.model_fields["name"].default:
        return "made by slimrec from random numbers"
    return next((source.terms for source in PUBLIC if source.model_fields["name"].default == name), None)


def source_digest(source: Source) -> str:
    """SHA-256 of the data's content, or the pin of what will be downloaded. Never touches the network."""
    if isinstance(source, Synthetic):
        return "synthetic.v1"  # its parameters are in the config
    found = source.located() if isinstance(source, Files) else source.installed() or source.pin()
    if isinstance(found, str):
        return found
    tables = find_tables(found)
    digest = hashlib.sha256()
    for path in (tables.interactions, tables.items):
        if path is not None:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_source(source: Source, columns: Mapping[str, str], list_separator: str) -> tuple[Items, Interactions, Path]:
    """The whole catalogue, all events, and the path of the interactions file for messages. Raises UsageError."""
    with _located(source) as tables:
        if tables.items is None:
            raise UsageError(f"{tables.interactions}: no item file beside it; add a .item, items.csv or items.parquet")
        items = read_items(tables.items, columns, list_separator)
        known = set(items.ids)
        events = read_interactions(tables.interactions, columns, known_items=known)
        check_extras(tables, known)
        return items, events, tables.interactions


@contextmanager
def _located(source: Source) -> Iterator[TableFiles]:
    if isinstance(source, Files):
        yield find_tables(source.located())
        return
    folder = source.installed() if isinstance(source, PublicSource) else None
    if folder is not None:
        yield find_tables(folder)
        return
    with tempfile.TemporaryDirectory(prefix="slimrec-") as made:
        source.write(Path(made))
        yield find_tables(Path(made))
