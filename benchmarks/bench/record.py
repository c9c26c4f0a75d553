"""The form of `bench --json`: DESIGN's rows, with what tells how far they can be trusted beside them."""

from typing import Literal

from pydantic import Field

from benchmarks.result import BundleInfo, LatencyRow, Machine, NotMeasured, Record

Verdict = Literal["faster", "tie", "slower"]
Interval = tuple[float, float]


class Floor(Record):
    """What the graph needs at least: its weights read once, its products multiplied out, at the machine's own rates.
    Activations, the search for the top k and the id map are left out, so that it is a lower bound."""

    bytes_read: int = Field(description="of weights, once per call; of a table that is looked up, the rows")
    flops: int = Field(description="2 per multiply-add of floating-point products")
    int8_ops: int = Field(description="the same of integer products")
    floor_ms: float
    bound: Literal["memory", "arithmetic"]
    times_floor: float = Field(description="p50 / floor")


class BenchRow(LatencyRow):
    """A cell of the grid."""

    round_p50_ms: list[float] = Field(default=[], description="each round's median: what intervals are made of")
    noise: float | None = Field(
        default=None, description="relative half-width of the 95 % interval of the rounds' trimmed mean (Student, logs)"
    )
    unsettled: int = Field(default=0, description="rounds whose warm-up ended before the times had settled")
    size_bytes: int | None = Field(default=None, description="of the graph")
    graph_ms: float | None = Field(default=None, description="median of the graph alone, all its data on the device")
    times_graph: float | None = Field(default=None, description="the row's time / the graph's, round by round")
    times_graph_ci95: Interval | None = None
    floor: Floor | None = None
    device_ms: float | None = Field(default=None, description="a call's kernels and copies, as the device timed them")
    copy_ms: float | None = Field(default=None, description="of it, copies between host and device")
    nodes: dict[str, int] = Field(default={}, description="the graph's nodes by the provider that ran them")


class Side(Record):
    """One of two that are compared; `bundle` is its path."""

    bundle: str
    precision: str
    device: str
    threads: int


class LatencyComparison(Record):
    """`a` against `b` on the same work. `ratio`: time of b / time of a (above 1: a is faster), the trimmed geometric
    mean over rounds. `p` is of "they differ by no more than the tolerance", `p_holm` the same over all comparisons of
    the run; `verdict` is of a, and a tie unless `p_holm` is below .05."""

    a: Side
    b: Side
    batch: int
    history: int
    items: int
    ratio: float
    ci95: Interval
    p: float
    p_holm: float
    verdict: Verdict


class ProcessRow(Record):
    """Fresh processes that open the bundle and answer once: medians, and every run. Memory is MB (10^6 bytes)."""

    device: str
    precision: str
    threads: int
    items: int
    rss_mb: float
    load_ms: float
    rss_mb_runs: list[float]
    load_ms_runs: list[float]
    device_memory_mb: float | None = Field(default=None, description="what the GPU had in use more than before")


class Roof(Record):
    """The machine's own rates on some threads."""

    threads: int
    gb_per_s: dict[str, float] = Field(description="bytes read again and again -> 10^9 bytes per second")
    gflops: float = Field(description="numpy's fp32 matrix product")
    int8_gops: float | None = Field(default=None, description="ONNX Runtime's integer matrix product")


class Method(Record):
    """How the rows were timed."""

    rounds: int
    max_seconds: float
    max_runs: int
    seed: int
    tolerance: float = Field(description="the relative difference up to which times count as the same")
    warm_up: str
    yardstick_ms: list[float] = Field(description="each round's median of the same piece of work, for `--against`")
    busy_elsewhere: float | None = Field(
        default=None, description="share of the machine's CPU time that other processes took meanwhile"
    )
    steal: float | None = Field(default=None, description="share that the hypervisor gave to others")


class Change(Record):
    """One number now against the earlier result. `ratio`: now / then; `verdict` is of now. Times are judged twice, as
    they are and by the yardstick: where only the former are worse, the machine is slower and not the bundle."""

    what: Literal["p50_ms", "rss_mb", "load_ms"]
    device: str
    precision: str
    threads: int | None = None
    batch: int | None = None
    history: int | None = None
    items: int
    then: float
    now: float
    ratio: float
    ci95: Interval
    p_holm: float = Field(description="of a slow-down beyond the tolerance")
    verdict: Literal["better", "tie", "worse", "slower machine"]


class Against(Record):
    """What `--against FILE` found."""

    file: str
    digest: str = Field(description="of the bundle then")
    tolerance: float
    yardstick_ratio: float = Field(description="now / then")
    changes: list[Change]
    notes: list[str] = Field(default=[], description="what else differs: versions, governor, limits")

    @property
    def worse(self) -> list[Change]:
        return [change for change in self.changes if change.verdict == "worse"]


class BenchResult(Record):
    """What `bench --json` prints, one line per bundle. `rss_mb` and `load_ms` are those of the default precision on the
    first catalogue and device; `comparisons` those that the bundle is part of."""

    version: Literal[1] = Field(default=1, alias="schema")
    bundle: BundleInfo
    machine: Machine
    latency: list[BenchRow]
    rss_mb: float | None = None
    load_ms: float | None = None
    processes: list[ProcessRow] = Field(default=[])
    comparisons: list[LatencyComparison] = Field(default=[])
    roofs: list[Roof] = Field(default=[])
    method: Method | None = None
    against: Against | None = None
    commit: str = ""
    not_measured: list[NotMeasured] = Field(default=[])
