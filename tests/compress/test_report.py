"""What the page says of a made-up result: everything of it, in words and numbers, and nothing that is not in it."""

import json
import random
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import tables
from benchmarks.peers.record import AgainstOurs
from benchmarks.result import Result, Search, Trial
from benchmarks.seeds import by_candidate
from compress.report.extras import Extras, beside, read_bench, read_peers
from compress.report.headline import headline
from compress.report.models import model_rows
from compress.report.page import render_report, write_report
from compress.report.sections import not_measured, sections
from compress.report.words import distinct, duration, leaders, milliseconds, number, size, times
from deploy.cli import run_command
from tests.compress.report_example import bench, example, extras, model

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028'\"&"


def section(name: str, result: Result, beside: Extras | None = None) -> Any:
    found = sections(result, by_candidate(result.models), beside or Extras())
    return next((one for one in found if one.name == name), None)


def with_seeds() -> Result:
    """The student in two seeds, .10 and .12 on test; only the first is timed."""
    rng = random.Random(0)
    models = [model(rng, "control-fp32", "control", "fp32", 0.1, 0.2, 1.6)]
    for name, level, ms in (("student-fp32", 0.10, 0.2), ("student@1-fp32", 0.12, 0)):
        row = model(rng, name, "student", "fp32", 0.1, ms, 1.6) | {"variant": "student"}
        row["accuracy"]["test"] |= {"ndcg@10": level, "ndcg@10_ci95": [level - 0.01, level + 0.02]}
        models.append(row)
    return example(models=models, comparisons=[], selected="student-fp32")


def of_likes() -> Result:
    """Like/dislike data: nothing ranks, AUC leads."""
    models = [
        model(random.Random(0), name, role, "fp32", 0.7, 0.2, 1.6)
        for name, role in (("a", "student"), ("b", "control"))
    ]
    for row in models:
        row["accuracy"] = {"test": {"auc": 0.7, "auc_ci95": [0.68, 0.72], "uauc": 0.65, "accuracy": 0.66}}
        row["latency"].append(row["latency"][0] | {"path": "like", "p50_ms": 0.05, "p95_ms": 0.06})
    return example(models=models, comparisons=[], selected="a")


def test_the_headline_says_what_ships_and_against_whom() -> None:
    said = {"a": "student", "b": "control", "metric": "ndcg@10", "difference": 0.009, "ci95": [0.003, 0.015]}
    against = {"a": "student", "b": "teacher", "metric": "ndcg@10", "difference": -0.001, "ci95": [-0.004, 0.002]}
    result = example(comparisons=[against, said | {"a": "teacher"}, said])
    found = headline(result, by_candidate(result.models))
    assert found.title == "student-int8 ships"
    assert "better than its control, trained without a teacher (+0.0090 [+0.0030, +0.0150])" in found.words[0]
    assert "a tie with its teacher (-0.0010 [-0.0040, +0.0020])" in found.words[0]
    assert [verdict for verdict, _ in found.findings] == ["tie", "better", "better"]  # what ships comes first
    assert "the most accurate candidate on validation" in found.words[1].lower()
    assert "control-fp32: max_size_mb exceeded by 33%" in found.refused


def test_what_holms_correction_does_not_leave_is_unsure() -> None:
    said = {"a": "student", "b": "control", "metric": "ndcg@10", "difference": 0.009, "ci95": [0.003, 0.015]}
    for p, standing, words in ((0.02, "better", "It is better than its control"), (0.1, "unsure", "It may be better")):
        result = example(comparisons=[said | {"p_holm": p}])
        found = headline(result, by_candidate(result.models))
        assert found.findings[0][0] == standing and words in found.words[0]
        assert found.findings[0][1].startswith(f"student {'is' if p < 0.05 else 'may be'} above control: +0.0090")
        assert section("comparisons", result).tables[0].lines[0].cells[2] == standing


def test_a_record_of_before_has_its_refusals_in_the_reason() -> None:
    reason = "student-int8: best; slower than fp32 here, so not chosen: x; refused: y loses 9% on tail_items against z"
    result = example(selection={"reason": reason})
    found = headline(result, by_candidate(result.models))
    assert found.refused == ["slower than fp32 here, so not chosen: x", "refused: y loses 9% on tail_items against z"]
    assert "may ship" not in render_report(result) and "may ship" in render_report(example())


def test_nothing_selected_and_nothing_measured() -> None:
    page = render_report(
        example(selected=None, selection={"reason": "All are too slow.", "nearest": ["student-int8"]}, bundle=None)
    )
    assert "No candidate fits the budget" in page and "Nearest: student-int8" in page
    empty = render_report(example(models=[], comparisons=[], stages=[], gate=None, selected=None, text_encoders=[]))
    assert 'class="chart"' not in empty and "Not measured" in empty


