"""Checksummed lines: 16 hex digits, a space, a payload without line feeds, one line feed.

The digits are BLAKE2b-64 of the payload (RFC 7693, digest of 8 bytes), in lower case. A line that was cut or changed is
seen to be, except with a chance of 2^-64; the next line feed is where reading goes on.
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

DIGITS = 16
MAX_LINE = 2 << 20


def encode_line(payload: bytes) -> bytes:
    """The line that holds `payload`. Raises ValueError where it has a line feed or is too long to be read back."""
    line = b"%s %s\n" % (_digits(payload), payload)
    if b"\n" in payload or len(line) > MAX_LINE:
        raise ValueError(f"a line holds at most {MAX_LINE - DIGITS - 2} bytes and no line feed (got {len(payload)})")
    return line


def decode_line(line: bytes) -> bytes | None:
    """The payload of a whole line, its line feed included; None where the line is not as it was written."""
    if line[-1:] != b"\n" or line[DIGITS : DIGITS + 1] != b" ":
        return None
    payload = line[DIGITS + 1 : -1]
    # The digits as bytes: read as a number, "A" would pass for "a".
    return payload if _digits(payload) == line[:DIGITS] else None


def scan_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(place after the line, its payload or None) of every line from the stream's place on.

    Whatever the bytes are: nothing is raised, and at most `MAX_LINE` of them are held at a time. A last piece without a
    line feed counts as a damaged line.
    """
    place = stream.tell()
    while line := stream.readline(MAX_LINE):
        place += len(line)
        payload = decode_line(line)
        while line and line[-1:] != b"\n":
            line = stream.readline(MAX_LINE)
            place += len(line)
        yield place, payload


def _digits(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=DIGITS // 2).hexdigest().encode()
