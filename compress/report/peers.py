"""The peers section: other libraries' models on the same data, split and machine, beside what ships."""

from collections.abc import Sequence

from benchmarks.charts.scatter import Spot, trade_off
from benchmarks.result import Result
from benchmarks.seeds import Candidate, shipped
from compress.report.extras import PeerRow
from compress.report.parts import Figure, Line, Section, Table
from compress.report.words import NONE, milliseconds, number, served_path, size

_NAME, _TITLE = "peers", "Beside what one would pick instead"


def peers_section(result: Result, candidates: Sequence[Candidate], rows: Sequence[PeerRow]) -> Section:
    """Accuracy against the median latency, and a table of everything that was measured of each."""
    if not rows:
        return Section(
            _NAME,
            _TITLE,
            absent="No record of peers on this data was given; they are measured, each in its own environment, by:",
            command="make bench-peers",
        )
    own = shipped(result, candidates)
    lines = [Line(_cells(row)) for row in rows]
    spots = [_spot(row.name, "baseline", row.p50_ms, row.ndcg) for row in rows]
    if own is not None:
        row = own.latency(served_path(own.models, result.metric))
        model = own.first
        ours = PeerRow(
            name=f"{own.name}, this run",
            ndcg=own.test,
            p50_ms=row.p50_ms if row else None,
            bytes=model.size_bytes,
            rss_mb=model.rss_mb,
            cold_s=None if model.load_ms is None else model.load_ms / 1e3,
        )
        lines.insert(0, Line(_cells(ours), own.name))
        spots.append(_spot(own.name, own.role, ours.p50_ms, ours.ndcg))
    columns = ["model", "version", "NDCG@10", "p50 ms", "size", "installed MB", "peak MB", "cold start, s"]
    shown = [spot for spot in spots if spot is not None]
    drawn = [Figure("peers-drawn", trade_off(shown, "p50, ms", "test NDCG@10"), pick=True)] if shown else []
    return Section(
        _NAME,
        _TITLE,
        ["The same data, split and machine, each library in its own environment; latency from item ids to item ids."],
        legend=(("student", "this run"), ("baseline", "peers")),
        figures=drawn,
        tables=[Table("Peers", columns, lines, texts=2)],
        open_tables=True,
    )


def _cells(row: PeerRow) -> list[str]:
    return [
        row.name,
        row.version or NONE,
        number(row.ndcg),
        milliseconds(row.p50_ms),
        size(row.bytes),
        number(row.install_mb, 0),
        number(row.rss_mb, 0),
        number(row.cold_s, 2),
    ]


def _spot(name: str, kind: str, p50_ms: float | None, ndcg: float | None) -> Spot | None:
    if p50_ms is None or ndcg is None or p50_ms <= 0:
        return None
    words = f"{name}: NDCG@10 {number(ndcg)}, p50 {milliseconds(p50_ms)} ms"
    return Spot(name, words, kind, p50_ms, ndcg, label=name, ringed=kind != "baseline")
