"""Where the numbers come from, and how to take them again."""

from collections.abc import Sequence

from benchmarks.result import Result
from compress.report.words import NONE, size


def conditions(result: Result) -> list[tuple[str, str]]:
    """(what, value): data, protocol, machine, versions, code, bundle."""
    data, protocol, machine = result.dataset, result.protocol, result.machine
    seen = "excluded" if protocol.seen_excluded else "kept"
    counts = f"{data.users:,} users, {data.items:,} items, {data.interactions:,} interactions"
    cores = f"{machine.cores} core{'s' if machine.cores != 1 else ''} for this process"
    found = [
        ("data", f"{data.name}: {counts}"),
        ("protocol", f"{protocol.split}, {protocol.ranking} catalogue ranked, seen items {seen}"),
        ("seeds", ", ".join(map(str, protocol.seeds))),
        ("intervals", "95 %, paired bootstrap over users; of several seeds their ends averaged"),
        ("machine", ", ".join(filter(None, [machine.cpu, cores, machine.gpu or "", machine.system]))),
        ("instructions", ", ".join(machine.flags) or "none of those that matter"),
    ]
    if machine.load_average:
        load = ", ".join(f"{load:g}" for load in machine.load_average)
        waiting = "" if machine.waiting is None else f"; something waited for a CPU {machine.waiting:.0%} of the time"
        found.append(("load", f"{load} (1, 5, 15 minutes){waiting}"))
    found.append(("governor", machine.governor or "not known"))
    found.append(("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())))
    found.append(("commit", result.commit or NONE))
    if result.bundle is not None:
        bundle = result.bundle
        parts = f"{size(bundle.size_bytes)}, of it the text encoder {size(bundle.text_encoder_bytes)}"
        found.append(("bundle", f"{bundle.path}, {parts}, {bundle.digest}"))
    return found


def how_to_repeat(result: Result) -> Sequence[str]:
    """Command lines; settings given with --set are not part of a result."""
    seeds = ",".join(map(str, result.protocol.seeds))
    lines = [f"git checkout {result.commit}"] if result.commit.isalnum() else []
    lines.append(f"slimrec run {result.recipe} --set seeds=[{seeds}] --out again")
    if result.bundle is not None:
        lines.append("slimrec verify again/bundle.slim")
        lines.append("slimrec bench again/bundle.slim --json > bench.json")
        lines.append("slimrec report again --bench bench.json")
    return lines
