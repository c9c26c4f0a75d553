"""`make fuzz`: a signed bundle damaged thousands of times; all must be refused, with a reason, leaving nothing behind.

`python -m benchmarks.fuzz BUNDLE --key PUB` writes `benchmarks/results/damaged-bundles.{json,md}`.
"""

import os
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import click

from benchmarks.damage import WAYS, damaged
from benchmarks.machine import commit, describe_machine
from benchmarks.result import Machine, Record
from benchmarks.tables import RESULTS
from deploy.bundle import open_bundle
from deploy.errors import GateError, UsageError


class WayRow(Record):
    """One way to damage a bundle: how many were tried, and how each ended.

    malformed and gate: refused with exit code 2, and 3 (digest, signature). consistent: what passes where no key is
    pinned. reasons: how many different ones. crashed and left_behind are of both.
    """

    way: str
    tried: int
    malformed: int
    gate: int
    accepted: int
    consistent: int
    crashed: int
    left_behind: int
    reasons: int
    slowest_ms: float


class Fuzzed(Record):
    """The whole table."""

    bundle_bytes: int
    seed: int
    ways: list[WayRow]
    machine: Machine
    commit: str


@dataclass
class Tally:
    """What one way of damage came to."""

    ends: Counter[str] = field(default_factory=Counter)
    reasons: set[str] = field(default_factory=set)
    slowest: float = 0.0
    examples: list[str] = field(default_factory=list)


def fuzz(archive: bytes, key: Path, cases: int, seed: int) -> Iterator[tuple[str, Tally]]:
    """Damage `archive` `cases` times, the ways in turn, and open each with `key` pinned. Yields each way's tally."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    with tempfile.TemporaryDirectory() as scratch, _at_home_in(Path(scratch)) as room:
        for number in range(cases):
            way = list(WAYS)[number % len(WAYS)]
            data = damaged(archive, way, Random(f"{seed}.{number}"))
            _try(data, key, room, tallies[way], f"{way}, case {number}")
    yield from tallies.items()


def _try(data: bytes, key: Path, room: Path, tally: Tally, what: str) -> None:
    file, into = room / "damaged.slim", room / "into"
    file.write_bytes(data)
    into.mkdir()
    start = time.perf_counter()
    end, reason = _end(file, key, into)
    tally.slowest = max(tally.slowest, time.perf_counter() - start)
    tally.ends[end] += 1
    extra = _swept(room)
    # Whoever pins no key sees a changed manifest parsed: its parser is reached, and may find the forgery consistent.
    end_without, reason_without = _end(file, None, into)
    tally.ends["unsigned " + end_without] += 1
    unpacked = "room/into/" if end_without == "accepted" else "/"
    extra |= {name for name in _swept(room) if not name.startswith(unpacked)}
    tally.reasons |= {_kind(reason), _kind(reason_without)}
    if extra:
        tally.ends["left behind"] += 1
    if end in ("accepted", "crashed") or end_without == "crashed" or extra:
        tally.examples.append(f"{what}: {end} {reason}, without a key {end_without} {reason_without} {sorted(extra)}")
    into.rmdir()


def _end(file: Path, key: Path | None, into: Path) -> tuple[str, str]:
    """How opening it ended, and what was said."""
    try:
        open_bundle(file, key, unpack_to=into)
    except UsageError as error:
        return "malformed", error.lines[0]
    except GateError as error:
        return "gate", error.lines[0]
    except Exception as error:  # anything else is what this command looks for
        return "crashed", repr(error)
    return "accepted", ""


def _kind(reason: str) -> str:
    """A reason without what differs from case to case: where, numbers, digests, what was got."""
    return re.sub(r"\(got .*\)|[0-9a-f]{12}\.\.\.|\d+", "", reason.partition(": ")[2])


def _swept(room: Path) -> set[str]:
    """What lies in and around `room` that should not, by name; then it is gone."""
    found = {path.relative_to(room.parent).as_posix() for path in room.parent.rglob("*")}
    extra = found - {"room", "room/damaged.slim", "room/into"}
    for path in sorted((room.parent / name for name in extra), reverse=True):
        path.unlink() if path.is_file() or path.is_symlink() else path.rmdir()
    return extra


@contextmanager
def _at_home_in(scratch: Path) -> Iterator[Path]:
    """Whatever is written relative to the working, home or temporary folder lands in `scratch`, where it is seen."""
    room = scratch / "room"
    room.mkdir()
    before, folder = {name: os.environ.get(name) for name in ("HOME", "TMPDIR")}, Path.cwd()
    os.environ.update(dict.fromkeys(before, str(scratch)))
    previous, tempfile.tempdir = tempfile.tempdir, str(scratch)
    os.chdir(room)
    try:
        yield room
    finally:
        os.chdir(folder)
        tempfile.tempdir = previous
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def row_of(way: str, tally: Tally) -> WayRow:
    """The table's row."""
    return WayRow(
        way=way,
        tried=sum(tally.ends[end] for end in ("malformed", "gate", "accepted", "crashed")),
        malformed=tally.ends["malformed"],
        gate=tally.ends["gate"],
        accepted=tally.ends["accepted"],
        consistent=tally.ends["unsigned accepted"],
        crashed=tally.ends["crashed"] + tally.ends["unsigned crashed"],
        left_behind=tally.ends["left behind"],
        reasons=len(tally.reasons),
        slowest_ms=round(tally.slowest * 1e3, 1),
    )


def markdown(found: Fuzzed) -> str:
    """A row per way, and their sum."""
    lines = [
        "| damage | tried | malformed (exit 2) | digest or signature (exit 3) | accepted | consistent, no key pinned "
        "| crashed | files left behind | different reasons | slowest ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = ("tried", "malformed", "gate", "accepted", "consistent", "crashed", "left_behind", "reasons")
    for row in found.ways:
        cells = [str(getattr(row, name)) for name in names]
        lines.append(f"| {row.way} | {' | '.join(cells)} | {row.slowest_ms:.1f} |")
    total = [str(sum(getattr(row, name) for row in found.ways)) for name in names[:-1]]
    lines.append(f"| all | {' | '.join(total)} | | {max(row.slowest_ms for row in found.ways):.1f} |")
    lines += [
        "",
        f"A signed bundle of {found.bundle_bytes} bytes, opened with its key pinned and once more without a key, where "
        "only consistent forgeries, and a damaged signature, may pass. "
        f"Seed {found.seed}; "
        f"{found.machine.cpu}, {found.machine.cores} cores; commit {found.commit}. Made by `make fuzz`.",
    ]
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--key", type=click.Path(path_type=Path, exists=True), required=True, help="Public key that signed it.")
@click.option("--cases", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS)
def main(bundle: Path, key: Path, cases: int, seed: int, out: Path) -> None:
    """Damage BUNDLE (an archive) and write the table. Exits with 1 where a damaged bundle was not refused."""
    open_bundle(bundle, key)
    archive = bundle.read_bytes()
    found = list(fuzz(archive, key.absolute(), cases, seed))
    rows = [row_of(way, tally) for way, tally in found]
    table = Fuzzed(bundle_bytes=len(archive), seed=seed, ways=rows, machine=describe_machine(), commit=commit())
    (out / "damaged-bundles.json").write_text(table.model_dump_json(indent=1) + "\n", "utf-8")
    (out / "damaged-bundles.md").write_text(markdown(table), "utf-8")
    examples = [line for _, tally in found for line in tally.examples]
    click.echo(markdown(table))
    for line in examples[:20]:
        click.echo(line, err=True)
    if examples:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
