"""`--against FILE`: this machine now and then, and whether a bundle became slower beyond the noise.

Another machine is not comparable (exit 2). Versions, governor and limits may differ: whether an update made things
slower is a fair question, so they are told and the rest is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.bench.compare import ALPHA
from benchmarks.bench.conditions import Conditions
from benchmarks.bench.record import Against, BenchResult, BenchRow, Change, ProcessRow
from benchmarks.bench.table import change_line
from benchmarks.intervals import holm
from benchmarks.ratios import LogMean, unpaired
from benchmarks.result import Machine
from deploy.errors import GateError, UsageError
from deploy.manifest import parse_record

SAME_MACHINE = ("cpu", "flags", "cores", "system", "gpu")
TOLD = ("governor", "cpu_quota", "memory_limit_mb", "memory_mb")
LARGEST_FILE = 64 << 20


@dataclass(frozen=True)
class Earlier:
    """An earlier `bench --json` of this machine, by the path of the bundle it is held against."""

    file: Path
    tolerance: float
    results: dict[str, BenchResult]

    @classmethod
    def read(cls, file: Path, machine: Machine, paths: Sequence[str], conditions: Conditions) -> "Earlier":
        """Raises UsageError where FILE is no such result, is of another machine or says nothing of these bundles under
        these conditions."""
        found = [parse_record(BenchResult, line, f"{file}: line {number}") for number, line in _lines(file)]
        if not found:
            raise UsageError(f"{file}: holds no result; `slimrec bench ... --json > {file.name}` writes one")
        results = {result.bundle.path: result for result in found}
        if len(found) == len(paths) == 1:
            results = {paths[0]: found[0]}  # a release lies elsewhere than the one before it
        missing = [f"{file}: has no row of this bundle (got {path})" for path in paths if path not in results]
        missing += [line for result in found for line in _other_machine(file, result.machine, machine)]
        if missing:
            raise UsageError(dict.fromkeys(missing))
        rows = [row for path in paths for row in results[path].latency]
        if not any(row.round_p50_ms and _asked(row, conditions) for row in rows):
            raise UsageError(
                f"{file}: has no row of these threads, batches, lengths and catalogue sizes, with its rounds"
            )
        return cls(file, conditions.tolerance, results)

    def beside(self, results: Sequence[BenchResult]) -> list[BenchResult]:
        """The same results, each with what changed."""
        return [
            result.model_copy(update={"against": compare(self.results[result.bundle.path], result, self)})
            for result in results
        ]

    def refuse_regressions(self, results: Sequence[BenchResult]) -> None:
        """Raises GateError, a line per number that became worse."""
        worse = [
            f"{result.bundle.path}: {change_line(change)}"
            for result in results
            if result.against is not None
            for change in result.against.worse
        ]
        if worse:
            raise GateError(worse)


def compare(then: BenchResult, now: BenchResult, earlier: Earlier) -> Against:
    """Every number that both have. Latency and load are judged as they are and divided by the yardstick: a machine that
    is slower altogether made no bundle slower."""
    yards = [result.method.yardstick_ms if result.method else [1.0, 1.0] for result in (then, now)]
    pairs: list[_Pair] = []
    old_rows = {_key(row): row for row in then.latency if len(row.round_p50_ms) > 1}
    for row in now.latency:
        if (old := old_rows.get(_key(row))) is not None:
            pairs.append(_Pair.of_rows(old, row, yards))
    old_processes = {(one.device, one.precision, one.threads, one.items): one for one in then.processes}
    for process in now.processes:
        before = old_processes.get((process.device, process.precision, process.threads, process.items))
        if before is not None and min(len(before.rss_mb_runs), len(process.rss_mb_runs)) > 1:
            pairs += _Pair.of_processes(before, process, yards)
    worst = 1 + earlier.tolerance
    p_worse = holm([max(ratio.p_above(worst) for ratio in pair.ratios) for pair in pairs])
    p_slower = holm([pair.ratios[0].p_above(worst) for pair in pairs])
    p_better = holm([max(ratio.p_below(1 / worst) for ratio in pair.ratios) for pair in pairs])
    changes = [
        Change.model_validate(
            {
                **pair.facts,
                "ratio": pair.ratios[0].ratio,
                "ci95": pair.ratios[0].interval(),
                "p_holm": worse,
                "verdict": _verdict(worse, slower, better),
            }
        )
        for pair, worse, slower, better in zip(pairs, p_worse, p_slower, p_better, strict=True)
    ]
    return Against(
        file=str(earlier.file),
        digest=then.bundle.digest,
        tolerance=earlier.tolerance,
        yardstick_ratio=median(yards[1]) / median(yards[0]),
        changes=changes,
        notes=_notes(then, now, len(now.latency) - sum(pair.facts["what"] == "p50_ms" for pair in pairs)),
    )


def _verdict(worse: float, slower: float, better: float) -> str:
    """From Holm's p-values, the gravest first."""
    told = {"worse": worse, "slower machine": slower, "better": better}
    return next((verdict for verdict, p in told.items() if p < ALPHA), "tie")