def test_a_failed_gate_is_said() -> None:
    page = render_report(
        example(gate={"passed": False, "teacher_valid": 0.1, "control_valid": 0.11}, transfer_ratio=None)
    )
    assert "does not beat the control on validation" in page and "not passed" in page


def test_candidates_are_means_over_seeds_and_each_seed_is_there() -> None:
    result = with_seeds()
    student = by_candidate(result.models)[1]
    assert student.test == pytest.approx(0.11) and student.test_ci95 == pytest.approx((0.10, 0.13))
    rows = {(row.name, row.one_seed): row for row in model_rows(result, by_candidate(result.models))}
    assert list(rows) == [
        ("student-fp32", False),
        ("student-fp32", True),
        ("student@1-fp32", True),
        ("control-fp32", False),
    ]
    assert (
        rows["student-fp32", False].cells[0].text == "0.1100" and rows["student@1-fp32", True].group == "student-fp32"
    )
    absent = {item.what for item in not_measured(result, by_candidate(result.models), [])}
    assert "latency, memory and load of further seeds" in absent


def test_summary_shows_the_chosen_of_each_role() -> None:
    candidates = by_candidate(example().models)
    assert [one.name for one in leaders(candidates, "student-int8")] == [
        "teacher",
        "student-int8",
        "control-int8",
        "EASE",
    ]


def test_every_section_has_its_numbers_in_a_table() -> None:
    result = example()
    for one in sections(result, by_candidate(result.models), extras()):
        assert one.tables and all(len(line.cells) == len(table.columns) for table in one.tables for line in table.lines)
        assert not one.absent
    page = render_report(result, extras())
    for word in ("no CUDA device", "Example CPU", "numpy 2.0", "teacher-scratch", "popularity", "tie", "worse"):
        assert word in page
    assert page.count('role="img"') == page.count("</desc>") == page.count('class="chart"') == 11


def test_drawings_are_well_formed_and_say_what_they_show() -> None:
    result = example()
    for one in sections(result, by_candidate(result.models), extras()):
        for figure in one.figures:
            tree = ElementTree.fromstring(figure.drawing.inline("x"))
            assert [child.tag for child in tree[:2]] == ["title", "desc"]
            assert all(child.text and len(child.text) > 5 for child in tree[:2])


def test_budget_and_baselines_are_in_the_front() -> None:
    latency, by_size = section("trade-off", example()).figures
    drawn = "".join(latency.drawing.parts)
    assert "budget 5 ms" in drawn and "budget 12 MB" in "".join(by_size.drawing.parts)
    assert ">EASE<" in drawn and ">popularity<" not in drawn  # far below: it would flatten the rest
    assert "teacher, text path" in drawn
    assert "pruned-int8" in latency.drawing.description


def test_latency_without_its_distribution_is_drawn_from_what_there_is() -> None:
    result = example()
    bare = [
        m.model_copy(update={"latency": [row.model_copy(update={"percentiles_ms": None}) for row in m.latency]})
        for m in result.models
    ]
    old = result.model_copy(update={"models": bare})
    assert 'class="teacher wide"' in "".join(section("latency", result).figures[0].drawing.parts)
    assert " wide" not in "".join(section("latency", old).figures[0].drawing.parts)
    absent = {item.what: item.why for item in not_measured(old, by_candidate(old.models), [])}
    assert "whole latency distributions" in absent
    assert "whole latency distributions" not in {
        item.what for item in not_measured(result, by_candidate(result.models), [])
    }


def test_likes_are_shown_by_their_own_metrics() -> None:
    found = section("segments", of_likes())
    assert found.title == "How well likes are told from dislikes"
    assert [figure.heading for figure in found.figures] == ["AUC over all rows", "UAUC, the mean of users"]
    assert found.tables[0].lines[0].cells[:4] == ["a", "0.7000", "0.6500", "0.6600"]
    assert "0.050 ms" in headline(of_likes(), by_candidate(of_likes().models)).words[0]  # the path that says likes


def test_steps_that_variants_share_count_once() -> None:
    stages = [
        {"name": "data", "seconds": 2.0, "cached": True},
        *({"name": "target", "seconds": 60.0, "cached": True, "variant": name, "peak_rss_mb": 900.0} for name in "abc"),
        {"name": "target", "seconds": 61.0, "cached": False, "variant": "d", "peak_rss_mb": 900.0},
    ]
    result = example(stages=stages)
    assert [stage.seconds for stage in distinct(result.stages)] == [2.0, 60.0, 61.0]
    assert "target: 2 min, 0.9 GB" in section("stages", result).figures[0].drawing.description


