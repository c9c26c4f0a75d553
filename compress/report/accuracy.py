"""Sections about how good models are: against their cost, by segment, against each other, trial by trial."""

from collections.abc import Sequence
from operator import attrgetter

from benchmarks.charts.style import ROLES
from benchmarks.result import TITLES, Result
from benchmarks.seeds import Candidate, segment
from compress.report import figures
from compress.report.parts import Figure, Line, Section, Table
from compress.report.words import NONE, SEGMENTS, interval, leaders, milliseconds, number, served_path, size, standing

ROLE_LEGEND = tuple((role, role) for role in ROLES)


def trade_off_section(result: Result, candidates: Sequence[Candidate]) -> Section | None:
    fronts = (("front-latency", figures.latency_front), ("front-size", figures.size_front))
    drawn = [(name, drawing) for name, draw in fronts if (drawing := draw(result, candidates)) is not None]
    if not drawn:
        return None
    path = served_path(result.models, result.metric)
    lines = []
    for one in candidates:
        row = one.latency(path) or one.latency()
        text = one.latency("text")
        cells = [one.name, number(one.test), interval(one.test_ci95), milliseconds(row.p95_ms if row else None)]
        lines.append(Line([*cells, milliseconds(text.p95_ms if text else None), size(one.first.size_bytes)], one.name))
    columns = ["model", f"test {TITLES[result.metric]}", "95 %", "p95 ms", "text path, p95 ms", "size"]
    return Section(
        "trade-off",
        "What speed and size cost",
        [
            "Up is more accurate, left is cheaper; both cost axes are logarithmic. The dotted line joins what no other "
            "beats in both, the red ring marks what ships. Dashed lines are what the budget allows (red) and the best "
            "baseline, where it was not timed (grey); pale marks are what validation did not choose. Bars are 95 % "
            "intervals over users. Point at a mark, or go through them with the arrow keys: Enter highlights its "
            "model on the whole page."
        ],
        legend=ROLE_LEGEND,
        figures=[Figure(name, drawing, pick=True) for name, drawing in drawn],
        tables=[Table("Accuracy, latency and size", columns, lines)],
    )


def search_section(result: Result) -> Section | None:
    drawing, found = figures.search_front(result.search), result.search
    if drawing is None or found is None:
        return None
    paths = list(found.trials[0].chosen) if found.trials else []
    lines = []
    for trial in [found.of, *found.trials]:
        state = "as written" if trial is found.of else "on the front" if trial.front else trial.stopped or "finished"
        values = [trial.chosen.get(path, "") for path in paths]
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        lines.append(Line([trial.name, state, *shown, number(trial.valid), f"{trial.params:,}"], f"{trial.name}-fp32"))
    columns = ["trial", "state", *paths, f"validation {TITLES[found.metric]}", "parameters"]
    return Section(
        "search",
        "What the search tried",
        [
            f"{len(found.trials)} trials of {found.of.name}, one seed, judged on validation: up is more accurate, left "
            "is smaller. The front goes on: its models are in every other section, in every precision. Stopped trials "
            "are shown as they were after distillation."
        ],
        legend=(("student", "on the front"), ("baseline", "not on it"), ("control", "as the recipe has it")),
        figures=[Figure("search-front", drawing, pick=True)],
        tables=[Table("Trials", columns, lines, texts=2)],
    )


def segments_section(result: Result, candidates: Sequence[Candidate]) -> Section | None:
    drawings = figures.segments(result, candidates)
    if not drawings:
        return None
    shown = leaders(candidates, result.selected)
    panels = [
        Figure(f"segment-{place}", drawing, heading=title) for place, (title, drawing) in enumerate(drawings.items())
    ]
    legend = tuple(role for role in ROLE_LEGEND if any(one.role == role[0] for one in shown))
    if result.metric == "auc":
        return Section(
            "segments",
            "How well likes are told from dislikes",
            [
                "AUC is over all test rows, UAUC the mean over users with both likes and dislikes. Accuracy, "
                "precision, recall and F1 call a like at the threshold that validation chose."
            ],
            legend=legend,
            figures=panels,
            tables=[_like_table(shown)],
        )
    keys = [key for key, title in SEGMENTS.items() if title in drawings]
    lines = [Line([one.name, *(_on_segment(one, key) for key in keys)], one.name) for one in shown]
    return Section(
        "segments",
        "Where it holds and where it does not",
        [
            "NDCG@10 with 95 % intervals over users. Tail: the items that hold the last 20 % of training interactions. "
            "Short: at most 5 events of history. Cold: items without any training interaction. Each panel has a scale "
            "of its own."
        ],
        legend=legend,
        figures=panels,
        tables=[Table("Segments, test NDCG@10", ["model", *(SEGMENTS[key] for key in keys)], lines)],
    )


def _on_segment(one: Candidate, key: str) -> str:
    value = one.mean(lambda model: segment(model, key).ndcg_10)
    return f"{number(value)} {interval(one.interval(lambda model: segment(model, key).ndcg_10_ci95))}".strip()


def _like_table(shown: Sequence[Candidate]) -> Table:
    names = ("auc", "uauc", "accuracy", "precision", "recall", "f1")
    lines = []
    for one in shown:
        values = [one.mean(attrgetter(f"accuracy.test.{name}")) for name in names]
        lines.append(Line([one.name, *(number(value) for value in values)], one.name))
    return Table("Likes, on test", ["model", "AUC", "UAUC", "accuracy", "precision", "recall", "F1"], lines)


def comparisons_section(result: Result) -> Section | None:
    drawing = figures.comparisons(result)
    if drawing is None:
        return None
    lines = [
        Line(
            [
                f"{item.a} − {item.b}",  # noqa: RUF001
                item.metric + (f", {item.segment}" if item.segment else ""),
                standing(item),
                f"{item.difference:+.4f}",
                interval(item.ci95),
                number(item.p_holm, 3),
                NONE if item.users is None else f"{item.users:,}",
            ]
        )
        for item in result.comparisons
    ]
    columns = ["comparison", "metric", "verdict", "difference", "95 %", "p, Holm", "users"]
    return Section(
        "comparisons",
        "Who beats whom",
        [
            "Paired over the same test users, seeds averaged. A difference whose interval holds zero is a tie; one "
            "whose interval excludes it, but not after Holm's correction for all of them, is unsure."
        ],
        legend=(("good", "better"), ("soft", "tie or unsure"), ("bad", "worse")),
        figures=[Figure("comparisons-drawn", drawing)],
        tables=[Table("Comparisons", columns, lines, texts=3)],
    )
