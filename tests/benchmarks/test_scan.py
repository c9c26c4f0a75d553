"""The table of large catalogues: both precisions measured, against what reading costs and what fp32 answers."""

from pathlib import Path

from click.testing import CliRunner

from benchmarks.scan import Scan, floor_ms, main


def test_a_small_catalogue_is_scanned(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["2000", "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    found = Scan.model_validate_json((tmp_path / "scan.json").read_text("utf-8"))
    fp32, int8, rescored = found.rows
    assert [row.precision for row in found.rows] == ["fp32", "int8", "int8_rescored"]
    assert fp32.recall_at_100 == 1.0 and 0.9 < int8.recall_at_100 < 0.995 < rescored.recall_at_100
    assert int8.graph_mb < fp32.graph_mb
    for row in found.rows:
        assert 0 < row.p10_ms <= row.p50_ms <= row.p99_ms and row.floor_ms > 0
    assert done.output.count("| 2000 |") == 3


def test_reading_more_takes_longer() -> None:
    assert floor_ms(1 << 25) > floor_ms(1 << 18)
