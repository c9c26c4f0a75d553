"""Counters and latencies in Prometheus' text format (version 0.0.4).

Counters are counted up by workers too, the rest by the event loop alone. What a client library would add here
(registries, push, several processes) a device does not use.
"""

import os
import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metric(ABC):
    """A name, a line of help, and the names of its labels."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name, self.help, self._labels = name, help, tuple(labels)

    @abstractmethod
    def lines(self) -> Iterable[str]:
        """The samples."""

    def _line(self, suffix: str, labels: Sequence[tuple[str, str]], value: float) -> str:
        pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        return f"{self.name}{suffix}{{{pairs}}} {value:.17g}" if pairs else f"{self.name}{suffix} {value:.17g}"


class Counter(Metric):
    """Only grows; one value per combination of labels."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}
        self._adding = threading.Lock()

    def add(self, *labels: str, by: float = 1.0) -> None:
        with self._adding:
            self._values[labels] = self._values.get(labels, 0.0) + by

    def lines(self) -> Iterable[str]:
        for labels, value in self._values.items():
            yield self._line("", list(zip(self._labels, labels, strict=True)), value)


class Histogram(Metric):
    """How many observations were at most so many seconds, their sum and their number."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS) -> None:
        super().__init__(name, help, labels)
        self._buckets = tuple(buckets)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._buckets, seconds)] += 1
        self._sums[labels] += seconds

    def lines(self) -> Iterable[str]:
        for labels, counts in self._counts.items():
            own = list(zip(self._labels, labels, strict=True))
            total = 0
            for bound, count in zip((*self._buckets, None), counts, strict=True):
                total += count
                yield self._line("_bucket", [*own, ("le", "+Inf" if bound is None else f"{bound:g}")], total)
            yield self._line("_sum", own, self._sums[labels])
            yield self._line("_count", own, total)


class Gauge(Metric):
    """What `read` says when asked: labels -> value."""

    kind = "gauge"

    def __init__(self, name: str, help: str, read: Callable[[], float], labels: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(name, help)
        self._read, self._own = read, list(labels)

    def lines(self) -> Iterable[str]:
        yield self._line("", self._own, self._read())


class CpuSeconds(Gauge):
    """A counter that the operating system keeps."""

    kind = "counter"


class ServerMetrics:
    """What this server tells of itself. Paths are those of the contract, never what a caller wrote."""

    def __init__(
        self,
        *,
        taken: Callable[[], float],
        most: int,
        cold_items: Callable[[], float],
        release: Callable[[], str],
    ) -> None:
        """taken: calls that wait or run, of at most `most`."""
        self.requests = Counter("slimrec_requests_total", "Requests answered.", ("method", "path", "status"))
        self.seconds = Histogram("slimrec_request_seconds", "From a request's head to its answer's end.", ("path",))
        self.model_seconds = Histogram("slimrec_model_seconds", "In the queue and in the model.", ("path",))
        self.rejected = Counter("slimrec_rejected_total", "Requests refused: a full queue, or no answer in time.")
        self.answers = Counter("slimrec_recommendations_total", "Recommendations by what made them.", ("source",))
        self.unknown = Counter("slimrec_unknown_ids_total", "Ids that the bundle does not have.")
        self.unkept = Counter("slimrec_feedback_unkept_total", "Shown answers that the feedback log did not take.")
        self._gauges = [
            Gauge("slimrec_queue", "Calls that wait for the model or are in it.", taken),
            Gauge("slimrec_queue_limit", "The most of them.", lambda: float(most)),
            Gauge("slimrec_cold_items", "Items that came after the bundle.", cold_items),
        ]
        self._release, self._process = release, process_metrics()

    def all(self) -> list[Metric]:
        """Everything, to render."""
        counted = [self.requests, self.seconds, self.model_seconds, self.rejected, self.answers, self.unknown]
        release = Gauge("slimrec_release_info", "What answers.", lambda: 1.0, [("release", self._release())])
        return [*counted, self.unkept, *self._gauges, release, *self._process]


def render(metrics: Iterable[Metric]) -> str:
    """All metrics as one page."""
    parts = []
    for metric in metrics:
        parts += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
    return "\n".join(parts) + "\n"


def process_metrics() -> list[Metric]:
    """Memory, CPU time and start of this process, under the names that Prometheus' client libraries use."""
    started = time.time()
    found: list[Metric] = [
        CpuSeconds("process_cpu_seconds_total", "CPU time of all threads.", time.process_time),
        Gauge("process_start_time_seconds", "When the process began to answer.", lambda: started),
    ]
    statm = Path("/proc/self/statm")
    if statm.exists():
        page = os.sysconf("SC_PAGE_SIZE")

        def resident() -> float:
            return float(int(statm.read_text().split()[1]) * page)

        found.append(Gauge("process_resident_memory_bytes", "Memory in RAM.", resident))
    return found


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
