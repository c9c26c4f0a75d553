"""What was measured beside a run: the bundle on a device (`slimrec bench --json`), peers on the same data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from benchmarks.bench.record import BenchResult
from benchmarks.peers.record import PeerRow as Recorded
from benchmarks.peers.record import Rows, results_file
from benchmarks.result import NotMeasured, Record, Result
from deploy.errors import UsageError


class PeerRow(Record):
    """Another library's model on the same data, split and machine, from ids to ids."""

    name: str
    version: str = ""
    ndcg: float | None = Field(default=None, description="test NDCG@10")
    p50_ms: float | None = None
    bytes: int | None = Field(default=None, description="of the model on disk")
    install_mb: float | None = Field(default=None, description="of the environment that answers")
    rss_mb: float | None = None
    cold_s: float | None = Field(default=None, description="process start to first answer")
    not_measured: list[NotMeasured] = Field(default=[])


@dataclass(frozen=True)
class Extras:
    """`bench`: one record per bundle."""

    bench: Sequence[BenchResult] = ()
    peers: Sequence[PeerRow] = ()


def beside(result: Result) -> Extras:
    """What is committed of the recipe's peers, where it was measured on the same data."""
    path = results_file(result.recipe)
    rows = _recorded(path) if path.is_file() else []
    return Extras(peers=[_shown(row) for row in rows if row.dataset == result.dataset])


def read_bench(path: Path) -> list[BenchResult]:
    """What `slimrec bench --json` printed, a line per bundle. Raises UsageError."""
    lines = [line for line in _text("--bench", path).splitlines() if line.startswith("{")]
    try:
        return [BenchResult.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise UsageError(f"--bench: not what `slimrec bench --json` prints ({_first(error)}; got {path})") from None


def read_peers(path: Path, result: Result) -> list[PeerRow]:
    """What `make bench-peers` wrote. Raises UsageError, too where it is of other data than `result`."""
    rows = _recorded(path)
    others = {row.dataset.name for row in rows if row.dataset != result.dataset}
    if others:
        raise UsageError(f"--peers: measured on other data than this run, {', '.join(sorted(others))} (got {path})")
    return [_shown(row) for row in rows]


def _shown(row: Recorded) -> PeerRow:
    """Its version is that of the distribution whose name the row's begins with. What a training that was cut short
    ranked says nothing of the library: left out."""
    words = [row.name, *(row.name[:at] for at, letter in enumerate(row.name) if letter in " -_")]
    versions = [row.packages[word] for word in words if word in row.packages]
    settled = row.training is None or not row.training.cut_short
    return PeerRow(
        name=row.name,
        version=versions[0] if versions else "",
        ndcg=row.test.ndcg_10 if row.test and settled else None,
        p50_ms=row.latency.p50_ms if row.latency else None,
        bytes=row.size_bytes,
        install_mb=row.environment_mb,
        rss_mb=row.fresh.rss_mb if row.fresh else None,
        cold_s=row.fresh.cold_start_ms / 1e3 if row.fresh else None,
        not_measured=row.not_measured,
    )


def _recorded(path: Path) -> list[Recorded]:
    try:
        return Rows.validate_json(_text("--peers", path))
    except ValidationError as error:
        raise UsageError(f"--peers: not what `make bench-peers` writes ({_first(error)}; got {path})") from None


def _text(option: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: cannot be read ({error}; got {path})") from None


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
