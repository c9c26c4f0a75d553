"""The compression table: every measure by hand, the shipped plan, and the command on the tiny recipe."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks import compression
from benchmarks.compressed import MEASURES, Measured
from benchmarks.compression import CASES, Case, Plan, main, markdown, row
from benchmarks.result import Result
from benchmarks.studies import read_plan
from deploy.errors import UsageError

MACHINE = {"cpu": "a", "flags": [], "cores": 1, "versions": {}}
CONDITIONS = {"runtime": "onnxruntime", "device": "cpu", "threads": 1, "batch": 1, "history": 5, "items": 9, "runs": 9}
TIMES = {"p50_ms": 0.1, "p95_ms": 0.2, "p99_ms": 0.3, "per_second": 10.0}


def ratio(median: float) -> dict[str, float]:
    return {"median": median, "low": median, "high": median}


def model(name: str, role: str, size: int, valid: float = 0.5, **more: Any) -> dict[str, Any]:
    """`variant@seed-quantizer`; latency as of a graph four times faster than the teacher."""
    variant, _, quantizer = name.rpartition("-")
    served = {"ratio_to_teacher": ratio(4), "ratio_to_teacher_text": ratio(200), "ratio_to_fp32": ratio(1.25)}
    row = {
        "name": name,
        "role": role,
        "variant": variant.partition("@")[0],
        "chosen": True,
        "precision": quantizer.partition("_")[0],
        "size_bytes": size,
        "accuracy": {"valid": {"ndcg@10": valid}},
        "latency": [{"path": "cached", **CONDITIONS, **TIMES, **served}],
    }
    return row | more


def encoder(name: str, kind: str, size: int, own: float, teachers: float, faster: float) -> dict[str, Any]:
    cold = {"cold_items": {"ndcg@10": own}, "cold_items_of_teacher": {"ndcg@10": teachers}}
    return {
        "name": name,
        "variant": name.partition("-")[0],
        "seed": 0,
        "precision": name.rpartition("-")[2].partition("_")[0],
        "kind": kind,
        "size_bytes": size,
        "ratio_to_teacher": ratio(faster),
        "ranked_by": "student-fp32",
        **cold,
    }


def run_of(models: list[dict[str, Any]], ranks: dict[str, list[int]], **more: Any) -> Measured:
    result = {
        "recipe": "r",
        "commit": "c",
        "machine": MACHINE,
        "dataset": {"name": "d", "users": 4, "items": 9, "interactions": 20},
        "protocol": {"split": "leave-one-out", "seeds": [0, 1]},
        "models": models,
    }
    arrays = {f"{name}/test": np.array(values, np.int32) for name, values in ranks.items()}
    return Measured(Result.model_validate(result | more), arrays)


FIRST, NEVER = [1, 1, 1, 1], [0, 0, 0, 0]
MODELS = [
    model("control-fp32", "control", 9),
    model("teacher-fp32", "teacher", 900),
    model("student-fp32", "student", 10),
    model("student@1-fp32", "student", 10),
    model("student-int8_per_row", "student", 5, 0.4, top10_overlap=0.5),
    model("student-int8_dynamic", "student", 5, 0.6, top10_overlap=0.99),
    model("student@1-int8_per_row", "student", 5, 0.4, top10_overlap=0.5),
    model("student@1-int8_dynamic", "student", 5, 0.6, top10_overlap=0.97),
]
RANKS = {
    "control-fp32": [1, 1, 1, 0],
    "teacher-fp32": FIRST,
    "student-fp32": FIRST,
    "student@1-fp32": FIRST,
    "student-int8_dynamic": FIRST,
    "student@1-int8_dynamic": [1, 1, 1, 3],
    "student-int8_per_row": NEVER,
    "student@1-int8_per_row": NEVER,
}


def got(run: Measured) -> dict[str, float]:
    return {name: found.value for name, how in MEASURES.items() if (found := how.read(run)) is not None}


def test_every_ranking_measure_by_hand() -> None:
    run = run_of(
        MODELS,
        RANKS,
        selected="student-int8_dynamic",
        transfer_ratio=0.75,
        bundle={"path": "b", "digest": "d", "size_bytes": 2_000_000, "text_encoder_bytes": 1},
        text_encoders=[
            encoder("text-fp32", "language_model", 8_000_000, 0.4, 0.4, 5),
            encoder("text-int8_dynamic", "language_model", 2_000_000, 0.3, 0.4, 25),
            encoder("table-fp32", "static", 1_000_000, 0.1, 0.4, 120),
        ],
    )
    assert got(run) == pytest.approx(
        {
            "student over control": 4 / 3,
            "share of the teacher's lead": 0.75,
            "student over teacher": 1.0,
            "INT8, top 10 as fp32": 0.98,  # of the quantizer that validates better
            "INT8, NDCG@10 lost": 0.5 / 8,  # one of eight answers at place 3
            "speed of what ships over its fp32": 1.25,
            "teacher's bytes over the shipped": 180,
            "bundle, MB": 2.0,
            "times faster than the teacher, cached": 4,
            "times faster than the teacher, from texts": 200,
            "text encoder, MB": 2.0,
            "text encoder, share of cold NDCG@10": 0.75,
            "text encoder, times faster than the LM": 25,
            "static encoder, share of cold NDCG@10": 0.25,
            "static encoder, times faster than the LM": 120,
        }
    )


def test_like_dislike_measures_by_hand() -> None:
    def likes(name: str, role: str, auc: float) -> dict[str, Any]:
        accuracy = {"valid": {"auc": auc}, "test": {"auc": auc, "uauc": auc - 0.1}}
        return model(name, role, 3_000_000, accuracy=accuracy, latency=[])

    models = [likes("teacher-fp32", "teacher", 0.8), likes("student-fp32", "student", 0.79)]
    run = run_of([*models, likes("student-int8_dynamic", "student", 0.76)], {})
    expected = {"INT8 student, AUC": 0.76, "INT8 student, UAUC": 0.66}
    assert got(run) == pytest.approx(
        expected | {"INT8 student, AUC lost to the teacher": 0.05, "INT8 student, MB": 3.0}
    )


def test_a_lead_whose_interval_holds_zero_is_not_met() -> None:
    run = run_of(MODELS, RANKS)  # one user in four is better off
    asked = {"student over control": 1.03, "INT8, NDCG@10 lost": 0.1}
    findings = {found.measure: found for found in row("one", Case(recipe="r"), asked, run).findings}
    assert findings["student over control"].got > 1.3 and findings["student over control"].met is False
    assert findings["INT8, NDCG@10 lost"].met is True  # at most
    assert findings["student over teacher"].met is None  # not asked
    assert "tie" in findings["student over control"].detail


def test_the_shipped_plan_asks_for_measures_there_are() -> None:
    plan = read_plan(CASES, Plan)
    assert set(plan.asked).union(*(case.asked for case in plan.cases.values())) == set(MEASURES)
    for case in plan.cases.values():
        shipped = Path(__file__).parents[2] / "recipes" / f"{case.recipe}.yaml"
        assert set(case.leave) < set(yaml.safe_load(shipped.read_text("utf-8"))["variants"])


def test_the_committed_table_is_made_of_its_rows() -> None:
    rows = compression.table().read()
    assert {found.name for found in rows} <= set(read_plan(CASES, Plan).cases)
    assert not rows or compression.TABLE.with_suffix(".md").read_text("utf-8") == markdown(rows)


def test_the_command_on_the_tiny_recipe(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = str(Path(__file__).parents[2] / "recipes" / "tiny.yaml")
    plan = {"asked": {"bundle, MB": 100}, "cases": {"made": {"recipe": tiny}}}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(plan))
    monkeypatch.setattr(compression, "CASES", tmp_path / "cases.yaml")
    monkeypatch.setattr(compression, "TABLE", tmp_path / "compression.json")
    monkeypatch.setenv("SLIMREC_STORE", str(tiny_store))
    main.main(["--seeds", "0", "--out", str(tmp_path / "runs")], standalone_mode=False)
    (made,) = compression.table().read()
    found = {finding.measure: finding for finding in made.findings}
    assert found["bundle, MB"].met is True and 0 < found["bundle, MB"].got < 100
    assert found["text encoder, MB"].got > 0 and found["text encoder, times faster than the LM"].got > 0
    assert (tmp_path / "compression.md").read_text() == markdown([made])
    with pytest.raises(UsageError, match="there are: made"):
        main.main(["other"], standalone_mode=False)
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(plan | {"asked": {"beauty": 1.0}}))
    with pytest.raises(UsageError, match="no such measure: beauty"):
        main.main([], standalone_mode=False)
