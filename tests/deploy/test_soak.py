"""`make soak`, in seconds: a bounded number of requests, and what must hold whatever the machine's speed."""

import pytest

from benchmarks.result import NotMeasured
from benchmarks.soak.device import Memory
from benchmarks.soak.footprint import folder_mb
from benchmarks.soak.load import times
from benchmarks.soak.run import Plan, flatness, soak
from benchmarks.soak.verdict import Report, judge, markdown

SHORT = Plan(
    saturation_s=60.0,
    half_s=60.0,
    overload_s=60.0,
    mixed_s=180.0,
    changes=2,
    callers=(4,),
    overload_callers=100,
    requests=150,
    examples=0,
)


@pytest.fixture(scope="module")
def soaked(tiny):
    return soak(tiny.archive, SHORT, progress=lambda _: None)


def test_every_request_is_answered_while_releases_change_and_the_server_stops(soaked):
    assert [(one.name, one.lost, one.first_losses) for one in soaked.phases if one.lost] == []
    bounded = [one for one in soaked.phases if one.name != "stop under load"]
    assert len(bounded) == 1 + 1 + 2 + 3 and all(one.sent == one.answered == 150 for one in bounded)
    assert soaked.phases[-1].answered >= 100 and soaked.exit_code == 0
    assert soaked.statuses.keys() <= {"200", "201", "204", "503"}
    assert sum(one.bare_refusals for one in soaked.phases) == 0
    assert [change.command for change in soaked.changes] == ["activate", "rollback"]
    mixed = [one for one in soaked.phases if one.name == "mixture"]
    done = {
        operation for one in mixed for operation, found in one.answers.items() if set(found) & {"200", "201", "204"}
    }
    assert done == {"recommend", "batch", "search", "feedback", "add_item", "remove_item"}
    assert soaked.said == []


def test_acknowledged_feedback_is_in_the_log(soaked):
    kept = soaked.kept
    assert kept.acknowledged > 5 and kept.missing == 0 and kept.damaged_lines == 0
    # An answer that came too late for its caller was logged too.
    assert kept.shown + kept.unkept >= kept.recommended > 500


def test_the_table_says_what_was_met(soaked):
    targets = judge(soaked, None)
    report = Report(targets=targets, soak=soaked, footprint=None, not_measured=[NotMeasured(what="x", why="y")])
    text = markdown(report)
    assert all(f"| {one.asked} | {one.measured} |" in text for one in targets) and "not measured: y" in text
    lossy = soaked.model_copy(update={"phases": [soaked.phases[0].model_copy(update={"lost": 1}), *soaked.phases[1:]]})
    assert [one.what for one in judge(lossy, None) if not one.met and "without an answer" in one.what]
    wrong = soaked.model_copy(update={"statuses": {"200": 9, "500": 1, "503": 4}})
    assert [one.measured for one in judge(wrong, None) if one.what.startswith("answers of status")] == ["1"]
    gone = soaked.model_copy(update={"kept": soaked.kept.model_copy(update={"missing": 1})})
    assert [one.met for one in judge(gone, None) if one.what.startswith("feedback that was")] == [False]


def test_a_leak_is_not_flat():
    """100 MB and 50 kB a second: 5 % in 100 s, over 1,000 requests 5,000 bytes each; what was before does not count."""
    memory = Memory([float(second) for second in range(111)], [500.0] * 10 + [100 + 0.05 * n for n in range(101)])
    found = flatness(memory, 10, 1000)
    assert (found.samples, found.seconds, found.slope_mb_per_hour) == (101, 100.0, 180.0)
    assert found.grown == pytest.approx(5 / 102.5, abs=1e-4) and found.bytes_per_request == 5000


def test_percentiles_are_in_milliseconds_and_sizes_in_blocks(tmp_path):
    found = times([0.001 * value for value in range(1, 101)])
    assert found is not None and (found.runs, found.p50, found.max) == (100, 50.5, 100.0)
    assert times([]) is None
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    (tmp_path / "link").symlink_to("a")
    assert folder_mb(tmp_path) == pytest.approx((tmp_path / "a").stat().st_blocks * 512 / 1e6, abs=1e-3)
