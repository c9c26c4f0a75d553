"""The page from made-up but plausible numbers: complete, self-contained and drawn in a real browser."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.result import Comparison, Result
from compress import charts
from compress.report import Details, leading_models, milliseconds, number, render_report, size, times, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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


def samples() -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    rng = np.random.default_rng(0)
    result = example()
    return {
        charts.latency_name(model, row): row.p50_ms * rng.lognormal(0, 0.15, 1000)
        for model in result.models
        for row in model.latency
    }


def test_pareto_front_by_hand() -> None:
    result = example()
    names = [point.name for point in charts.pareto_front(charts.points_by_size(result))]
    assert names[0] == "pruned-int8"
    assert names[-1] in ("teacher", "student-fp32")
    costs = [point.cost for point in charts.pareto_front(charts.points_by_size(result))]
    assert costs == sorted(costs)
    assert "EASE" not in names


def test_verdicts() -> None:
    def compared(low: float, high: float) -> str:
        item = {"a": "a", "b": "b", "metric": "ndcg@10", "difference": 0, "ci95": [low, high]}
        return Comparison.model_validate(item).verdict

    assert [compared(0.1, 0.2), compared(-0.1, 0.1), compared(-0.2, -0.1)] == ["better", "tie", "worse"]


def test_teacher_shows_both_paths() -> None:
    names = [point.name for point in charts.points_by_latency(example())]
    assert {"teacher", "teacher, text path"} <= set(names)


def test_labels_stay_inside_and_baselines_do_not_flatten_the_plot() -> None:
    result = example()
    figure = charts.trade_off(result, charts.points_by_latency(result), "ms").to_plotly_json()
    anchors = {label["text"]: label["xanchor"] for label in figure["layout"]["annotations"]}
    assert anchors["teacher, text path"] == "right"
    assert anchors["student-int8"] == "left"
    assert "popularity" not in anchors
    low, high = figure["layout"]["yaxis"]["range"]
    assert 0.05 < low < 0.12 < high < 0.15


def test_a_failed_gate_is_said() -> None:
    page = render_report(
        example(gate={"passed": False, "teacher_valid": 0.1, "control_valid": 0.11}, transfer_ratio=None), Details()
    )
    assert "does not beat the control on validation" in page
    assert "not passed" in page


def test_a_text_encoder_stands_beside_its_teachers_vectors() -> None:
    page, table = render_report(example(), Details()), tables.markdown(example())
    for word in ("text-int8_dynamic", "0.0361", "0.0374", "3.95 MB"):
        assert word in page
    assert "| text int8_dynamic | 3.95 | 0.420 | 21.5 | 0.0361 | 0.0374 |" in table.splitlines()
    none = example(text_encoders=[])
    assert "Text encoders" not in render_report(none, Details())
    assert "text encoder |" not in tables.markdown(none)


def test_summary_shows_the_chosen_of_each_role() -> None:
    assert [model.name for model in leading_models(example())] == ["teacher", "student-int8", "control-int8", "EASE"]


def test_units() -> None:
    assert [size(0), size(999), size(1_500), size(12_340_000)] == ["–", "999 B", "1.5 kB", "12.3 MB"]  # noqa: RUF001
    assert [milliseconds(None), milliseconds(0.1234), milliseconds(12.34)] == ["–", "0.123", "12.3"]  # noqa: RUF001
    assert [times(1.666), times(95.4), number(0.12345), number(None)] == ["1.7×", "95×", "0.1235", "–"]  # noqa: RUF001


def test_every_number_has_a_text_alternative() -> None:
    page = render_report(example(), Details())
    assert page.count('class="plot"') == page.count("<figcaption>") == 6
    for word in ("no CUDA device", "Example CPU", "numpy 2.0", "teacher-scratch", "popularity", "tie", "worse"):
        assert word in page


def test_nothing_selected_and_nothing_measured() -> None:
    page = render_report(
        example(selected=None, selection={"reason": "All are too slow.", "nearest": ["student-int8"]}, bundle=None),
        Details(),
    )
    assert "No candidate fits the budget" in page
    assert "Nearest: student-int8" in page
    empty = render_report(example(models=[], comparisons=[], stages=[], gate=None, selected=None), Details())
    assert 'class="plot"' not in empty


def test_markup_in_names_stays_text() -> None:
    hostile = "</script><script>alert(1)</script><img src=x>"
    result = example()
    renamed = [model.model_copy(update={"name": hostile}) for model in result.models]
    page = render_report(
        result.model_copy(update={"models": renamed, "recipe": hostile, "selected": hostile}), Details()
    )
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_figures_are_json_with_what_was_given() -> None:
    page = render_report(example(), Details(latency_ms=samples()))
    found = {
        name: json.loads(text)
        for name, text in re.findall(
            r'<script type="application/json" data-plot="(\w+)">(.*?)</script>', page, re.DOTALL
        )
    }
    assert len(found) == 6
    assert {trace["type"] for trace in found["latencies"]["data"]} == {"box"}
    assert [trace["name"] for trace in found["stages"]["data"]] == ["this run", "from the store"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
def test_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(example(), Details(latency_ms=samples()), page)
    dom = browse(page, tmp_path, "--dump-dom")
    # Each plot has a layer for its data; what the browser drew is in the DOM.
    assert len(re.findall(r'<svg[^>]*class="main-svg"', dom)) >= 6
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dom)) == 6
    assert dom.count('class="scatterlayer') >= 4
    fetched = re.findall(
        r'(?:src|href|action)\s*=\s*["\']?(?!#|data:|blob:)([^"\'\s>]+)',
        re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL),
    )
    assert fetched == []
    assert "default-src 'none'" in dom


def browse(page: Path, folder: Path, *arguments: str) -> str:
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000"),
        f"--user-data-dir={folder / 'profile'}",
        *arguments,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