def test_the_search_is_drawn_as_any_front() -> None:
    trials = [
        Trial(name="s-t1", chosen={"distil.student.dim": 8}, valid=0.1, params=1000, front=True),
        Trial(name="s-t2", chosen={"distil.student.dim": 16}, valid=0.12, params=3000, front=True),
        Trial(name="s-t3", chosen={"distil.student.dim": 32}, valid=0.09, params=9000, stopped="too weak"),
    ]
    search = Search(metric="ndcg@10", of=Trial(name="s", valid=0.11, params=5000), trials=trials)
    found = section("search", example(search=search))
    assert found.figures[0].drawing.description.endswith("No other beats in both: s-t1-fp32, s-t2-fp32.")
    assert [line.cells[1] for line in found.tables[0].lines] == [
        "as written",
        "on the front",
        "on the front",
        "too weak",
    ]
    assert section("search", example()) is None


def test_the_roofline_is_drawn_from_a_bench_record() -> None:
    found = section("roofline", example(), extras())
    assert "memory 10 GB/s" in found.words[0] and "caches 40 GB/s" in found.words[0] and len(found.words) == 1
    assert [line.cells[0] for line in found.tables[0].lines] == ["fp32", "int8"]
    other = bench().model_copy(update={"bundle": bench().bundle.model_copy(update={"digest": "sha256:1"})})
    assert "Not the bundle of this run" in section("roofline", example(), Extras([other])).words[1]
    missing = section("roofline", example())
    assert missing.absent and "slimrec bench" in missing.command


def test_peers_stand_beside_what_ships() -> None:
    found = section("peers", example(), extras())
    first, second, third = (line.cells for line in found.tables[0].lines)
    assert first[0] == "student-int8, this run" and second[:4] == ["other library", "1.2", "0.1180", "1.90"]
    assert third[2] == "–"  # noqa: RUF001
    assert section("peers", example()).command == "make bench-peers"


def test_a_text_encoder_stands_beside_its_teachers_vectors() -> None:
    page, table = render_report(example()), tables.markdown(example())
    for word in ("text-int8_dynamic", "0.0361", "0.0374", "3.95 MB"):
        assert word in page
    assert "| text int8_dynamic | 3.95 | 0.420 | 21.5 | 0.0361 | 0.0374 |" in table.splitlines()
    assert "Text encoders" not in render_report(example(text_encoders=[]))


def test_units() -> None:
    assert [size(0), size(999), size(1_500), size(12_340_000)] == ["–", "999 B", "1.5 kB", "12.3 MB"]  # noqa: RUF001
    assert [milliseconds(None), milliseconds(0.1234), milliseconds(12.34)] == ["–", "0.123", "12.3"]  # noqa: RUF001
    assert [times(1.666), times(95.4), number(0.12345), number(None)] == ["1.7×", "95×", "0.1235", "–"]  # noqa: RUF001
    assert [duration(s) for s in (0.42, 12, 119, 150, 3900)] == ["0.4 s", "12 s", "119 s", "2 min", "1 h 05 min"]


def test_markup_in_names_stays_text() -> None:
    result = example()
    renamed = [one.model_copy(update={"name": HOSTILE, "variant": HOSTILE}) for one in result.models]
    page = render_report(
        result.model_copy(
            update={
                "models": renamed,
                "recipe": HOSTILE,
                "selected": HOSTILE,
                "dataset": result.dataset.model_copy(update={"name": HOSTILE}),
                "stages": [stage.model_copy(update={"name": HOSTILE}) for stage in result.stages],
            }
        ),
        extras(),
    )
    assert "<script>alert" not in page and "<img src=x" not in page
    assert page.count("<script") == page.count("</script>") == 3


def test_the_record_is_inside_whole() -> None:
    result = example()
    [text] = re.findall(r'<script type="application/json" id="record">(.*?)</script>', render_report(result), re.DOTALL)
    assert Result.model_validate(json.loads(text)) == result


def test_the_page_is_small_and_asks_for_nothing(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(example(), page, extras())
    text = page.read_text("utf-8")
    assert len(text.encode()) < 300_000
    outside = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL)
    assert re.findall(r'(?:src|href|action)\s*=\s*["\']?(?!#)([^"\'\s>]+)', outside) == []
    assert "default-src 'none'" in text and "unsafe" not in text.partition("</head>")[0]
    assert re.findall(r"https?://", re.sub(r'id="record">.*?</script>', "", text)) == []


