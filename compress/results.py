"""`result.json` from what the stages left: models, comparisons, gate, transfer ratio, choice."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg
from benchmarks.intervals import holm, paired_tests
from benchmarks.machine import commit
from benchmarks.measure import percentiles
from benchmarks.result import (
    BundleInfo,
    Comparison,
    Dataset,
    Gate,
    Model,
    NotMeasured,
    Protocol,
    Result,
    Selection,
    StageTime,
    TeacherChoice,
    TextEncoderRow,
    role_and_variant,
)
from compress.models.folder import read_json
from compress.pipeline import Run, source_helps
from compress.recipe import Recipe
from compress.select import SelectConfig, candidates, refusals
from compress.task import EVIDENCE, METRIC, valid_value

Ranks = Mapping[str, NDArray[np.int32] | NDArray[np.float64]]
"""Ranks of cases, or values of users whose mean is the metric, by `<model>/<set>`."""


def assemble(recipe: Recipe, run: Run) -> Result:
    """One record of the whole run, in the schema that ships."""
    data = read_json(run.artifacts["data", None].path / "dataset.json")
    bench = run.artifacts["bench", None].path
    measured = read_json(bench / "measurements.json")
    choice = read_json(run.artifacts["select", None].path / "choice.json")
    metric = METRIC[data.get("task", "ranking")]
    with np.load(bench / EVIDENCE[metric], allow_pickle=False) as file:
        ranks = {name: file[name] for name in file.files}
    rows = measured["models"]
    chosen = chosen_variants(rows)
    leaders = {role: _fp32_names(rows, role, variant) for role, variant in chosen.items()}
    shipped = _named(rows, choice["selected"])
    gates = list(run.gates.values())
    gate = next((g for g in gates if g.passed), gates[0] if gates else None)
    packed = run.artifacts.get(("pack", None))
    select = recipe.shared["select"]
    assert isinstance(select, SelectConfig)
    with np.load(bench / "latency.npz", allow_pickle=False) as file:
        times = {name: percentiles(file[name]) for name in file.files}
    return Result(
        recipe=recipe.name,
        commit=commit(),
        machine=measured["machine"],
        dataset=_dataset(data),
        protocol=Protocol(split=data["protocol"]["split"], seeds=list(recipe.seeds)),
        models=[Model.model_validate(_model(row, chosen, times)) for row in rows if row["role"] != "text_encoder"],
        text_encoders=[TextEncoderRow.model_validate(row) for row in measured["text_encoders"]],
        gate=None if gate is None else Gate(**vars(gate)),
        teacher_choices=[
            TeacherChoice(variant=variant, **vars(choice), source_helps=source_helps(recipe, choice))
            for variant, choice in run.choices.items()
        ],
        search=run.search,
        transfer_ratio=transfer_ratio(leaders, ranks),
        comparisons=comparisons(rows, leaders, shipped, ranks, metric),
        selected=choice["selected"],
        selection=Selection(
            **{key: choice[key] for key in ("reason", "budget", "front", "nearest")},
            refused=refusals(select, candidates(rows), bench),
        ),
        bundle=None if packed is None else BundleInfo(path="bundle.slim", **read_json(packed.path / "pack.json")),
        not_measured=[NotMeasured(**item) for item in [*measured["not_measured"], *_not_measured(recipe, run)]],
        stages=_stages(run),
    )


def chosen_variants(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Per role the variant that validates best in fp32, averaged over seeds."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["precision"] == "fp32":
            values[row["role"], row["variant"]].append(valid_value(row))
    best: dict[str, tuple[float, str]] = {}
    for (role, variant), found in values.items():
        best[role] = max(best.get(role, (-1.0, "")), (float(np.mean(found)), variant))
    return {role: variant for role, (_, variant) in best.items()}


def per_user(names: Sequence[str], ranks: Ranks, cases: str = "test") -> NDArray[np.float64] | None:
    """NDCG@10 of every case (of like/dislike data: the value of every user), averaged over the models named (seeds);
    None where one was not measured on these cases."""
    found = [ranks[f"{name}/{cases}"] for name in names if f"{name}/{cases}" in ranks]
    if not found or len(found) < len(names):
        return None
    gains = [ndcg(r.astype(np.int32), 10) if r.dtype.kind == "i" else r.astype(np.float64) for r in found]
    return np.asarray(np.mean(gains, axis=0), np.float64)


def transfer_ratio(leaders: Mapping[str, Sequence[str]], ranks: Ranks) -> float | None:
    """(student - control) / (teacher - control) on test NDCG@10; None where the teacher is not above the control."""
    values = {role: per_user(leaders[role], ranks) for role in ("student", "control", "teacher") if role in leaders}
    means = {role: float(value.mean()) for role, value in values.items() if value is not None}
    if len(means) < 3 or means["teacher"] <= means["control"]:
        return None
    return (means["student"] - means["control"]) / (means["teacher"] - means["control"])


def comparisons(
    rows: Sequence[Mapping[str, Any]],
    leaders: Mapping[str, Sequence[str]],
    shipped: Mapping[str, Any] | None,
    ranks: Ranks,
    metric: str = "ndcg@10",
) -> list[Comparison]:
    """Paired differences over test users: the chosen of each role, teachers among themselves, what ships against its
    fp32. Holm-corrected together."""
    pairs: list[tuple[str, Sequence[str], str, Sequence[str]]] = []
    for a, b in (("teacher", "control"), ("student", "control"), ("student", "teacher"), ("control", "baseline")):
        if a in leaders and b in leaders:
            pairs.append((a, leaders[a], b, leaders[b]))
    teachers = sorted({row["variant"] for row in rows if row["role"] == "teacher"})
    best = next((row["variant"] for row in rows if row["name"] in leaders.get("teacher", ())), None)
    for other in teachers:
        if best is not None and other != best:
            pairs.append(("teacher", leaders["teacher"], "teacher", _fp32_names(rows, "teacher", other)))
    if shipped is not None:
        own = [r["name"] for r in rows if (r["variant"], r["seed"]) == (shipped["variant"], shipped["seed"])]
        fp32 = next(name for name in own if name.endswith("-fp32"))
        pairs += [(name, [name], fp32, [fp32]) for name in own if name != fp32]
    found = [
        (name, _label(a, one), _label(b, two), first, second)
        for name, cases in [(metric, "test"), *([("uauc", "test/uauc")] if metric == "auc" else [])]
        for a, one, b, two in pairs
        if (first := per_user(one, ranks, cases)) is not None and (second := per_user(two, ranks, cases)) is not None
    ]
    tests = paired_tests([(first, second) for *_, first, second in found])
    return [
        Comparison(a=a, b=b, metric=name, users=len(first), p_holm=corrected, **vars(test))
        for (name, a, b, first, _), test, corrected in zip(found, tests, holm([t.p for t in tests]), strict=True)
    ]


def _label(role: str, names: Sequence[str]) -> str:
    if role not in ("teacher", "student", "control", "baseline"):
        return names[0]
    return role_and_variant(role, names[0].removesuffix("-fp32"))


def _fp32_names(rows: Iterable[Mapping[str, Any]], role: str, variant: str) -> list[str]:
    return [r["name"] for r in rows if (r["role"], r["variant"], r["precision"]) == (role, variant, "fp32")]


def _named(rows: Iterable[Mapping[str, Any]], name: str | None) -> Mapping[str, Any] | None:
    return next((row for row in rows if row["name"] == name), None)


def _model(
    row: Mapping[str, Any], chosen: Mapping[str, str], times: Mapping[str, Mapping[int, float]]
) -> dict[str, Any]:
    """`times`: percentiles of the raw times that `bench` left, by path."""
    fields = {key: value for key, value in row.items() if key != "quantizer"}
    latency = [
        {**timed, "percentiles_ms": times.get(f"{row['name']} {timed['path']} {timed['runtime']} {timed['device']}")}
        for timed in row["latency"]
    ]
    return {**fields, "chosen": chosen.get(row["role"]) == row["variant"], "latency": latency}


def _not_measured(recipe: Recipe, run: Run) -> Iterable[dict[str, str]]:
    for variant, gate in run.gates.items():
        if not gate.passed:
            yield {
                "what": f"student {variant}",
                "why": f"its teacher failed the gate: {gate.teacher_valid:.4f} is not above the control's "
                f"{gate.control_valid:.4f} on validation",
            }
    if recipe.search is not None and run.search is None:
        yield {"what": f"search of {recipe.search.of.name}", "why": "its teacher failed the gate"}
    packed = run.artifacts.get(("pack", None))
    if packed is not None and not read_json(packed.path / "pack.json")["text_encoder_bytes"]:
        yield {
            "what": "cold items on the device",
            "why": "no text encoder was trained for the item vectors of what ships",
        }


def _dataset(data: Mapping[str, Any]) -> Dataset:
    target = data["domains"][data["target"]]
    return Dataset(name=data["name"], **{key: target[key] for key in ("users", "items", "interactions")})


def _stages(run: Run) -> list[StageTime]:
    done = [(step, run.artifacts[step.stage.name, step.chain]) for step in run.steps]
    return [
        StageTime(
            name=step.stage.name,
            seconds=artifact.seconds,
            cached=artifact.cached,
            variant=None if step.chain is None else step.chain.name,
            peak_rss_mb=artifact.peak_rss_mb,
        )
        for step, artifact in [*done, *run.aside]
    ]
