"""The choice, on rows made by hand: the budget first, then accuracy, then bytes, and never slower than its fp32."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.models.folder import read_json, write_json
from compress.select import SelectConfig, choose, front, select
from compress.stage import RunOptions

Row = dict[str, Any]


def row(
    variant: str,
    precision: str = "fp32",
    valid: float = 0.10,
    mb: float = 1.0,
    p95: float = 1.0,
    ratio: tuple[float, float] = (1.0, 1.0),
    **fields: Any,
) -> Row:
    """ratio: lowest and highest speed-up over the own fp32, round by round."""
    low, high = ratio
    cached = {"path": "cached", "runtime": "onnxruntime", "device": "cpu", "p95_ms": p95}
    return {
        "name": f"{variant}-{precision}",
        "role": "student",
        "variant": variant,
        "seed": 0,
        "precision": precision.split("_")[0],
        "size_bytes": int(mb * 1e6),
        "accuracy": {"valid": {"ndcg@10": valid}},
        "latency": [cached | {"ratio_to_fp32": {"median": (low + high) / 2, "low": low, "high": high}}],
    } | fields


def chosen(rows: list[Row], **budget: Any) -> str | None:
    name: str | None = choose(SelectConfig.model_validate(budget), rows)["selected"]
    return name


def test_the_variant_that_validates_best_ships_as_its_smallest_precision() -> None:
    rows = [row("a", valid=0.2, mb=4), row("a", "int8_x", valid=0.199, mb=1), row("b", valid=0.1, mb=0.1)]
    choice = choose(SelectConfig(), rows)
    assert choice["selected"] == "a-int8_x"
    assert choice["reason"] == "a-int8_x: best validation NDCG@10 inside the budget (0.1990), 1.000 MB, p95 1.000 ms"
    assert choice["budget"] == {"max_ndcg_drop": 0.01, "max_segment_drop": 0.05}
    assert choice["nearest"] == []


@pytest.mark.parametrize(("limit", "expected"), [(None, "big-fp32"), (4.0, "big-fp32"), (3.9, "small-fp32")])
def test_size(limit: float | None, expected: str) -> None:
    rows = [row("big", valid=0.2, mb=4), row("small", valid=0.1, mb=1)]
    assert chosen(rows, max_size_mb=limit) == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, "slow-fp32"), (2.5, "slow-fp32"), (2.4, "fast-fp32")])
def test_p95(limit: float | None, expected: str) -> None:
    rows = [row("slow", valid=0.2, p95=2.5), row("fast", valid=0.1, p95=1)]
    assert chosen(rows, max_p95_ms=limit) == expected


@pytest.mark.parametrize(("drop", "expected"), [(0.01, "a-fp32"), (0.03, "a-int8_fine"), (0.1, "a-int8_rough")])
def test_ndcg_drop_is_relative_to_the_own_fp32(drop: float, expected: str) -> None:
    """.194 of .2 lost 3 %, .18 lost 10 %; the other variant's .3 is no measure."""
    rows = [
        row("a", valid=0.2, mb=4),
        row("a", "int8_fine", valid=0.1941, mb=2),
        row("a", "int8_rough", valid=0.1801, mb=1),
        row("b", "int8_x", valid=0.15, mb=0.1),
    ]
    assert chosen(rows, max_ndcg_drop=drop) == expected


def test_a_precision_that_gained_is_inside() -> None:
    assert chosen([row("a", valid=0.2, mb=4), row("a", "int8_x", valid=0.21)], max_ndcg_drop=0.0) == "a-int8_x"


def test_int8_that_is_slower_by_the_median_gives_way_to_fp32() -> None:
    rows = [row("a", mb=4), row("a", "int8_x", mb=1, ratio=(0.8, 1.1))]
    choice = choose(SelectConfig(), rows)
    assert choice["selected"] == "a-fp32"
    assert choice["reason"].endswith("slower than fp32 here, so not chosen: a-int8_x")


def test_int8_that_is_slower_on_another_path_gives_way_too() -> None:
    rows = [row("a", mb=4), row("a", "int8_x", mb=1, ratio=(1.1, 1.2))]
    like = {"path": "like", "runtime": "onnxruntime", "device": "cpu", "p95_ms": 0.1}
    for found, ratio in zip(rows, (1.0, 0.9), strict=True):
        found["latency"].append(like | {"ratio_to_fp32": {"median": ratio, "low": ratio, "high": ratio}})
    assert chosen(rows) == "a-fp32"


def test_int8_that_is_as_fast_by_the_median_is_chosen() -> None:
    assert chosen([row("a", mb=4), row("a", "int8_x", mb=1, ratio=(0.8, 1.2))]) == "a-int8_x"


