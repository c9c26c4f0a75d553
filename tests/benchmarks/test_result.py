"""The forms of DESIGN: the example of result.json round-trips and the shipped schema is current."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.accuracy import summarise
from benchmarks.result import SCHEMA_FILE, Metrics, Result, schema_text

EXAMPLE: dict[str, Any] = {
    "schema": 1,
    "recipe": "recipes/tiny.yaml",
    "commit": "abc",
    "machine": {"cpu": "x", "flags": ["avx2"], "cores": 2, "versions": {"python": "3.11"}},
    "dataset": {"name": "tiny", "users": 1, "items": 2, "interactions": 3},
    "protocol": {"split": "leave-one-out", "ranking": "full", "seen_excluded": True, "seeds": [0]},
    "models": [
        {
            "name": "student-int8",
            "role": "student",
            "variant": "main",
            "chosen": True,
            "precision": "int8",
            "params": 10,
            "size_bytes": 20,
            "accuracy": {
                "valid": {"ndcg@10": 0.5},
                "test": {"ndcg@10": 0.5, "ndcg@10_ci95": [0.4, 0.6], "auc": None, "uauc": None},
                "segments": {"cold_items": {}, "tail_items": {"ndcg@10": 0.1}, "short_history": {}},
            },
            "latency": [
                {
                    "path": "cached",
                    "runtime": "onnxruntime",
                    "device": "cpu",
                    "threads": 1,
                    "batch": 1,
                    "history": 20,
                    "items": 2,
                    "p50_ms": 1,
                    "p95_ms": 2,
                    "p99_ms": 3,
                    "per_second": 4,
                    "runs": 5,
                }
            ],
            "rss_mb": 100,
            "load_ms": 50,
        }
    ],
    "gate": {"passed": True, "teacher_valid": 0.6, "control_valid": 0.5},
    "transfer_ratio": None,
    "comparisons": [{"a": "a", "b": "b", "metric": "ndcg@10", "difference": 0.1, "ci95": [0, 0.2]}],
    "selected": None,
    "bundle": {"path": "bundle.slim", "digest": "sha256:0", "size_bytes": 1, "text_encoder_bytes": 0},
    "not_measured": [{"what": "cuda latency", "why": "no CUDA device"}],
    "stages": [{"name": "data", "seconds": 1, "cached": False}],
}


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


def test_every_published_field_round_trips() -> None:
    written = json.loads(Result.model_validate(EXAMPLE).to_json())
    assert contains(written, EXAMPLE)
    assert Result.model_validate(written) == Result.model_validate(EXAMPLE)


def test_metrics_write_only_what_was_measured() -> None:
    assert Metrics.model_validate({"ndcg@10": 0.5, "auc": None}).to_json() == '{"ndcg@10":0.5,"auc":null}'
    assert Metrics().to_json() == "{}"


def test_summaries_fit() -> None:
    ranks, top = np.array([1, 0], dtype=np.int32), np.array([[1, 2], [2, 3]], dtype=np.int32)
    found = summarise(ranks, top, 5)
    assert json.loads(Metrics.model_validate(found).to_json()) == found


@pytest.mark.parametrize("change", [{"extra": 1}, {"transfer_ratio": float("nan")}, {"schema": 2}])
def test_refuses(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Result.model_validate({**EXAMPLE, **change})


def test_shipped_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run: python -m benchmarks.result"
