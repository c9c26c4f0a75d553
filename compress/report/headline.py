"""What ships and why, in sentences that a person outside of the project understands."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.result import TITLES, Comparison, Result, role_and_variant
from benchmarks.seeds import Candidate, shipped
from compress.report.words import interval, milliseconds, number, served_path, size, standing, times, why_it_ships


@dataclass(frozen=True)
class Headline:
    """`title`, then paragraphs; `findings`: (verdict, sentence) of the paired comparisons; `refused`: why not others;
    `tiles`: (number, words, verdict or nothing)."""

    title: str
    words: Sequence[str]
    findings: Sequence[tuple[str, str]]
    refused: Sequence[str]
    tiles: Sequence[tuple[str, str, str]]


def headline(result: Result, candidates: Sequence[Candidate]) -> Headline:
    """What the page begins with."""
    own, (reason, refused) = shipped(result, candidates), why_it_ships(result)
    words = []
    if own is not None:
        words.append(_what_it_does(result, own))
    if reason:
        words.append(f"Why: {reason.removeprefix(f'{result.selected}: ')}.".replace("..", "."))
    if own is None and result.selection and result.selection.nearest:
        words.append(f"Nearest: {', '.join(result.selection.nearest)}.")
    words += _teachers(result)
    label = _label(own)
    compared = [item for item in result.comparisons if item.metric == result.metric]
    compared.sort(key=lambda item: item.a != label)
    found = [(standing(item), _finding(item)) for item in compared]
    title = f"{own.name} ships" if own is not None else "No candidate fits the budget"
    return Headline(title, words, found, refused, _tiles(result, own, candidates))


def _what_it_does(result: Result, own: Candidate) -> str:
    metric, data = TITLES[result.metric], result.dataset
    row = own.latency(served_path(own.models, result.metric))
    seeds = f" (mean of {len(own.models)} seeds)" if len(own.models) > 1 else ""
    task = "Telling likes from dislikes among" if result.metric == "auc" else "Ranking"
    text = (
        f"{task} the {data.items:,} items of {data.name} for its {data.users:,} users, it reaches a test {metric} of "
    )
    text += f"{number(own.test)} {interval(own.test_ci95)}{seeds}"
    if row is not None:
        threads = f"{row.threads} thread{'s' if row.threads != 1 else ''}"
        text += f", answers in {milliseconds(row.p50_ms)} ms (p95 {milliseconds(row.p95_ms)} ms) on {threads}"
    text += f", and takes {size(own.first.size_bytes)}." if own.first.size_bytes else "."
    return " ".join([text, *_against(result, own)])


def _against(result: Result, own: Candidate) -> list[str]:
    """The two questions that everyone asks: is it better than without a teacher, and is it as good as the teacher?"""
    said = {"control": "its control, trained without a teacher", "teacher": "its teacher"}
    names = {role_and_variant(model.role, model.variant): model.role for model in result.models}
    words = []
    for item in result.comparisons:
        role = names.get(item.b)
        if item.metric == result.metric and item.segment is None and item.a == _label(own) and role in said:
            verdict = {"better": "better than", "tie": "a tie with", "worse": "worse than"}[item.verdict]
            low, high = item.ci95
            numbers = f"{item.difference:+.4f} [{low:+.4f}, {high:+.4f}]"
            if standing(item) == "unsure":
                doubt = f"p {number(item.p_holm, 3)} after correction for all comparisons"
                words.append(f"It may be {verdict} {said[role]} ({numbers}, {doubt}).")
            else:
                words.append(f"It is {verdict} {said[role]} ({numbers}).")
    return words


def _label(own: Candidate | None) -> str:
    return "" if own is None else role_and_variant(own.role, own.first.variant)


def _finding(item: Comparison) -> str:
    relation, certain = item.sentence, f"{item.a} is "
    if standing(item) == "unsure" and relation.startswith(certain):
        relation = f"{item.a} may be {relation.removeprefix(certain)}"
    relation += f", {item.segment.replace('_', ' ')}" if item.segment else ""
    return relation + ("" if item.p_holm is None else f", p {item.p_holm:.3f} after Holm's correction")


def _teachers(result: Result) -> list[str]:
    words = []
    if result.gate is not None and not result.gate.passed:
        words.append("The teacher does not beat the control on validation, so nothing was distilled from it.")
    for choice in result.teacher_choices:
        valid = ", ".join(f"{name} {number(value)}" for name, value in choice.valid.items())
        source = "" if choice.source_helps is None else "; the source domain "
        source += "" if choice.source_helps is None else "helps" if choice.source_helps else "does not help"
        words.append(f"{choice.variant} learned from {choice.chosen}: validation {valid}{source}.")
    return words


def _tiles(result: Result, own: Candidate | None, candidates: Sequence[Candidate]) -> list[tuple[str, str, str]]:
    tiles = []
    if own is not None:
        said = f"test {TITLES[result.metric]} {interval(own.test_ci95)}"
        tiles.append((number(own.test), said.strip(), ""))
        row = own.latency(served_path(own.models, result.metric))
        if row is not None:
            tiles.append(
                (
                    f"{milliseconds(row.p95_ms)} ms",
                    f"p95 on {row.device}, {row.threads} thread{'s' if row.threads != 1 else ''}",
                    "",
                )
            )
        for path, ratio in (
            ("cached", row and row.ratio_to_teacher),
            ("text", row and row.ratio_to_teacher_text),
        ):
            if ratio:
                tiles.append((times(ratio.median), f"faster than the teacher's {path} path", ""))
        if own.first.size_bytes:
            teacher = next((one for one in candidates if one.role == "teacher" and one.chosen), None)
            smaller = ""
            if teacher is not None and teacher is not own and teacher.first.size_bytes:
                smaller = f", {times(teacher.first.size_bytes / own.first.size_bytes)} smaller than the teacher"
            tiles.append((size(own.first.size_bytes), f"history to top-k{smaller}", ""))
        if result.bundle is not None:
            tiles.append((size(result.bundle.size_bytes), "the whole signed bundle", ""))
    if result.gate is not None:
        gate = result.gate
        said = f"teacher gate: {number(gate.teacher_valid)} against the control's {number(gate.control_valid)}"
        tiles.append(("passed" if gate.passed else "not passed", said, "good" if gate.passed else "bad"))
    if result.transfer_ratio is None:
        tiles.append((number(None), "transfer ratio: the teacher is not above the control", ""))
    else:
        said = "transfer ratio: share of the teacher's lead over the control that the student keeps"
        tiles.append((number(result.transfer_ratio, 2), said, ""))
    return tiles
