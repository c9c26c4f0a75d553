"""A second reader of bundles, written from `docs/BUNDLE.md` alone. It shares no code with `deploy`: where the two
disagree, the page is unclear or one of them is wrong."""

import hashlib
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)
PRECISION = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)
TEMPLATE = re.compile(r"(?:[^{}]|\{\{|\}\}|\{[^{}!:]+\})*")
LISTED = {"items.item", "popular.json", "golden.json", "evidence.json", "provenance.json", "sbom.cdx.json"}
LISTED |= {"card.md", "licences.md"}
MIB, GIB = 1 << 20, 1 << 30


class RefusedError(Exception):
    """The bundle must not be used."""


def must(holds: object, what: str) -> None:
    if not holds:
        raise RefusedError(what)


def read_bundle(archive: bytes, key: Ed25519PublicKey | None = None) -> tuple[str, dict[str, Any], dict[str, bytes]]:
    """Digest, manifest and files of a bundle. Raises RefusedError."""
    files = unpack(archive)
    must("manifest.json" in files, "no manifest")
    data = files.pop("manifest.json")
    signature = files.pop("manifest.sig", None)
    must(signature is None or len(signature) == 64, "a signature has 64 bytes")
    if key is not None:
        must(signature is not None, "not signed")
        try:
            key.verify(signature or b"", data)
        except InvalidSignature:
            raise RefusedError("another key's signature") from None
    manifest = parse(data)
    check(manifest)
    must(files.keys() == manifest["files"].keys(), "other files than listed")
    for name, content in files.items():
        entry = manifest["files"][name]
        must(entry == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}, f"{name} is another")
    return "sha256:" + hashlib.sha256(data).hexdigest(), manifest, files


def unpack(archive: bytes) -> dict[str, bytes]:
    must(len(archive) % 512 == 0 and len(archive) >= 1024, "length")
    body, end = archive[:-1024], archive[-1024:]
    must(not any(end), "the end is 1,024 zero bytes")
    files: dict[str, bytes] = {}
    at, total = 0, 0
    while at < len(body):
        head = body[at : at + 512]
        name = head[:100].rstrip(b"\0").decode("latin-1")
        must(NAME.fullmatch(name), "name")
        must(re.fullmatch(rb"[0-7]{11}", head[124:135]), "size")
        size = int(head[124:135], 8)
        must(head == header(name, size), "header")
        must(not files or name > max(files), "order")
        must(name.lower() not in {known.lower() for known in files}, "case")
        at, total = at + 512, total + size
        padded = -(-size // 512) * 512
        must(at + padded <= len(body), "cut short")
        must(not any(body[at + size : at + padded]), "padding")
        files[name] = body[at : at + size]
        at += padded
        must(len(files) <= 66 and total <= 4 * GIB + MIB + 512, "too much")
    return files


def header(name: str, size: int) -> bytes:
    made = bytearray(512)
    made[: len(name)] = name.encode()
    made[100:108] = b"0000644\0"
    made[108:124] = b"0000000\0" * 2
    made[124:136] = f"{size:011o}".encode() + b"\0"
    made[136:148] = b"0" * 11 + b"\0"
    made[148:156] = b" " * 8
    made[156:157] = b"0"
    made[257:265] = b"ustar\x0000"
    made[148:156] = f"{sum(made):06o}".encode() + b"\0 "
    return bytes(made)


def parse(data: bytes) -> dict[str, Any]:
    must(len(data) <= MIB, "a manifest has at most 1 MiB")
    try:
        manifest = json.loads(data.decode("utf-8"))
        written = canonical(manifest) + "\n"
        must(written.encode("utf-8") == data, "not the one encoding")
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"no manifest: {error}") from None
    must(isinstance(manifest, dict), "a manifest is an object")
    found: dict[str, Any] = manifest
    return found


