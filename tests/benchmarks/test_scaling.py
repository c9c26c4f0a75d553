"""The cost model by hand, and the whole way from graphs to a fit on a few small cells."""

from itertools import product
from pathlib import Path

import pytest

from benchmarks.cost_model import CostModel, Shape, fit
from benchmarks.scaling import PRECISIONS, Cell, chart, grid, markdown, scaling
from deploy.errors import UsageError


def test_the_work_of_a_call_by_hand() -> None:
    fp32 = Shape(items=1000, dim=8, blocks=3, history=10, batch=4, threads=2).terms()
    assert fp32["calls"] == 1 and fp32["calls x blocks"] == 3
    assert fp32["table GB"] == pytest.approx(1000 * 8 * 4 / 2 / 1e9)
    assert fp32["scoring fp32 GFLOP"] == pytest.approx(2 * 4 * 1000 * 8 / 2 / 1e9) and not fp32["scoring int8 GFLOP"]
    assert fp32["encoder GFLOP"] == pytest.approx((2 * 40 * (16 * 64 + 4 * 10 * 8) + 4 * 16 * 64) / 2 / 1e9)
    int8 = Shape(items=1000, dim=8, batch=4, precision="int8").terms()
    assert int8["calls"] == 4 and int8["table GB"] == pytest.approx(4 * 1000 * 8 / 1e9)
    assert not fp32["table GB beyond the caches"]
    assert Shape(items=1_000_000, dim=64).terms()["table GB beyond the caches"] == pytest.approx(0.256 - 0.016)


def test_the_fit_finds_what_made_the_times() -> None:
    true = {"calls": 0.05, "table GB": 90.0, "fp32 Mscores through mask and top k": 3.0, "calls x blocks": 0.02}
    shapes = [Shape(items=n, dim=d, blocks=b) for n, d, b in product((10**3, 10**5, 10**6), (16, 64), (1, 3))]
    times = [sum(true.get(name, 0.0) * amount for name, amount in shape.terms().items()) for shape in shapes]
    found = fit(shapes, times)
    assert min(found.values()) >= 0
    for shape, wanted in zip(shapes, times, strict=True):
        told = sum(found[name] * amount for name, amount in shape.terms().items())
        assert told == pytest.approx(wanted, rel=1e-6)


def test_the_shipped_model_grows_with_the_work() -> None:
    model = CostModel.load()
    base = Shape(items=10_000, dim=64)
    assert 0 < model.p50_ms(base) < model.p95_ms(base)
    for change in ({"items": 10**6}, {"history": 500, "blocks": 2}, {"blocks": 4}, {"batch": 64}):
        assert model.p50_ms(base.model_copy(update=change)) > model.p50_ms(base)
    assert model.held_out_cells > 0 and model.machine in model.told


def test_a_model_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMREC_COST", str(tmp_path / "absent.json"))
    with pytest.raises(UsageError, match=r"SLIMREC_COST: .*absent.json cannot be read"):
        CostModel.load()
    (tmp_path / "absent.json").write_text("{}")
    with pytest.raises(UsageError, match=r"absent.json"):
        CostModel.load()


def test_the_grid_has_each_cell_once_and_some_held_out() -> None:
    cells = grid()
    assert len({cell.shape for cell in cells}) == len(cells)
    assert {cell.sweep for cell in cells} == {"items", "history", "batch", "threads", "dim", "blocks", "mixed"}
    assert sum(cell.held_out for cell in cells) == 12
    assert max(cell.shape.items for cell in cells) == 10**7


def test_cells_are_measured_and_fitted() -> None:
    shapes = [Shape(items=n, dim=8, precision=p) for n, p in product((200, 2000), PRECISIONS)]
    cells = [Cell(shape, "items") for shape in shapes]
    cells += [
        Cell(Shape(items=200, dim=8, batch=3, threads=2), "batch"),
        Cell(Shape(items=2000, dim=16), "mixed", True),
    ]
    cells.append(Cell(Shape(items=10**12, dim=64), "items"))
    found = scaling(cells, seconds=0.02)
    assert [row.shape for row in found.rows] == [cell.shape for cell in cells[:-1]]
    assert all(0 < row.p50_ms <= row.p95_ms for row in found.rows)
    assert [one.why for one in found.not_measured] == ["not enough free memory"]
    assert (found.model.fitted_cells, found.model.held_out_cells) == (5, 1)
    table = markdown(found)
    assert table.count("| 2,000 |") == 3 and "not measured: 1000000000000 items" in table
    assert chart(found).startswith("<svg") and "int8 model" in chart(found)
