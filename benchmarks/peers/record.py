"""The form of `benchmarks/results/peers-RECIPE.json`: a list of rows, each sealed with what it was made of."""

from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from benchmarks.case_table import CaseRow
from benchmarks.result import Ci95, Comparison, Metrics, NotMeasured, Record
from benchmarks.tables import RESULTS

TIMED_ALONE = "it was hardly trained: only times were asked for"


class Training(Record):
    """How a peer came to its model. `seconds`, `cpu_seconds`: to the end of the best epoch, validations included."""

    settings: dict[str, Any] = Field(description="of the trial that validation chose")
    trials: int
    epoch: int
    epochs: int
    valid_ndcg_10: float | None = Field(alias="valid_ndcg@10")
    seconds: float
    cpu_seconds: float
    all_cpu_seconds: float = Field(description="of all trials, to their ends")
    ended: str
    curve: list[tuple[int, float]] = Field(description="epoch, validation NDCG@10")
    rss_mb: float

    @property
    def cut_short(self) -> bool:
        """Whether its budget ended while it still got better: nothing follows from its accuracy."""
        return "budget" in self.ended and self.epoch == self.epochs


class AgainstOurs(Record):
    """From raw ids to raw ids, the peer and ours in the same rounds, each in a process of its own that times itself.
    `ratio`: the peer's time / ours (above 1: ours is faster), the trimmed geometric mean over rounds."""

    history: int
    k: int
    threads: int
    rounds: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    round_p50_ms: list[float]
    unsettled: int
    ours_p50_ms: float
    ours_p95_ms: float
    ours_round_p50_ms: list[float]
    ratio: float
    ci95: Ci95


class FreshProcesses(Record):
    """Process start to first answer, and the peak resident set then: medians, and every run."""

    cold_start_ms: float
    rss_mb: float
    cold_start_ms_runs: list[float]
    rss_mb_runs: list[float]


class PeerRow(CaseRow):
    """One peer. What is absent is in `not_measured` with the reason."""

    key: str = Field(description="digest of all that the row depends on: a row with another key is measured anew")
    what: str
    environment_mb: float | None = Field(default=None, description="of its environment's files, pip left out")
    python: str | None = None
    packages: dict[str, str] = Field(default={}, description="every distribution of its environment")
    training: Training | None = None
    test: Metrics | None = None
    comparison: Comparison | None = Field(default=None, description="ours - the peer, over the same users")
    latency: AgainstOurs | None = None
    fresh: FreshProcesses | None = None
    size_bytes: int | None = Field(default=None, description="of the model's files")
    not_measured: list[NotMeasured] = Field(default=[])

    @property
    def done(self) -> bool:
        """Whether another try would measure more."""
        return all(missing.why == TIMED_ALONE for missing in self.not_measured)


Rows = TypeAdapter(list[PeerRow])


def results_file(recipe: str) -> Path:
    """Where a recipe's peers are."""
    return RESULTS / f"peers-{Path(recipe).stem}.json"


def read_rows(path: Path) -> list[PeerRow]:
    """The committed rows."""
    return Rows.validate_json(path.read_bytes())