def canonical(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(name)}:{canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        return quoted(value)
    if value is None:
        return "null"
    must(type(value) is int and value >= 0, "only integers without a sign")
    return str(value)


SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def quoted(text: str) -> str:
    return '"' + "".join(SHORT.get(c, c if c >= " " else f"\\u{ord(c):04x}") for c in text) + '"'


def check(manifest: dict[str, Any]) -> None:
    must(manifest.get("schema") == 1 and type(manifest["schema"]) is int, "schema")
    members(manifest, {"schema", "name", "runtime", "model", "list_separators", "files"})
    must(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}", text(manifest["name"]), re.ASCII), "name")
    runtime = manifest["runtime"]
    members(runtime, {"min", "max"})
    must(count(runtime["min"]) <= count(runtime["max"]), "runtime")
    separators = table(manifest["list_separators"], 0, 64)
    must(all(len(name) <= 256 and 1 <= len(text(value)) <= 8 for name, value in separators.items()), "separators")
    files = table(manifest["files"], 1, 64)
    for name, entry in files.items():
        members(entry, {"sha256", "size"})
        must(NAME.fullmatch(name), "file name")
        must(re.fullmatch(r"[0-9a-f]{64}", text(entry["sha256"])), "sha256")
        must(type(entry["size"]) is int and 0 <= entry["size"] <= 4 * GIB, "size")
    must(len({name.lower() for name in files}) == len(files), "case")
    must(not files.keys() & {"manifest.json", "manifest.sig"}, "lists itself")
    named, tokenizer = model(manifest["model"])
    must(files.keys() >= LISTED | named, "files that must be listed")
    must(sum(entry["size"] for entry in files.values()) <= 4 * GIB, "too large")
    for name in LISTED | tokenizer:
        limit = 2 * GIB if name == "items.item" else 64 * MIB
        must(files[name]["size"] <= limit, f"{name} is too large")
    must(runtime["min"] <= 1 <= runtime["max"], "for another runtime")


def model(section: Any) -> tuple[set[str], set[str]]:
    """The files that the section names; the tokenizer among them."""
    own = {"n_items", "dim", "max_history", "precisions", "default", "text"}
    members(section, own | ({"likes"} if isinstance(section, dict) and "likes" in section else set()))
    for name in ("n_items", "dim", "max_history"):
        count(section[name])
    precisions = table(section["precisions"], 1, 8)
    must(all(PRECISION.fullmatch(name) for name in precisions), "precision")
    must(text(section["default"]) in precisions, "default")
    named = [*precisions.values()]
    if "likes" in section:
        likes = table(section["likes"], 1, 8)
        must(likes.keys() == precisions.keys(), "likes")
        named += likes.values()
    tokenizer = set()
    if section["text"] is not None:
        encoder = section["text"]
        own = {"dim", "graph", "max_tokens", "precision", "tokenizer"}
        members(encoder, own | ({"template"} if isinstance(encoder, dict) and "template" in encoder else set()))
        if "template" in encoder:
            must(len(text(encoder["template"])) <= 1000 and TEMPLATE.fullmatch(encoder["template"]), "template")
        must(PRECISION.fullmatch(text(encoder["precision"])), "precision")
        count(encoder["dim"]), count(encoder["max_tokens"])
        named += [encoder["graph"], encoder["tokenizer"]]
        tokenizer = {text(encoder["tokenizer"])}
    must(all(NAME.fullmatch(text(name)) for name in named), "file name")
    return set(named), tokenizer


def members(value: Any, names: set[str]) -> None:
    must(isinstance(value, dict) and value.keys() == names, f"members {', '.join(sorted(names))}")


def table(value: Any, least: int, most: int) -> dict[str, Any]:
    must(isinstance(value, dict) and least <= len(value) <= most, "an object")
    found: dict[str, Any] = value
    return found


def count(value: Any) -> int:
    must(type(value) is int and 1 <= value < 1 << 31, "a count")
    return int(value)


def text(value: Any) -> str:
    must(isinstance(value, str), "a string")
    return str(value)
