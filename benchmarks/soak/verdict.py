"""The targets of the edge, each met or not, and the table of them."""

from collections.abc import Iterable, Iterator

from benchmarks.result import NotMeasured, Record
from benchmarks.soak.footprint import Footprint
from benchmarks.soak.load import Found, Times
from benchmarks.soak.run import Soaked

FLAT = 0.02
"""Memory is flat where its fitted line rises by less than this share of its level from one end to the other."""
BOUND_S = 5.0
"""`slimrec serve --timeout` as it is unless told otherwise: nobody may wait longer for an answer or a refusal."""


class Target(Record):
    """One row: what is asked, what was measured."""

    what: str
    asked: str
    measured: str
    met: bool


class Report(Record):
    """`benchmarks/results/soak.json`."""

    targets: list[Target]
    soak: Soaked
    footprint: Footprint | None
    not_measured: list[NotMeasured]

    @property
    def met(self) -> bool:
        return all(target.met for target in self.targets)


def judge(soak: Soaked, footprint: Footprint | None) -> list[Target]:
    """Every target that something was measured for."""
    return [*_load(soak), *_rest(soak), *([] if footprint is None else _footprint(footprint))]


def _load(soak: Soaked) -> Iterator[Target]:
    half, overload = _phase(soak, "half of saturation"), _phase(soak, "overload")
    assert half.recommend_ms is not None
    yield Target(
        what=f"p99 at half of saturation ({half.rate:.0f} of {soak.saturation_per_second:.0f} requests/s, two cores "
        "shared with the load generator)",
        asked="at most 10 ms",
        measured=f"{half.recommend_ms.p99:.2f} ms (p50 {half.recommend_ms.p50:.2f} ms)",
        met=half.recommend_ms.p99 <= 10,
    )
    bare, refused = sum(found.bare_refusals for found in soak.phases), overload.refused_ms
    slowest = max(ms.max for ms in (refused, overload.recommend_ms) if ms is not None) / 1e3
    yield Target(
        what=f"overload ({overload.connections} callers at once)",
        asked=f"503 with Retry-After, nobody waits longer than {BOUND_S:g} s",
        measured=f"{overload.recommended_per_second:.0f} answered a second, {overload.count('503')} refused "
        f"(p99 {_p99(refused)}), slowest of all {slowest:.2f} s, {bare} without Retry-After",
        met=slowest <= BOUND_S and not bare and overload.count("503") > 0,
    )
    sent, lost = sum(found.sent for found in soak.phases), sum(found.lost for found in soak.phases)
    answered = sum(found.answered for found in soak.phases)
    yield Target(
        what="requests without an answer, releases changing and a stop under load among them",
        asked="0",
        measured=f"{lost} of {sent}",
        met=lost == 0 and answered == sent,
    )


def _rest(soak: Soaked) -> Iterator[Target]:
    wrong = {status: count for status, count in soak.statuses.items() if status.startswith("5") and status != "503"}
    yield Target(
        what=f"answers of status 5xx but 503, of {sum(soak.statuses.values())}",
        asked="0",
        measured=str(sum(wrong.values())),
        met=not wrong,
    )
    memory = soak.memory
    yield Target(
        what=f"memory: rise of the fitted line over {memory.requests} requests, {memory.seconds:.0f} s of the mixture",
        asked=f"below {FLAT:.0%} of its level",
        measured=f"{memory.grown:+.2%} of {memory.mean_mb:.0f} MB ({memory.bytes_per_request:+.1f} bytes a request)",
        met=memory.grown < FLAT,
    )
    changes = [f"{change.command} {change.seconds:.1f} s" for change in soak.changes]
    yield Target(
        what="updates and rollbacks under load",
        asked="all done, stopped with exit code 0",
        measured=f"{len(changes)} ({', '.join(changes[:2])}), exit code {soak.exit_code}",
        met=soak.exit_code == 0,
    )
    kept = soak.kept
    yield Target(
        what="feedback that was acknowledged and is not in the log",
        asked="0",
        measured=f"{kept.missing} of {kept.acknowledged}; {kept.damaged_lines} damaged lines; "
        f"{kept.shown} shown answers logged of {kept.recommended}, {kept.unkept} left out and counted",
        met=kept.missing == 0 and not kept.damaged_lines and kept.shown + kept.unkept >= kept.recommended,
    )
    if soak.contract is not None:
        yield Target(
            what=f"schemathesis {soak.contract.version} on /openapi.json, {soak.contract.cases} cases",
            asked="no failure",
            measured="none" if soak.contract.passed else "failures",
            met=soak.contract.passed,
        )


