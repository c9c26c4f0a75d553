"""What is asked of compressed models, measure by measure, read from a run's `result.json` and `ranks.npz`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg, paired_difference
from benchmarks.result import Comparison, Model, Result, Role, TextEncoderRow, TextKind

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Got:
    """A measure's value; `detail` says what it was taken from; `holds`: False where an interval denies it."""

    value: float
    detail: str = ""
    holds: bool = True


Kinds = tuple[TextKind, ...]
READERS: Kinds = ("contextual", "language_model")
TABLES: Kinds = ("static",)


@dataclass(frozen=True)
class Measured:
    """A finished run: its result, and `<model>/<set>` -> ranks of the cases (none of like/dislike data)."""

    result: Result
    ranks: Mapping[str, NDArray[np.int32]]

    @classmethod
    def read(cls, out: Path) -> "Measured":
        """What `slimrec run --out` left."""
        result, ranks = Result.model_validate_json((out / "result.json").read_text("utf-8")), out / "ranks.npz"
        if not ranks.is_file():
            return cls(result, {})
        with np.load(ranks, allow_pickle=False) as file:
            return cls(result, {name: file[name] for name in file.files})

    def chosen(self, role: Role) -> list[Model]:
        """The fp32 models, one a seed, of the variant that validation chose for a role."""
        return [m for m in self.result.models if m.role == role and m.chosen and m.precision == "fp32"]

    def int8(self, role: Role = "student") -> list[Model]:
        """The same variant's INT8 models, one a seed."""
        return best_int8(m for m in self.result.models if m.role == role and m.chosen)

    def shipped(self) -> Model | None:
        return next((m for m in self.result.models if m.name == self.result.selected), None)

    def per_case(self, models: Sequence[Model]) -> Values | None:
        """Test NDCG@10 of every case, the mean over seeds; None where a model has no ranks."""
        found = [self.ranks.get(f"{model.name}/test") for model in models]
        known = [ndcg(ranks, 10) for ranks in found if ranks is not None]
        return np.asarray(np.mean(known, axis=0), np.float64) if known and len(known) == len(found) else None

    def encoder(self, kinds: Kinds) -> list[TextEncoderRow]:
        """The smallest text encoder, of the first of these kinds there is, in the space of a ranker; one row a seed."""
        every = self.result.text_encoders
        kind = next((kind for kind in kinds if any(row.kind == kind for row in every)), None)
        rows = [row for row in every if row.kind == kind]
        rows = [row for row in rows if row.ranked_by is not None] or rows
        smallest = min(rows, key=lambda row: row.size_bytes, default=None)
        if smallest is None:
            return []
        same = (smallest.variant, smallest.name.rpartition("-")[2])
        return [row for row in rows if (row.variant, row.name.rpartition("-")[2]) == same]


def _over(a: Role, b: Role, must_lead: bool) -> Callable[[Measured], Got | None]:
    """a's mean test NDCG@10 over b's; with `must_lead` it holds where the interval of their difference is above 0."""

    def read(run: Measured) -> Got | None:
        first, second = (run.per_case(run.chosen(role)) for role in (a, b))
        if first is None or second is None or not second.mean():
            return None
        compared = _compared(first, second)
        detail = f"{first.mean():.4f} / {second.mean():.4f}, {compared.gap}"
        return Got(float(first.mean() / second.mean()), detail, not must_lead or compared.verdict == "better")

    return read


def _share_of_the_lead(run: Measured) -> Got | None:
    if run.result.transfer_ratio is None:
        return None
    teacher, control = (run.per_case(run.chosen(role)) for role in ("teacher", "control"))
    if teacher is None or control is None:
        return None
    lead = _compared(teacher, control)
    return Got(run.result.transfer_ratio, f"the lead: {lead.gap}", lead.verdict == "better")


def _of_the_teacher(run: Measured) -> Got | None:
    """Holds only where the teacher itself stands above its control."""
    found, lead = _over("student", "teacher", must_lead=False)(run), _over("teacher", "control", must_lead=True)(run)
    return None if found is None or lead is None else Got(found.value, found.detail, lead.holds)


def _overlap(run: Measured) -> Got | None:
    known = [model.top10_overlap for model in run.int8() if model.top10_overlap is not None]
    return Got(fmean(known), _quantizer(run.int8()[0])) if known else None


def _ndcg_lost(run: Measured) -> Got | None:
    """By the quantized graphs, against fp32 of the same seeds."""
    fp32, int8 = run.per_case(run.chosen("student")), run.per_case(run.int8())
    if fp32 is None or int8 is None or not fp32.mean():
        return None
    return Got(float(1 - int8.mean() / fp32.mean()), f"{_quantizer(run.int8()[0])}, {_compared(int8, fp32).gap}")


def _shipped_speed(run: Measured) -> Got | None:
    model = run.shipped()
    ratio = model.served.ratio_to_fp32 if model and model.served else None
    return None if model is None or ratio is None else Got(ratio.median, model.name)


def _bytes_ratio(run: Measured) -> Got | None:
    model, teacher = run.shipped(), next(iter(run.chosen("teacher")), None)
    if model is None or teacher is None or not model.size_bytes or not teacher.size_bytes:
        return None
    return Got(
        teacher.size_bytes / model.size_bytes,
        f"{teacher.size_bytes / 1e6:.1f} MB / {model.size_bytes / 1e6:.3f} MB, {model.name}",
    )


