"""`manifest.json`: what a bundle holds, with the SHA-256 of every file (`docs/BUNDLE.md`, "The manifest").

The bytes are canonical (sorted keys, no spaces, UTF-8, one final newline), so that one manifest has one digest.
The digest of the manifest's bytes names the whole bundle, because the manifest names every other byte.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from deploy.errors import GateError, UsageError
from deploy.template import template_columns

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
ITEMS = "items.item"
POPULAR = "popular.json"
GOLDEN = "golden.json"
EVIDENCE = "evidence.json"
PROVENANCE = "provenance.json"
SBOM = "sbom.cdx.json"
CARD = "card.md"
LICENCES = "licences.md"
DOCUMENTS = frozenset({POPULAR, GOLDEN, EVIDENCE, PROVENANCE, SBOM, CARD, LICENCES})
"""What every bundle has beside its models and items."""

SCHEMA = 1
RUNTIMES = (1, 1)
"""Oldest and newest runtime that this code is: what graphs are given and give, and what the files mean. Raised when a
bundle that a runtime can read would be answered from wrongly by the one before."""

R = TypeVar("R", bound=BaseModel)

MAX_FILES = 64
MAX_NAME = 100  # what a ustar header holds without its prefix field
MAX_TOTAL_BYTES = 4 << 30
MAX_MANIFEST_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 64 << 20  # read whole into memory
MAX_ITEMS_BYTES = 2 << 30
MAX_PRECISIONS = 8
SIGNATURE_BYTES = 64

# One flat folder: a name without a separator cannot leave it.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FileName = Annotated[str, Field(pattern=f"^{_NAME}$", max_length=MAX_NAME)]
Precision = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=32)]
Count = Annotated[int, Field(ge=1, le=(1 << 31) - 1, strict=True)]


def is_file_name(name: str) -> bool:
    """Whether a bundle may hold a file of this name: letters, digits, `.`, `_`, `-`; no folders."""
    return len(name) <= MAX_NAME and re.fullmatch(_NAME, name, re.ASCII) is not None


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileEntry(Record):
    """One file of the bundle: its SHA-256 (lower-case hex) and size in bytes."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=MAX_TOTAL_BYTES, strict=True)]


class Runtimes(Record):
    """The runtimes that may answer from the bundle, both included."""

    min: Count
    max: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max must be at least min (got {self.min} to {self.max})")
        return self