def peer(result: Result, **changes: Any) -> dict[str, Any]:
    """A row as `make bench-peers` writes it, of `result`'s data."""
    given = {
        "name": "recbole",
        "key": "0" * 64,
        "what": "SASRec, torch",
        "seeds": [0],
        "dataset": result.dataset.model_dump(),
        "machine": result.machine.model_dump(mode="json"),
        "commit": "0" * 40,
        "packages": {"recbole": "1.2.1", "torch": "2.13.0"},
        "environment_mb": 1800.0,
        "test": {"ndcg@10": 0.11, "recall@10": 0.2},
        "latency": AgainstOurs(
            history=20,
            k=10,
            threads=1,
            rounds=1,
            runs=9,
            unsettled=0,
            p50_ms=1.9,
            p95_ms=2.0,
            p99_ms=2.1,
            round_p50_ms=[1.9],
            ours_p50_ms=0.1,
            ours_p95_ms=0.1,
            ours_round_p50_ms=[0.1],
            ratio=19.0,
            ci95=(18.0, 20.0),
        ).model_dump(mode="json"),
        "fresh": {"cold_start_ms": 4200.0, "rss_mb": 520.0, "cold_start_ms_runs": [4200.0], "rss_mb_runs": [520.0]},
        "size_bytes": 2_400_000,
        "training": None,
    }
    return given | changes


def test_peers_are_read_from_their_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "peers-example.json"
    path.write_text(json.dumps([peer(example()), peer(example(), name="recbole-int8", test=None)]), "utf-8")
    first, second = read_peers(path, example())
    assert first.model_dump() == {
        "name": "recbole",
        "version": "1.2.1",
        "ndcg": 0.11,
        "p50_ms": 1.9,
        "bytes": 2_400_000,
        "install_mb": 1800.0,
        "rss_mb": 520.0,
        "cold_s": 4.2,
        "not_measured": [],
    }
    assert second.version == "1.2.1" and second.ndcg is None
    training = {
        "settings": {},
        "trials": 1,
        "epoch": 3,
        "epochs": 3,
        "valid_ndcg@10": 0.07,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "all_cpu_seconds": 1.0,
        "ended": "its budget, 300 CPU s",
        "curve": [[3, 0.07]],
        "rss_mb": 500.0,
    }
    path.write_text(json.dumps([peer(example(), training=training)]), "utf-8")
    (cut_short,) = read_peers(path, example())
    assert cut_short.ndcg is None and cut_short.p50_ms == 1.9
    path.write_text(json.dumps([peer(example()), peer(example(), name="recbole-int8", test=None)]), "utf-8")
    monkeypatch.setattr("benchmarks.peers.record.RESULTS", tmp_path)
    assert [row.name for row in beside(example()).peers] == ["recbole", "recbole-int8"]
    moved = example(dataset={"name": "beauty", "users": 1, "items": 1, "interactions": 1})
    assert beside(moved).peers == beside(example(recipe="another")).peers == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text(example().to_json(), "utf-8")
    (tmp_path / "bench.json").write_text(f"{bench().to_json()}\n", "utf-8")
    rows = [
        peer(example(), name="recbole-compiled"),
        peer(example(), latency=None, not_measured=[{"what": "speed", "why": "too slow"}]),
    ]
    (tmp_path / "peers.json").write_text(json.dumps(rows), "utf-8")
    beside = ["--bench", str(tmp_path / "bench.json"), "--peers", str(tmp_path / "peers.json")]
    assert run_command(["report", str(tmp_path), *beside]) == 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "memory 10 GB/s" in page and "recbole-compiled" in page and "recbole: speed" in page
    assert "report.html" in capsys.readouterr().out
    assert read_bench(tmp_path / "bench.json") == [bench()]
    other = {"name": "beauty", "users": 1, "items": 1, "interactions": 1}
    (tmp_path / "result.json").write_text("{}", "utf-8")
    assert run_command(["report", str(tmp_path / "result.json")]) == 2
    assert run_command(["report", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert "recipe: Field required (is it a result.json?)" in said and "RUN cannot be read" in said
    for option, text, complaint in (
        ("--peers", "[{}]", "not what `make bench-peers` writes (0."),
        ("--peers", json.dumps([peer(with_seeds(), dataset=other)]), "measured on other data than this run, beauty"),
        ("--bench", "{}", "not what `slimrec bench --json` prints"),
    ):
        (tmp_path / "wrong").write_text(text, "utf-8")
        (tmp_path / "result.json").write_text(example().to_json(), "utf-8")
        assert run_command(["report", str(tmp_path), option, str(tmp_path / "wrong")]) == 2
        assert complaint in capsys.readouterr().err
