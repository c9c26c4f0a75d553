"""`evaluate` on a real bundle."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from benchmarks.commands import evaluate, parse_columns
from benchmarks.evaluate import evaluate_bundle, leave_one_out
from deploy.errors import UsageError
from deploy.tables import read_interactions


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three users of the bundle's items; `item-99` is unknown to it, and u3 has one known event only."""
    events = [
        *[("u1", f"item-{row}", time) for time, row in enumerate((1, 2, 3, 4))],
        *[("u2", item, time) for time, item in enumerate(("item-5", "item-99", "item-6", "item-99"))],
        *[("u3", item, time) for time, item in enumerate(("item-99", "item-7"))],
        *[("u4", item, time) for time, item in enumerate(("item-8", "item-9", "item-8"))],
    ]
    path = tmp_path / "shop.csv"
    lines = ["customer,item_id,timestamp", *(f"{user},{item},{time}" for user, item, time in events)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_evaluate_by_hand(bundle: Path, data: Path, table: NDArray[np.float32]) -> None:
    found = evaluate_bundle(bundle, data, {"user": "customer"})
    gains = []
    for history, target in [([1, 2, 3], 4), ([5], 6), ([8, 9], 8)]:
        scores = table @ table[history].mean(axis=0)
        scores[[0, *history]] = -np.inf
        rank = int((scores > scores[target]).sum()) + 1
        gains.append(1 / np.log2(1 + rank) if rank <= 10 and target not in history else 0.0)
    assert [entry.precision for entry in found.accuracy] == ["fp32", "int8"]
    assert found.accuracy[0].test.ndcg_10 == pytest.approx(np.mean(gains))
    assert found.accuracy[0].test.cases == found.dataset.users == 3
    assert found.dataset.interactions == 9
    assert found.dataset.items == 8
    assert found.left_out.events_of_unknown_items == 3
    assert found.left_out.users_with_too_few_events == 1
    assert found.left_out.targets_seen_before == 1


def test_cases_skip_unknown_items(data: Path) -> None:
    interactions = read_interactions(data, {"user": "customer"})
    rows = [0 if item == "item-99" else int(item[5:]) for item in interactions.items]
    cases = leave_one_out(interactions, rows)
    assert [history.tolist() for history in cases.histories] == [[1, 2, 3], [5], [8, 9]]
    assert cases.targets.tolist() == [4, 6, 8]


def test_evaluate_prints(bundle: Path, data: Path) -> None:
    arguments = [str(bundle), str(data), "--columns", "user=customer", "--precision", "fp32"]
    shown = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert "NDCG@10" in shown.output
    assert "3 events of unknown items" in shown.output
    printed = CliRunner().invoke(evaluate, [*arguments, "--json"], catch_exceptions=False)
    assert [entry["precision"] for entry in json.loads(printed.output)["accuracy"]] == ["fp32"]


def test_nobody_to_evaluate(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\n")
    with pytest.raises(UsageError, match="no user has two events"):
        evaluate_bundle(bundle, path)


def test_parse_columns() -> None:
    assert parse_columns("user=customer, item=sku") == {"user": "customer", "item": "sku"}
    assert parse_columns("") == {}
    for text in ("user", "user=", "=x", "user=a,user=b"):
        with pytest.raises(UsageError, match="--columns"):
            parse_columns(text)
