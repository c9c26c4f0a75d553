"""A made-up but plausible result, and what may be measured beside it: what the tests of the page draw."""

import random
from typing import Any

from benchmarks.bench.record import BenchResult
from benchmarks.result import Result
from compress.report.extras import Extras, PeerRow


def metrics(rng: random.Random, level: float) -> dict[str, Any]:
    value = level * rng.uniform(0.95, 1.05)
    return {
        "ndcg@10": value,
        "ndcg@10_ci95": [value - 0.008, value + 0.008],
        "recall@10": value * 1.9,
        "precision@10": value * 0.19,
        "f1@10": value * 0.34,
        "mrr": value * 0.8,
        "coverage@10": 0.4,
        "auc": None,
        "uauc": None,
        "cases": 900,
    }


def model(
    rng: random.Random, name: str, role: str, precision: str, level: float, ms: float, mb: float
) -> dict[str, Any]:
    def row(path: str, p50: float) -> dict[str, Any]:
        return {
            "path": path,
            "runtime": "onnxruntime",
            "device": "cpu",
            "threads": 1,
            "batch": 1,
            "history": 20,
            "items": 1000,
            "p50_ms": p50,
            "p95_ms": p50 * 1.3,
            "p99_ms": p50 * 1.7,
            "per_second": 1000 / p50,
            "runs": 1000,
            "percentiles_ms": {1: p50 * 0.8, 5: p50 * 0.85, 25: p50 * 0.93, 75: p50 * 1.1},
            "ratio_to_teacher": {"median": 0.7 / p50, "low": 0.66 / p50, "high": 0.75 / p50},
            "ratio_to_teacher_text": {"median": 95 / p50, "low": 90 / p50, "high": 99 / p50},
        }

    return {
        "name": name,
        "role": role,
        "variant": name.partition("-")[0],
        "chosen": name in ("teacher", "student-int8", "control-int8", "EASE"),
        "precision": precision,
        "params": int(mb * 250_000),
        "size_bytes": int(mb * 1e6),
        "accuracy": {
            "valid": metrics(rng, level),
            "test": metrics(rng, level),
            "segments": {
                "cold_items": metrics(rng, level / 5) if role == "teacher" else {},
                "tail_items": metrics(rng, level / 3),
                "short_history": metrics(rng, level * 0.8),
            },
        },
        "latency": [row("cached", ms), *([row("text", 95.0)] if role == "teacher" else [])] if ms else [],
        "rss_mb": 90 + mb if ms else None,
        "load_ms": 400 + mb if ms else None,
    }