def _footprint(found: Footprint) -> Iterator[Target]:
    yield Target(
        what="install of the device side, trimmed as in deploy/edge (Python itself not counted)",
        asked="at most 220 MB",
        measured=f"{found.trimmed_mb:.0f} MB ({found.installed_mb:.0f} MB as pip leaves it)",
        met=found.trimmed_mb <= 220,
    )
    rss, load = found.rss_mb, found.load_ms
    yield Target(what="RSS, text encoder not used", asked="at most 200 MB", measured=f"{rss:.0f} MB", met=rss <= 200)
    yield Target(
        what="start to first answer, a fresh process",
        asked="at most 1 s",
        measured=f"{load / 1e3:.2f} s",
        met=load <= 1000,
    )
    yield Target(
        what=f"recommend, {found.items} items, one thread, ids to ids ({found.precision})",
        asked="p50 at most 0.5 ms, p99 at most 2 ms",
        measured=f"p50 {found.p50_ms:.3f} ms, p99 {found.p99_ms:.3f} ms",
        met=found.p50_ms <= 0.5 and found.p99_ms <= 2,
    )
    yield Target(
        what="the same beside the bare graph, whose inputs and outputs are bound beforehand",
        asked="at most 1.3 times",
        measured=f"{found.times_graph:.2f} times",
        met=found.times_graph <= 1.3,
    )


def markdown(report: Report) -> str:
    """The targets, then the phases."""
    soak = report.soak
    lines = ["| what | asked | measured | met |", "|---|---|---|---|"]
    lines += [f"| {t.what} | {t.asked} | {t.measured} | {'yes' if t.met else '**no**'} |" for t in report.targets]
    lines += [f"| {row.what} | | not measured: {row.why} | |" for row in report.not_measured]
    lines += ["", "| phase | connections | requests/s | sent | 503 | lost | p50 ms | p99 | 99.9 % | slowest |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|", *map(_row, soak.phases)]
    machine = soak.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    before = ", server and load generator before all other work (SCHED_RR)" if soak.real_time else ""
    elsewhere = "" if soak.busy_elsewhere is None else f", {soak.busy_elsewhere:.0%} of the CPU time taken by others"
    lines += [
        "",
        "Times are of recommendations: with a rate from the moment a request was due, else from when it was sent. "
        f"Server at rest {soak.idle_mb:.0f} MB, at most {soak.memory.peak_mb:.0f} MB while releases are exchanged; "
        f"`slimrec serve` answers {soak.first_answer_s:.2f} s after its start. {soak.bundle}, {soak.items} items; "
        f"{machine.cpu}, {machine.cores} cores{elsewhere}{before}; {versions}; "
        f"commit {soak.commit}. Made by `make soak`.",
    ]
    return "\n".join(lines) + "\n"


def _row(found: Found) -> str:
    ms = found.recommend_ms
    cells: Iterable[str] = ("", "", "", "") if ms is None else (f"{v:.2f}" for v in (ms.p50, ms.p99, ms.p999, ms.max))
    rate = f"{found.answered / found.seconds:.0f}"
    counts = f"{found.sent} | {found.count('503')} | {found.lost}"
    return f"| {found.name} | {found.connections} | {rate} | {counts} | {' | '.join(cells)} |"


def _phase(soak: Soaked, name: str) -> Found:
    return next(found for found in soak.phases if found.name == name)


def _p99(ms: Times | None) -> str:
    return "none" if ms is None else f"{ms.p99 / 1e3:.2f} s"