class TextModel(Record):
    """The text encoder: item text -> vector of `dim` numbers. `template` makes the text from an item's columns; where
    it is None, the text is the title."""

    graph: FileName
    precision: Precision
    tokenizer: FileName
    max_tokens: Count
    dim: Count
    template: Annotated[str, Field(max_length=1000)] | None = None

    @field_validator("template")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None:
            template_columns(value)
        return value

    @model_serializer(mode="wrap")
    def _template_where_any(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(write(self), "template")


class Model(Record):
    """The history -> top-k model. `precisions` maps a precision to its graph's file, `likes`, of models of rated
    histories, to that of its like graph: what it says is the same model's."""

    n_items: Count
    dim: Count
    max_history: Count
    precisions: Annotated[dict[Precision, FileName], Field(min_length=1, max_length=MAX_PRECISIONS)]
    default: Precision
    text: TextModel | None = None
    likes: dict[Precision, FileName] | None = None

    @model_serializer(mode="wrap")
    def _likes_where_any(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Bundles that only rank are the bytes they always were."""
        return without_none(write(self), "likes")

    @model_validator(mode="after")
    def _likes_of_each(self) -> Self:
        if self.likes is not None and self.likes.keys() != self.precisions.keys():
            wanted, got = (", ".join(sorted(names)) for names in (self.precisions, self.likes))
            raise ValueError(f"likes must have {wanted} (got {got})")
        return self

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        if self.default not in self.precisions:
            raise ValueError(f"default must be one of {', '.join(sorted(self.precisions))} (got {self.default})")
        return self


class _Schema(BaseModel):
    """The one field that every schema has."""

    schema_: Annotated[int, Field(alias="schema", strict=True)]


class Manifest(Record):
    """The manifest. `list_separators` maps a multi-valued attribute of `items.item` to what splits it."""

    version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=100)]
    runtime: Runtimes
    model: Model
    list_separators: Annotated[
        dict[Annotated[str, Field(max_length=256)], Annotated[str, Field(min_length=1, max_length=8)]],
        Field(max_length=64),
    ]
    files: Annotated[dict[FileName, FileEntry], Field(min_length=1, max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _files_agree(self) -> Self:
        missing = sorted(self.required_files() - self.files.keys())
        if missing:
            raise ValueError(f"files must list {', '.join(missing)}")
        if self.files.keys() & {MANIFEST, SIGNATURE}:
            raise ValueError(f"files must not list {MANIFEST} or {SIGNATURE}")
        if len({name.lower() for name in self.files}) < len(self.files):
            raise ValueError("files must not hold names that differ only in case")
        if sum(entry.size for entry in self.files.values()) > MAX_TOTAL_BYTES:
            raise ValueError(f"files must be at most {MAX_TOTAL_BYTES} bytes together")
        large = sorted(name for name, entry in self.files.items() if entry.size > self._limit_of(name))
        if large:
            raise ValueError(f"files: {large[0]} must be at most {self._limit_of(large[0])} bytes")
        return self

    def _limit_of(self, name: str) -> int:
        if name == ITEMS:
            return MAX_ITEMS_BYTES
        text = self.model.text
        whole = name in DOCUMENTS or (text is not None and name == text.tokenizer)
        return MAX_DOCUMENT_BYTES if whole else MAX_TOTAL_BYTES

    def required_files(self) -> set[str]:
        """The files that this model cannot do without."""
        text = self.model.text
        parts = {text.graph, text.tokenizer} if text else set()
        graphs = {*self.model.precisions.values(), *(self.model.likes or {}).values()}
        return {ITEMS, *DOCUMENTS, *graphs, *parts}

    def to_bytes(self) -> bytes:
        """The canonical bytes that are written, digested and signed."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


def without_none(written: dict[str, Any], name: str) -> dict[str, Any]:
    """What a serializer wrote, less the field `name` where it is None."""
    return {key: value for key, value in written.items() if key != name or value is not None}


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, one final newline; NaN and infinities are refused (ValueError)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def parse_manifest(data: bytes) -> Manifest:
    """Bytes -> Manifest. Raises UsageError with one line per mistake, GateError for another runtime's bundle."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise UsageError(f"{MANIFEST}: larger than {MAX_MANIFEST_BYTES} bytes (got {len(data)})")
    schema = parse_record(_Schema, data, MANIFEST).schema_
    if schema != SCHEMA:
        raise UsageError(f"{MANIFEST}: schema: this slimrec reads {SCHEMA}, {_other(schema > SCHEMA)} (got {schema})")
    manifest = parse_record(Manifest, data, MANIFEST)
    if manifest.to_bytes() != data:
        raise UsageError(f"{MANIFEST}: not in canonical form (sorted keys, no spaces, one final newline)")
    check_runtime(manifest)
    return manifest


def check_runtime(manifest: Manifest) -> None:
    """Raises GateError where none of this code's `RUNTIMES` is one that the bundle is made for."""
    oldest, newest = RUNTIMES
    asked = manifest.runtime
    if asked.min > newest or asked.max < oldest:
        own = f"{oldest}" if oldest == newest else f"{oldest} to {newest}"
        raise GateError(
            f"{MANIFEST}: runtime: this slimrec is runtime {own}, {_other(asked.min > newest)} "
            f"(got {asked.min} to {asked.max})"
        )


def _other(newer: bool) -> str:
    return f"{'a newer' if newer else 'an older'} one runs this bundle"


def parse_record(record: type[R], data: bytes, where: str) -> R:
    """JSON bytes -> a validated record. Raises UsageError, one line per mistake: `where: field: what (got value)`."""
    try:
        return record.model_validate_json(data)
    except ValidationError as error:
        raise UsageError(validation_lines(error, where)) from None


def validation_lines(error: ValidationError, where: str) -> list[str]:
    """One line per mistake that pydantic found, at most ten of them."""
    lines = []
    for mistake in error.errors(include_url=False)[:10]:
        field = ".".join(str(part) for part in mistake["loc"])
        got = "" if mistake["type"] in ("missing", "json_invalid") else f" (got {shorten(mistake['input'])})"
        lines.append(f"{where}: {field + ': ' if field else ''}{mistake['msg']}{got}")
    return lines


def shorten(value: object, limit: int = 60) -> str:
    """`repr(value)`, cut to `limit` characters: messages stay one line whatever was sent."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def sha256_hex(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()