def example(**changes: Any) -> Result:
    rng = random.Random(0)
    models = [
        model(rng, "teacher", "teacher", "fp32", 0.126, 0.7, 92.0),
        model(rng, "teacher-scratch", "teacher", "fp32", 0.118, 0.7, 92.0),
        model(rng, "student-fp32", "student", "fp32", 0.122, 0.24, 1.6),
        model(rng, "student-int8", "student", "int8", 0.121, 0.19, 0.5),
        model(rng, "pruned-int8", "student", "int8", 0.114, 0.15, 0.4),
        model(rng, "control-fp32", "control", "fp32", 0.113, 0.24, 1.6),
        model(rng, "control-int8", "control", "int8", 0.112, 0.19, 0.5),
        model(rng, "EASE", "baseline", "fp32", 0.099, 0, 4.0),
        model(rng, "popularity", "baseline", "fp32", 0.045, 0, 0),
    ]
    names = ["data", "baselines", "pretrain", "source", "target", "distil", "prune", "quantize", "bench"]
    given: dict[str, Any] = {
        "recipe": "recipes/example.yaml",
        "commit": "0" * 40,
        "machine": {
            "cpu": "Example CPU",
            "flags": ["avx2"],
            "cores": 2,
            "versions": {"python": "3.11.0", "numpy": "2.0"},
            "load_average": [0.3, 0.2, 0.1],
        },
        "dataset": {"name": "made-up films", "users": 900, "items": 1000, "interactions": 50_000},
        "protocol": {"split": "leave-one-out", "seeds": [0, 1, 2]},
        "models": models,
        "text_encoders": [
            {
                "name": "text-int8_dynamic",
                "variant": "text",
                "seed": 0,
                "precision": "int8",
                "kind": "language_model",
                "size_bytes": 3_950_000,
                "p50_ms": 0.42,
                "ratio_to_teacher": {"median": 21.5, "low": 20.1, "high": 22.0},
                "ranked_by": "student-fp32",
                "cold_items": {"ndcg@10": 0.0361},
                "cold_items_of_teacher": {"ndcg@10": 0.0374},
            }
        ],
        "gate": {"passed": True, "teacher_valid": 0.126, "control_valid": 0.113},
        "transfer_ratio": 0.62,
        "comparisons": [
            {
                "a": "student-int8",
                "b": "control-int8",
                "metric": "ndcg@10",
                "difference": 0.009,
                "ci95": [0.003, 0.015],
                "p_holm": 0.01,
            },
            {
                "a": "student-int8",
                "b": "student-fp32",
                "metric": "ndcg@10",
                "difference": -0.001,
                "ci95": [-0.003, 0.001],
            },
            {
                "a": "student-int8",
                "b": "teacher",
                "metric": "ndcg@10",
                "difference": -0.006,
                "ci95": [-0.01, -0.002],
                "segment": "tail_items",
            },
        ],
        "selected": "student-int8",
        "selection": {
            "reason": "The most accurate candidate on validation inside the budget; int8 loses 0.8 % against its fp32.",
            "budget": {"max_p95_ms": 5, "max_size_mb": 12},
            "refused": {"control-fp32": ["max_size_mb exceeded by 33%"], "pruned-int8": ["slower than pruned-fp32"]},
        },
        "bundle": {
            "path": "bundle.slim",
            "digest": "sha256:" + "0" * 64,
            "size_bytes": 9_000_000,
            "text_encoder_bytes": 8_000_000,
        },
        "not_measured": [{"what": "cuda latency", "why": "no CUDA device"}],
        "stages": [
            {"name": name, "seconds": rng.uniform(1, 60), "cached": cached, "variant": variant}
            for name in names
            for variant, cached in (("transfer", False), ("scratch", name in ("data", "pretrain")))
        ],
    }
    return Result.model_validate({**given, **changes})


def bench() -> BenchResult:
    """Two graphs under a roof: 8 kop per 32 kB of weights, and the same in INT8."""

    def row(precision: str, p50: float, floats: int, integers: int, read: int) -> dict[str, Any]:
        floor = {"bytes_read": read, "flops": floats, "int8_ops": integers, "floor_ms": p50 / 20, "bound": "memory"}
        given = model(random.Random(0), "student", "student", precision, 0.1, p50, 1.0)["latency"][0]
        return {**given, "precision": precision, "floor": {**floor, "times_floor": 20.0}}

    return BenchResult.model_validate(
        {
            "bundle": example().bundle,
            "machine": example().machine,
            "latency": [row("fp32", 0.2, 80_000, 0, 320_000), row("int8", 0.1, 1000, 79_000, 80_000)],
            "roofs": [
                {"threads": 1, "gb_per_s": {"262144": 40.0, "268435456": 10.0}, "gflops": 80.0, "int8_gops": 160.0}
            ],
        }
    )


def extras() -> Extras:
    """The bench record, and two peers, one of which ranks nothing."""
    peers = [
        PeerRow(
            name="other library", version="1.2", ndcg=0.118, p50_ms=1.9, bytes=2_400_000, install_mb=1800, cold_s=4.2
        ),
        PeerRow(name="another", p50_ms=0.5),
    ]
    return Extras([bench()], peers)
