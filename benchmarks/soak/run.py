"""The order of a soak: saturation, half of it, overload, the mixture with releases changing, a stop under load."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import CpuTime, commit, describe_machine
from benchmarks.result import Machine, Record
from benchmarks.soak.contract import Contract, check_contract
from benchmarks.soak.device import Device, Generator, Memory, Server, prepare, serving
from benchmarks.soak.load import BATCH, Found, Operation, Phase
from deploy.bundle import open_bundle
from deploy.feedback.reader import Damage, read
from deploy.feedback.records import Shown

MIXTURE: dict[Operation, float] = {
    "recommend": 0.93,
    "feedback": 0.03,
    "batch": 0.01,
    "search": 0.01,
    "add_item": 0.01,
    "remove_item": 0.01,
}
OPEN_CONNECTIONS = 64


@dataclass(frozen=True)
class Plan:
    """How long a soak is. requests: of each phase at most; None where seconds bound it. changes: of the active
    release, alternately an activation and a rollback, in as many stretches of the mixture. callers: connections that
    are tried for saturation."""

    saturation_s: float = 5.0
    half_s: float = 120.0
    overload_s: float = 30.0
    mixed_s: float = 400.0
    changes: int = 8
    callers: Sequence[int] = (1, 2, 4, 8, 16, 32)
    overload_callers: int = 256
    requests: int | None = None
    examples: int = 200
    """Of each operation, that schemathesis makes up; 0 leaves it out."""


class Change(Record):
    """`slimrec release ...` while requests are answered; seconds: of the command alone."""

    command: str
    release: str
    seconds: float


class Flatness(Record):
    """Least-squares line through `samples` of the resident set, one a second, after every kind of request was answered
    and every release was opened once. grown: what the line rises by over the window, as a share of its mean."""

    samples: int
    seconds: float
    requests: int
    mean_mb: float
    first_mb: float
    peak_mb: float
    slope_mb_per_hour: float
    grown: float
    bytes_per_request: float


class Kept(Record):
    """The feedback log afterwards. acknowledged: events that were answered as stored; missing: of them, not in the log.
    shown: answers in the log, of `recommended` that were given; unkept: that the server said it could not log."""

    acknowledged: int
    missing: int
    events: int
    shown: int
    recommended: int
    unkept: int
    damaged_lines: int
    log_mb: float


class Soaked(Record):
    """What was seen, before it is judged. idle_mb: the resident set after the first answer, the text encoder not yet
    used. first_answer_s: from the start of `slimrec serve` to its first answer. statuses: of all answers but those of
    the last phase, as the server counted them. real_time: whether server and load generator ran before all other work
    (`chrt`), as on an idle machine. said: the server's own log, which has what it warns of."""

    bundle: str
    items: int
    phases: list[Found]
    saturation_per_second: float
    saturation_callers: int
    changes: list[Change]
    memory: Flatness
    memory_seconds: list[float]
    memory_mb: list[float]
    idle_mb: float
    first_answer_s: float
    exit_code: int
    statuses: dict[str, int]
    said: list[str]
    kept: Kept
    contract: Contract | None
    real_time: bool
    busy_elsewhere: float | None
    steal: float | None
    machine: Machine
    commit: str


def soak(
    bundle: Path, plan: Plan, schemathesis: str | None = None, progress: Callable[[str], object] = print
) -> Soaked:
    """Run it. schemathesis: the command, where it is to be asked. Raises SlimrecError where it cannot start."""
    before = CpuTime.now()
    with tempfile.TemporaryDirectory(prefix="slimrec-soak-") as scratch:
        device = prepare(bundle, Path(scratch) / "device")
        log = Path(scratch) / "server.log"
        with serving(device, log) as server, Generator(server, device, bundle) as generator:
            idle = server.memory.mb[0]

            def run(name: str, connections: int, seconds: float, rate: float | None = None) -> Found:
                phase = Phase(name=name, connections=connections, seconds=seconds, rate=rate, requests=plan.requests)
                found = generator.run(phase)
                progress(_line(found))
                return found

            # The first phase warms up, and counts for nothing but lost requests.
            phases = [run("warm-up", plan.callers[0], plan.saturation_s)]
            tried = [run("saturation", callers, plan.saturation_s) for callers in plan.callers]
            best = max(tried, key=lambda found: found.recommended_per_second)
            rate = best.recommended_per_second / 2
            phases += [*tried, run("half of saturation", OPEN_CONNECTIONS, plan.half_s, rate)]
            phases.append(run("overload", plan.overload_callers, plan.overload_s))
            mixed, changes, window = _mixture(generator, server, device, plan, rate, progress)
            phases += mixed
            contract = None
            if schemathesis is not None and plan.examples:
                contract = check_contract(schemathesis, server.port, Path(scratch), plan.examples)
                progress(f"schemathesis: {contract.cases} cases, {'passed' if contract.passed else 'failed'}")
            unkept = int(server.metric("slimrec_feedback_unkept_total"))
            statuses = server.statuses()
            phases.append(_stop(generator, server))
            progress(_line(phases[-1]))
            exit_code = server.process.wait(60)
        after = CpuTime.now()
        elsewhere, steal = after.since(before) if before and after else (None, None)
        opened = open_bundle(bundle)
        return Soaked(
            bundle=opened.release,
            items=opened.manifest.model.n_items,
            phases=phases,
            saturation_per_second=round(best.recommended_per_second, 1),
            saturation_callers=best.connections,
            changes=changes,
            memory=window,
            memory_seconds=server.memory.seconds,
            memory_mb=server.memory.mb,
            idle_mb=idle,
            first_answer_s=round(server.first_answer_s, 3),
            exit_code=exit_code,
            statuses=statuses,
            said=log.read_text("utf-8").splitlines()[:50],
            kept=_kept(device, generator.acknowledged, phases, unkept),
            contract=contract,
            real_time=os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR),
            busy_elsewhere=elsewhere,
            steal=steal,
            machine=describe_machine(),
            commit=commit(),
        )


