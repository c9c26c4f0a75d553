"""Ways to damage a bundle's archive, from a flipped bit to what an attacker writes. Seeded; bytes in, bytes out.

Attackers here write whatever they like but cannot sign: manifests are changed with all else made to agree, and keep the
old signature. Formats are spelled out instead of taken from `deploy`, whose writer would refuse to write them.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

BLOCK = 512
Files = dict[str, bytes]
Way = Callable[[bytes, Random], bytes]

OUTSIDE = (
    "../escaped",
    "/escaped",
    "a/../../escaped",
    "./escaped",
    "..",
    ".",
    "folder/escaped",
    ".hidden",
    "a\\b",
    "C:x",
)
NAMES = (*OUTSIDE, "a b", "a\nb", "é", "", "x" * 101, "manifest.json\0x", "-rf", "~", "con:", "a%2fb")
SPECIAL = "123456567SLKNVgxXDM7\0"
"""Types of ustar, GNU and POSIX entries that are not plain files: links, devices, folders, sparse, long names."""


def damaged(archive: bytes, way: str, rng: Random) -> bytes:
    """`archive` damaged in one of `WAYS`; never the same bytes."""
    while (found := WAYS[way](archive, rng)) == archive:
        pass
    return found


def flip_bits(archive: bytes, rng: Random) -> bytes:
    """One to sixteen bits anywhere."""
    out = bytearray(archive)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        position = rng.randrange(len(out) * 8)
        out[position // 8] ^= 1 << position % 8
    return bytes(out)


def overwrite(archive: bytes, rng: Random) -> bytes:
    """A run of bytes becomes noise, zeros or a copy of another place."""
    length = rng.choice((1, 4, 64, BLOCK, 4096))
    at, other = rng.randrange(len(archive)), rng.randrange(len(archive))
    length = min(length, len(archive) - at)
    what = rng.choice((rng.randbytes(length), bytes(length), archive[other : other + length]))
    return archive[:at] + what + archive[at + len(what) :]


def truncate(archive: bytes, rng: Random) -> bytes:
    """Cut short: anywhere, or at a block."""
    cut = rng.randrange(len(archive))
    return archive[: cut // BLOCK * BLOCK if rng.random() < 0.5 else cut]


def append(archive: bytes, rng: Random) -> bytes:
    """Something after the end: zeros, noise, another entry, the archive once more."""
    tail = rng.choice((b"\0", bytes(BLOCK), bytes(10_240 - BLOCK), rng.randbytes(BLOCK), _entry("z", b"more"), archive))
    return archive + tail


def move_blocks(archive: bytes, rng: Random) -> bytes:
    """Blocks of 512 bytes dropped, doubled, swapped or put in."""
    blocks = [archive[i : i + BLOCK] for i in range(0, len(archive), BLOCK)]
    a, b = rng.randrange(len(blocks)), rng.randrange(len(blocks))
    match rng.randrange(4):
        case 0:
            del blocks[a]
        case 1:
            blocks.insert(b, blocks[a])
        case 2:
            blocks[a], blocks[b] = blocks[b], blocks[a]
        case _:
            blocks.insert(a, rng.choice((bytes(BLOCK), rng.randbytes(BLOCK))))
    return b"".join(blocks)


def hostile_entry(archive: bytes, rng: Random) -> bytes:
    """An entry more, well-formed as tar has it: a path out of the folder, a link, a device, a second name, a bomb."""
    files = entries(archive)
    target = rng.choice(("/etc/passwd", "../escaped", "manifest.json", ""))
    match rng.randrange(5):
        case 0:
            more = _entry(rng.choice(NAMES), b"x" * rng.choice((0, 1, 600)))
        case 1:
            more = _entry(rng.choice((*NAMES, "link")), b"", type=rng.choice(SPECIAL).encode(), linkname=target)
        case 2:
            name = rng.choice(sorted(files))
            more = _entry(rng.choice((name, name.upper(), name.title())), rng.choice((files[name], b"another")))
        case 3:
            more = _sized(rng.choice(("bomb", *files)), rng.choice((1 << 32, (8 << 30) - 1, len(archive), 1)))
        case _:
            fields = {"mode": 0o4755, "uid": 1, "gid": 1, "mtime": 1, "uname": "root", "gname": "root"}
            field = rng.choice(sorted(fields))
            more = _entry("extra", b"x", **{field: fields[field]})
    whole = [_entry(name, data) for name, data in files.items()]
    whole.insert(rng.randrange(len(whole) + 1), more)
    return b"".join(whole) + bytes(2 * BLOCK)


def header_field(archive: bytes, rng: Random) -> bytes:
    """One field of one header becomes something else, its checksum made right again."""
    starts, at = [], 0
    for data in entries(archive).values():
        starts.append(at)
        at += BLOCK + len(data) + -len(data) % BLOCK
    start = rng.choice(starts)
    head = bytearray(archive[start : start + BLOCK])
    place, length = rng.choice(
        ((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (265, 64))
    )
    length = rng.randint(1, length)
    head[place : place + length] = rng.choice(
        (rng.randbytes(length), b"\xff" * length, b" " * length, b"7" * length, b"-1".ljust(length, b"\0")[:length])
    )
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return archive[:start] + bytes(head) + archive[start + BLOCK :]


def replace_file(archive: bytes, rng: Random) -> bytes:
    """A file is changed, left out, renamed or put in; the manifest says what it said."""
    files = entries(archive)
    name = rng.choice(sorted(files))
    match rng.randrange(4):
        case 0:
            files[name] = flip_bits(files[name], rng) if files[name] else b"x"
        case 1:
            del files[name]
        case 2:
            files[f"{name}.old"] = files.pop(name)
        case _:
            files["zz.extra"] = rng.randbytes(rng.choice((0, 10, 1000)))
    return archived(files)


def forge(archive: bytes, rng: Random) -> bytes:
    """A file is changed and the manifest agrees with it; only the signature does not."""
    files = entries(archive)
    document = json.loads(files["manifest.json"])
    name = rng.choice(sorted(document["files"]))
    files[name] = rng.choice((b"", b"{}", files[name] + b"\n", flip_bits(files[name] or b"x", rng)))
    document["files"][name] = {"sha256": hashlib.sha256(files[name]).hexdigest(), "size": len(files[name])}
    files["manifest.json"] = _canonical(document)
    return archived(files)


def manifest_text(archive: bytes, rng: Random) -> bytes:
    """The manifest says the same, or nearly, in other bytes; or it is no manifest."""
    files = entries(archive)
    data = files["manifest.json"]
    document: dict[str, Any] = json.loads(data)
    match rng.randrange(8):
        case 0:
            data = json.dumps(document, indent=rng.choice((None, 1)), sort_keys=rng.random() < 0.5).encode()
        case 1:
            data = rng.choice((data[:-1], data + b"\n", b"\xef\xbb\xbf" + data, b" " + data, data[:-1] + b"\r\n"))
        case 2:
            data = data.replace(b'{"', b'{"schema":1,"', 1)
        case 3:
            data = rng.choice((b"", b"null", b"[]", b"{}", b"[" * 50_000, b'{"a":' * 50_000, b"1e999999", b"\xff\xfe"))
        case 4:
            data = data.replace(
                b'"schema":1', rng.choice((b'"schema":2', b'"schema":1.0', b'"schema":true', b'"schema":-1'))
            )
        case 5:
            data = _canonical(_changed(document, rng))
        case 6:
            data = b" " * (1 << 20) + data
        case _:
            data = data.replace(b"e", rng.choice((b"\\u0065", b"\\ud800", b"\x00", b"\xc3")), 1)
    files["manifest.json"] = data
    return archived(files)


def signature(archive: bytes, rng: Random) -> bytes:
    """No signature, another one, one of another length, one whose number is written another way."""
    files = entries(archive)
    own = files.get("manifest.sig", bytes(64))
    order = (1 << 252) + 27742317777372353535851937790883648493
    wrapped = own[:32] + ((int.from_bytes(own[32:], "little") + order) % (1 << 256)).to_bytes(32, "little")
    files["manifest.sig"] = rng.choice(
        (bytes(64), rng.randbytes(64), own[:-1], own + b"\0", b"", own[32:] + own[:32], flip_bits(own, rng), wrapped)
    )
    if rng.random() < 0.2:
        del files["manifest.sig"]
    return archived(files)


def noise(_archive: bytes, rng: Random) -> bytes:
    """No archive at all, or another kind of one."""
    start = rng.choice(
        (
            b"",
            b"PK\x03\x04",
            b"\x1f\x8b\x08",
            b"BZh9",
            b"\x28\xb5\x2f\xfd",
            b"\x7fELF",
            b"{",
            bytes(257) + b"ustar\x0000",
        )
    )
    return start + rng.randbytes(rng.choice((0, 1, 511, 512, 5000)))


WAYS: Mapping[str, Way] = {
    "bits flipped": flip_bits,
    "bytes overwritten": overwrite,
    "cut short": truncate,
    "something appended": append,
    "blocks moved": move_blocks,
    "hostile entry": hostile_entry,
    "header field changed": header_field,
    "file replaced": replace_file,
    "forged manifest": forge,
    "manifest rewritten": manifest_text,
    "signature changed": signature,
    "not an archive": noise,
}


def entries(archive: bytes) -> Files:
    """The files of a sound archive."""
    files, at = {}, 0
    while archive[at]:
        size = int(archive[at + 124 : at + 135], 8)
        files[archive[at : at + 100].rstrip(b"\0").decode()] = archive[at + BLOCK : at + BLOCK + size]
        at += BLOCK + size + -size % BLOCK
    return files


def archived(files: Files) -> bytes:
    """The archive of these files, in order: canonical where their names are."""
    return b"".join(_entry(name, files[name]) for name in sorted(files)) + bytes(2 * BLOCK)


def _entry(name: str, content: bytes, **fields: Any) -> bytes:
    return _sized(name, len(content), **fields) + content + bytes(-len(content) % BLOCK)


def _sized(name: str, size: int, **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT if len(name) > 100 else tarfile.USTAR_FORMAT, errors="surrogateescape")


def _changed(document: dict[str, Any], rng: Random) -> dict[str, Any]:
    """One value of the document, at any depth, becomes another."""
    value: Any = rng.choice((None, -1, 0, 1 << 70, "", "../escaped", "x" * 300, [], {}, True, 1.5, "fp32"))
    where: Any = document
    while True:
        key = rng.choice(sorted(where))
        if rng.random() < 0.1:
            where[rng.choice(("extra", "../escaped", "manifest.json"))] = value
            return document
        if isinstance(where[key], dict) and where[key] and rng.random() < 0.8:
            where = where[key]
            continue
        if rng.random() < 0.2:
            del where[key]
        else:
            where[key] = value
        return document


def _canonical(document: Any) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"
