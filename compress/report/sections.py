"""A result, and what was measured beside it -> the page's sections, and what is missing from them."""

from collections.abc import Sequence

from benchmarks.result import NotMeasured, Result
from benchmarks.seeds import Candidate, segment
from compress.report.accuracy import comparisons_section, search_section, segments_section, trade_off_section
from compress.report.cost import latency_section, stages_section, text_encoders_section
from compress.report.extras import Extras, PeerRow
from compress.report.machine_limits import roofline_section
from compress.report.parts import Section
from compress.report.peers import peers_section
from compress.report.words import SEGMENTS


def sections(result: Result, candidates: Sequence[Candidate], extras: Extras) -> list[Section]:
    """In the order of the page; one that says nothing of this run is not there."""
    found = [
        trade_off_section(result, candidates),
        search_section(result),
        latency_section(candidates),
        segments_section(result, candidates),
        comparisons_section(result),
        text_encoders_section(result),
        stages_section(result),
        roofline_section(result, extras.bench),
        peers_section(result, candidates, extras.peers),
    ]
    return [section for section in found if section is not None]


def not_measured(
    result: Result, candidates: Sequence[Candidate], found: Sequence[Section], peers: Sequence[PeerRow] = ()
) -> list[NotMeasured]:
    """What the run says, and what the page itself lacks, each with the reason."""
    absent = list(result.not_measured)

    def lacks(what: str, why: str) -> None:
        absent.append(NotMeasured(what=what, why=why))

    seeds = sum(len(one.models) - 1 for one in candidates)
    if seeds:
        lacks(
            "latency, memory and load of further seeds",
            "the same graphs with other weights: the first seed's are timed",
        )
    bare = [one.name for one in candidates if one.role == "baseline" and not one.first.latency]
    if bare:
        lacks(f"latency of {', '.join(bare)}", "baselines are measured for accuracy: no graph is made of them")
    if any(row.percentiles_ms is None for one in candidates for row in one.first.latency):
        lacks("whole latency distributions", "this record has percentiles 50, 95 and 99 only; a run today keeps more")
    if result.metric == "ndcg@10":
        for key, title in SEGMENTS.items():
            if all(segment(one.first, key).ndcg_10 is None for one in candidates):
                lacks(title.lower(), "the data has no such test case")
    for section in found:
        if section.absent:
            lacks(section.name, f"{section.absent} {section.command}".strip())
    for row in peers:
        for missing in row.not_measured:
            lacks(f"{row.name}: {missing.what}", missing.why)
    return absent
