"""What was measured beside a run: the bundle on a device (`slimrec bench --json`), peers on the same data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from benchmarks.bench.record import BenchResult
from benchmarks.result import Record
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


@dataclass(frozen=True)
class Extras:
    """`bench`: one record per bundle."""

    bench: Sequence[BenchResult] = ()
    peers: Sequence[PeerRow] = ()


def read_bench(path: Path) -> list[BenchResult]:
    """What `slimrec bench --json` printed, a line per bundle. Raises UsageError."""
    lines = [line for line in _text("--bench", path).splitlines() if line.startswith("{")]
    try:
        return [BenchResult.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise UsageError(f"--bench: not what `slimrec bench --json` prints ({_first(error)}; got {path})") from None


def read_peers(path: Path) -> list[PeerRow]:
    """A JSON list of rows, or an object that holds one under `rows`. Raises UsageError."""
    try:
        found = json.loads(_text("--peers", path))
        rows = found["rows"] if isinstance(found, dict) and "rows" in found else found
        return TypeAdapter(list[PeerRow]).validate_python(rows)
    except json.JSONDecodeError as error:
        raise UsageError(f"--peers: not JSON ({error}; got {path})") from None
    except ValidationError as error:
        raise UsageError(f"--peers: not rows of peers ({_first(error)}; got {path})") from None


def _text(option: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: cannot be read ({error}; got {path})") from None


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