@dataclass(frozen=True)
class _Pair:
    """A number's name, then and now, and the ratios that must all be worse: as it is, and by the yardstick."""

    facts: dict[str, object]
    ratios: list[LogMean]

    @classmethod
    def of_rows(cls, then: BenchRow, now: BenchRow, yards: Sequence[Sequence[float]]) -> "_Pair":
        names = ("device", "precision", "threads", "batch", "history", "items")
        facts = {name: getattr(now, name) for name in names}
        facts |= {"what": "p50_ms", "then": then.p50_ms, "now": now.p50_ms}
        old, new = np.array(then.round_p50_ms), np.array(now.round_p50_ms)
        by_yard = unpaired(new / _of_rounds(yards[1], new), old / _of_rounds(yards[0], old))
        return cls(facts, [unpaired(new, old), by_yard])

    @classmethod
    def of_processes(cls, then: ProcessRow, now: ProcessRow, yards: Sequence[Sequence[float]]) -> "list[_Pair]":
        facts = {name: getattr(now, name) for name in ("device", "precision", "threads", "items")}
        memory = facts | {"what": "rss_mb", "then": then.rss_mb, "now": now.rss_mb}
        load = facts | {"what": "load_ms", "then": then.load_ms, "now": now.load_ms}
        old, new = np.array(then.load_ms_runs), np.array(now.load_ms_runs)
        by_yard = unpaired(new / median(yards[1]), old / median(yards[0]))
        return [
            cls(memory, [unpaired(now.rss_mb_runs, then.rss_mb_runs)]),
            cls(load, [unpaired(new, old), by_yard]),
        ]


def _of_rounds(yard: Sequence[float], rounds: ArrayLike) -> ArrayLike:
    """The yardstick round by round, or its median where there are not as many."""
    return yard if len(yard) == np.size(rounds) else median(yard)


def _key(row: BenchRow) -> tuple[object, ...]:
    return row.device, row.precision, row.threads, row.batch, row.history, row.items, row.k


def _asked(row: BenchRow, conditions: Conditions) -> bool:
    return (
        row.k == conditions.k
        and row.threads in conditions.threads
        and row.batch in conditions.batch
        and (not conditions.history or row.history in conditions.history)
        and (not conditions.items or row.items in conditions.items)
    )


def _lines(file: Path) -> list[tuple[int, bytes]]:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{file}: larger than {LARGEST_FILE >> 20} MB (got {file.stat().st_size >> 20})")
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror or error})") from None
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _other_machine(file: Path, then: Machine, now: Machine) -> list[str]:
    return [
        f"{file}: measured on another machine: {name} must be {getattr(now, name)!r} (got {getattr(then, name)!r})"
        for name in SAME_MACHINE
        if getattr(then, name) != getattr(now, name)
    ]


def _notes(then: BenchResult, now: BenchResult, unmatched: int) -> list[str]:
    old, new = then.machine, now.machine
    notes = [] if then.bundle.digest == now.bundle.digest else ["the bundle is another than then"]
    notes += [
        f"{name}: {getattr(old, name)} then, {getattr(new, name)} now"
        for name in TOLD
        if getattr(old, name) != getattr(new, name)
    ]
    names = sorted(old.versions.keys() | new.versions.keys())
    notes += [
        f"{name}: {old.versions.get(name, 'absent')} then, {new.versions.get(name, 'absent')} now"
        for name in names
        if old.versions.get(name) != new.versions.get(name)
    ]
    if unmatched:
        notes.append(f"{unmatched} row(s) were not measured then")
    return notes
