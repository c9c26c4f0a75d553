"""Sections about what models cost: the time of an answer, text encoders, the making of it all."""

from collections.abc import Sequence

from benchmarks.result import LatencyRow, Result
from benchmarks.seeds import Candidate
from compress.report import figures
from compress.report.accuracy import ROLE_LEGEND
from compress.report.parts import Figure, Line, Section, Table
from compress.report.words import NONE, distinct, milliseconds, number, size, times


def latency_section(candidates: Sequence[Candidate]) -> Section | None:
    drawing = figures.latencies(candidates)
    if drawing is None:
        return None
    timed = [(one, row) for one in candidates for row in one.first.latency]
    whole = sum(row.percentiles_ms is not None for _, row in timed)
    words = "Bands: 1st to 99th, 5th to 95th and 25th to 75th percentile; the line is the median."
    if whole < len(timed):
        words += (
            " Where only percentiles 50, 95 and 99 were recorded, the mark is the median and the ticks are the others."
        )
    columns = ["model", "path", "runtime, device", "threads", "batch", "history"]
    columns += ["p1", "p5", "p25", "p50", "p75", "p95", "p99", "per second", "runs"]
    lines = [Line([one.name, *_timed(row)], one.name) for one, row in timed]
    return Section(
        "latency",
        "Latency, call by call",
        [f"{words} Candidates are timed in interleaved rounds of one process, from item ids to item ids."],
        legend=tuple(role for role in ROLE_LEGEND if any(one.role == role[0] for one, _ in timed)),
        figures=[Figure("latencies", drawing)],
        tables=[Table("Latencies, ms", columns, lines, texts=3)],
    )


def _timed(row: LatencyRow) -> list[str]:
    spread = row.percentiles_ms or {}
    first, last = ([milliseconds(spread.get(level)) for level in levels] for levels in ((1, 5, 25), (75,)))
    place = [row.path, f"{row.runtime}, {row.device}", str(row.threads), str(row.batch), str(row.history)]
    tail = [milliseconds(row.p95_ms), milliseconds(row.p99_ms), f"{row.per_second:,.0f}", f"{row.runs:,}"]
    return [*place, *first, milliseconds(row.p50_ms), *last, *tail]


def text_encoders_section(result: Result) -> Section | None:
    if not result.text_encoders:
        return None
    lines = []
    for row in result.text_encoders:
        cold, of_teacher = row.cold_items, row.cold_items_of_teacher
        ratio = row.ratio_to_teacher
        cells = [row.name, row.ranked_by or NONE, size(row.size_bytes), milliseconds(row.p50_ms)]
        cells += [times(ratio.median if ratio else None), number(cold.ndcg_10 if cold else None)]
        lines.append(Line([*cells, number(of_teacher.ndcg_10 if of_teacher else None)]))
    columns = ["encoder", "ranked by", "size", "ms a text", "faster than the teacher's", "cold items, NDCG@10"]
    return Section(
        "text-encoders",
        "Text encoders",
        [
            "What places an item that is only a text: graph and tokenizer. The same ranker with the teacher's own "
            "vectors says what the smaller encoder costs."
        ],
        tables=[Table("Text encoders", [*columns, "with the teacher's vectors"], lines, texts=2)],
        open_tables=True,
    )


def stages_section(result: Result) -> Section | None:
    drawing = figures.stage_times(result.stages)
    if drawing is None:
        return None
    ran = [
        Line(
            [
                stage.name,
                stage.variant or "all",
                "from the store" if stage.cached else "this run",
                f"{stage.seconds:.1f}",
                NONE if stage.peak_rss_mb is None else f"{stage.peak_rss_mb:,.0f}",
            ]
        )
        for stage in distinct(result.stages)
        if stage.seconds >= 0.05
    ]
    columns = ["stage", "variant", "computed", "seconds", "peak MB"]
    return Section(
        "stages",
        "What it cost to make",
        [
            "Seconds of each stage, in the order of the run; steps that variants share count once. What came from the "
            "store cost its seconds in an earlier run. Peak memory is that of the process that built the step."
        ],
        legend=(("now", "computed in this run"), ("soft", "from the store")),
        figures=[Figure("stage-times", drawing)],
        tables=[Table("Steps of 0.1 s and more", columns, ran, texts=3)],
    )