def test_where_fp32_is_too_large_a_slower_int8_ships() -> None:
    assert chosen([row("a", mb=4), row("a", "int8_x", mb=1, ratio=(0.5, 0.6))], max_size_mb=2) == "a-int8_x"


def test_variants_compete_by_their_fp32_not_by_luck_of_rounding() -> None:
    rows = [
        row("a", valid=0.200, mb=4),
        row("a", "int8_x", valid=0.199, mb=1),
        row("b", valid=0.198, mb=4),
        row("b", "int8_x", valid=0.201, mb=1),
    ]
    assert chosen(rows) == "a-int8_x"


def test_of_two_equally_small_the_name_decides_whatever_the_order() -> None:
    rows = [row("a", mb=4), row("a", "int8_y"), row("a", "int8_x")]
    assert chosen(rows) == chosen(rows[::-1]) == "a-int8_x"


def test_nobody_inside_names_the_nearest() -> None:
    """Over by 2x and 50 %, by 10 %, by 20 %, by 1 + 3x."""
    rows = [
        row("a", mb=3, p95=1.5),
        row("b", mb=1.1, p95=0.5),
        row("c", mb=0.5, p95=1.2),
        row("d", mb=2, p95=4),
    ]
    choice = choose(SelectConfig(max_size_mb=1, max_p95_ms=1), rows)
    assert choice["selected"] is None
    assert choice["nearest"] == ["b-fp32", "c-fp32", "a-fp32"]
    assert choice["reason"] == (
        "no candidate is inside the budget; nearest: b-fp32: max_size_mb exceeded by 10%; "
        "c-fp32: max_p95_ms exceeded by 20%; a-fp32: max_size_mb exceeded by 200%, max_p95_ms exceeded by 50%"
    )
    assert choice["front"] == ["b-fp32", "c-fp32"]


def test_no_candidates_at_all() -> None:
    choice = choose(SelectConfig(), [])
    assert (choice["selected"], choice["nearest"], choice["front"]) == (None, [], [])
    assert "there are no candidates" in choice["reason"]


def test_pareto_front_by_hand() -> None:
    rows = [
        row("best", valid=0.3, mb=3, p95=3),
        row("fast", valid=0.1, mb=3, p95=1),
        row("small", valid=0.1, mb=1, p95=3),
        row("middle", valid=0.2, mb=2, p95=2),
        row("worse", valid=0.2, mb=2.5, p95=2),  # as middle, larger
        row("beaten", valid=0.1, mb=3, p95=3),
        row("twin", valid=0.2, mb=2, p95=2),  # equal in all: neither beats the other
    ]
    assert front(rows) == ["best-fp32", "fast-fp32", "small-fp32", "middle-fp32", "twin-fp32"]


ROWS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.booleans()), min_size=1, max_size=8
).map(
    lambda values: [
        row(f"v{i // 2}", "int8_x" if i % 2 else "fp32", v / 10, m, p, (0.5, 0.9) if slow and i % 2 else (1, 1))
        for i, (v, m, p, slow) in enumerate(values)
    ]
)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
def test_any_choice_keeps_the_budget_and_any_refusal_has_none_inside(
    rows: list[Row], mb: int, p95: int, drop: float
) -> None:
    fp32 = {r["variant"]: r["accuracy"]["valid"]["ndcg@10"] for r in rows if r["precision"] == "fp32"}
    inside = {
        r["name"]: r
        for r in rows
        if r["size_bytes"] <= mb * 1e6
        and r["latency"][0]["p95_ms"] <= p95
        and 1 - r["accuracy"]["valid"]["ndcg@10"] / fp32[r["variant"]] <= drop
    }
    choice = choose(SelectConfig(max_size_mb=mb, max_p95_ms=p95, max_ndcg_drop=drop), rows)
    assert (choice["selected"] in inside) if inside else choice["selected"] is None
    assert choice["front"]
    if inside:
        variant = inside[choice["selected"]]["variant"]
        assert fp32[variant] == max(fp32[r["variant"]] for r in inside.values())


def test_the_stage_leaves_out_teachers_baselines_and_seeds_without_times(tmp_path: Path) -> None:
    models = [
        row("t", valid=0.9, role="teacher"),
        row("p", valid=0.8, role="baseline", latency=[]),
        row("a", valid=0.7, latency=[]),
        row("c", valid=0.2, role="control"),
        row("s", valid=0.1),
    ]
    write_json(tmp_path / "measurements.json", {"models": models})
    out, said = tmp_path / "out", []
    out.mkdir()
    select(SelectConfig(), {"bench": tmp_path}, out, RunOptions(log=said.append))
    choice = read_json(out / "choice.json")
    assert choice["selected"] == "c-fp32"
    assert choice["front"] == ["c-fp32"]
    assert said == [choice["reason"]]