def _bundle(run: Measured) -> Got | None:
    return Got(run.result.bundle.size_bytes / 1e6) if run.result.bundle else None


def _times_faster(path: Literal["cached", "text"]) -> Callable[[Measured], Got | None]:
    def read(run: Measured) -> Got | None:
        model = run.shipped()
        row = model.served if model else None
        if model is None or row is None:
            return None
        ratio = row.ratio_to_teacher if path == "cached" else row.ratio_to_teacher_text
        return None if ratio is None else Got(ratio.median, f"p50 {row.p50_ms:.3f} ms, {model.name}")

    return read


def _encoder_size(run: Measured) -> Got | None:
    rows = run.encoder(READERS)
    return Got(rows[0].size_bytes / 1e6, rows[0].name) if rows else None


def _encoder_share(kinds: Kinds) -> Callable[[Measured], Got | None]:
    """Of the cold items' NDCG@10 with the teacher's vectors, that with the encoder's; means over seeds."""

    def read(run: Measured) -> Got | None:
        pairs = [(r.cold_items, r.cold_items_of_teacher) for r in run.encoder(kinds)]
        known = [(a.ndcg_10 or 0.0, b.ndcg_10 or 0.0) for a, b in pairs if a is not None and b is not None]
        if not known or not fmean(b for _, b in known):
            return None
        own, wanted = (fmean(values) for values in zip(*known, strict=True))
        return Got(own / wanted, f"{own:.4f} / {wanted:.4f}, {run.encoder(kinds)[0].name}")

    return read


def _encoder_speed(kinds: Kinds) -> Callable[[Measured], Got | None]:
    def read(run: Measured) -> Got | None:
        row = next((r for r in run.encoder(kinds) if r.ratio_to_teacher is not None), None)
        return None if row is None or row.ratio_to_teacher is None else Got(row.ratio_to_teacher.median, row.name)

    return read


def _likes(metric: Literal["auc", "uauc"]) -> Callable[[Measured], Got | None]:
    def read(run: Measured) -> Got | None:
        known = [value for m in run.int8() if (value := getattr(m.accuracy.test, metric)) is not None]
        return Got(fmean(known), _quantizer(run.int8()[0])) if known else None

    return read


def _auc_lost(run: Measured) -> Got | None:
    teacher = [m.accuracy.test.auc for m in run.chosen("teacher") if m.accuracy.test.auc is not None]
    own = _likes("auc")(run)
    return None if own is None or not teacher else Got(1 - own.value / fmean(teacher), f"teacher {fmean(teacher):.4f}")


def _likes_size(run: Measured) -> Got | None:
    sizes = [m.size_bytes for m in run.int8() if m.size_bytes and m.accuracy.test.auc is not None]
    return Got(sizes[0] / 1e6) if sizes else None


@dataclass(frozen=True)
class Measure:
    """How a measure is read, None where the run has nothing to say of it, and which way is better."""

    read: Callable[[Measured], Got | None]
    at_most: bool = False

    def met(self, got: Got, asked: float) -> bool:
        return got.holds and (got.value <= asked if self.at_most else got.value >= asked)


MEASURES: Mapping[str, Measure] = {
    "student over control": Measure(_over("student", "control", must_lead=True)),
    "share of the teacher's lead": Measure(_share_of_the_lead),
    "student over teacher": Measure(_of_the_teacher),
    "INT8, top 10 as fp32": Measure(_overlap),
    "INT8, NDCG@10 lost": Measure(_ndcg_lost, at_most=True),
    "speed of what ships over its fp32": Measure(_shipped_speed),
    "teacher's bytes over the shipped": Measure(_bytes_ratio),
    "bundle, MB": Measure(_bundle, at_most=True),
    "times faster than the teacher, cached": Measure(_times_faster("cached")),
    "times faster than the teacher, from texts": Measure(_times_faster("text")),
    "text encoder, MB": Measure(_encoder_size, at_most=True),
    "text encoder, share of cold NDCG@10": Measure(_encoder_share(READERS)),
    "text encoder, times faster than the LM": Measure(_encoder_speed(READERS)),
    "static encoder, share of cold NDCG@10": Measure(_encoder_share(TABLES)),
    "static encoder, times faster than the LM": Measure(_encoder_speed(TABLES)),
    "INT8 student, AUC": Measure(_likes("auc")),
    "INT8 student, UAUC": Measure(_likes("uauc")),
    "INT8 student, AUC lost to the teacher": Measure(_auc_lost, at_most=True),
    "INT8 student, MB": Measure(_likes_size, at_most=True),
}
"""In the order of the table."""


def best_int8(models: Iterable[Model]) -> list[Model]:
    """Of one variant's models the INT8 ones, one a seed, of the quantizer that validates best over the seeds."""
    by_quantizer: dict[str, list[Model]] = {}
    for model in models:
        if model.precision == "int8":
            by_quantizer.setdefault(_quantizer(model), []).append(model)
    return max(by_quantizer.values(), key=lambda of: fmean(m.accuracy.valid.leading or 0.0 for m in of), default=[])


def _quantizer(model: Model) -> str:
    return model.name.rpartition("-")[2]


def _compared(first: Values, second: Values) -> Comparison:
    difference, ci95 = paired_difference(first, second)
    return Comparison(a="", b="", metric="ndcg@10", difference=difference, ci95=ci95)