def _line(found: Found) -> str:
    ms = found.recommend_ms
    told = f", p50 {ms.p50:.2f} ms, p99 {ms.p99:.2f} ms" if ms else ""
    return (
        f"{found.name}: {found.connections} connections, {found.recommended_per_second:.0f} recommendations/s{told}, "
        f"{found.count('503')} refused, {found.lost} lost"
    )


def _mixture(
    generator: Generator, server: Server, device: Device, plan: Plan, rate: float, progress: Callable[[str], object]
) -> tuple[list[Found], list[Change], Flatness]:
    stretches = plan.changes + 1
    phase = Phase(
        name="mixture",
        connections=OPEN_CONNECTIONS,
        seconds=plan.mixed_s / stretches,
        rate=rate,
        mix=MIXTURE,
        requests=plan.requests,
    )
    found, changes, begin = list[Found](), list[Change](), 0
    for number in range(stretches):
        generator.start(phase.model_copy(update={"seed": number}))
        if number < plan.changes:
            changes.append(_change(device, number))
        found.append(generator.finish())
        server.memory.take(server.process.pid, server.started)
        if number == min(2, plan.changes):  # both releases were opened, items were added: nothing is new from here on
            begin = len(server.memory.mb) - 1
        progress(f"mixture {number + 1} of {stretches}: {server.status()['release']}, {server.memory.mb[-1]:.1f} MB")
    steady = sum(one.sent for one in found[min(3, plan.changes) :])
    return found, changes, flatness(server.memory, begin, steady)


def _change(device: Device, number: int) -> Change:
    if number % 2:
        return Change(
            command="rollback", release=device.releases[0][:12], seconds=device.release("rollback", str(device.root))
        )
    wanted = device.releases[1]
    seconds = device.release("activate", str(device.root), wanted)
    return Change(command="activate", release=wanted[:12], seconds=seconds)


def flatness(memory: Memory, begin: int, requests: int) -> Flatness:
    """The line through the samples from `begin` on."""
    seconds, mb = np.array(memory.seconds[begin:]), np.array(memory.mb[begin:])
    slope, level = np.polyfit(seconds - seconds.mean(), mb, 1) if len(mb) > 2 else (0.0, float(mb.mean()))
    window = float(seconds[-1] - seconds[0])
    return Flatness(
        samples=len(mb),
        seconds=round(window, 1),
        requests=requests,
        mean_mb=round(float(level), 2),
        first_mb=float(mb[0]),
        peak_mb=float(mb.max()),
        slope_mb_per_hour=round(float(slope) * 3600, 2),
        grown=round(float(slope) * window / float(level), 5),
        bytes_per_request=round(float(slope) * window * 1e6 / max(requests, 1), 2),
    )


def _stop(generator: Generator, server: Server) -> Found:
    """SIGTERM while callers ask as fast as they can: each goes on until an answer says that its connection closes."""
    before = server.metric("slimrec_recommendations_total")
    generator.start(Phase(name="stop under load", connections=16, until_closed=True))
    while server.metric("slimrec_recommendations_total") < before + 100:
        time.sleep(0.02)  # the callers are under way when the signal comes
    server.process.send_signal(signal.SIGTERM)
    return generator.finish()


def _kept(device: Device, acknowledged: Path, phases: Sequence[Found], unkept: int) -> Kept:
    damage, events, shown = Damage(), set[str](), 0
    for record in read(device.feedback, damage):
        if isinstance(record, Shown):
            shown += 1
        else:
            events.add(f"{record.request_id} {record.item_id}")
    told = set(acknowledged.read_text("utf-8").splitlines())
    size = sum(path.stat().st_size for path in device.feedback.iterdir())
    return Kept(
        acknowledged=len(told),
        missing=len(told - events),
        events=len(events),
        shown=shown,
        recommended=sum(_count(found, "recommend") + BATCH * _count(found, "batch") for found in phases),
        unkept=unkept,
        damaged_lines=damage.lines,
        log_mb=round(size / 1e6, 1),
    )


def _count(found: Found, operation: Operation) -> int:
    return found.answers.get(operation, {}).get("200", 0)
