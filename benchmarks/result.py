"""The form of `result.json` (and, in `bench/record.py`, of `bench --json`): one home for every field name.
`python -m benchmarks.result` writes the JSON Schema that ships with it.

Times are milliseconds, sizes bytes, memory MB (10^6 bytes). Names with `@10` are aliases: dump with `to_json`.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

SCHEMA_FILE = Path(__file__).parent / "schemas" / "result.schema.json"

Precision = Literal["fp32", "fp16", "int8", "int4"]
Role = Literal["teacher", "student", "control", "baseline"]
Ci95 = tuple[float, float]
Metric = Literal["ndcg@10", "auc"]
"""What validation chooses by and a result leads with: of rankings, of likes."""
TITLES = {"ndcg@10": "NDCG@10", "auc": "AUC", "uauc": "UAUC"}


class Record(BaseModel):
    """A frozen record that refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )

    def to_json(self, indent: int | None = None) -> str:
        """The record as JSON under its published names."""
        return self.model_dump_json(by_alias=True, indent=indent)


class Metrics(Record):
    """Means over cases (or rows, for auc and uauc); only what was measured is written."""

    ndcg_10: float | None = Field(default=None, alias="ndcg@10")
    ndcg_10_ci95: Ci95 | None = Field(default=None, alias="ndcg@10_ci95", description="paired bootstrap over users")
    recall_10: float | None = Field(default=None, alias="recall@10")
    precision_10: float | None = Field(default=None, alias="precision@10")
    f1_10: float | None = Field(default=None, alias="f1@10")
    mrr: float | None = None
    coverage_10: float | None = Field(default=None, alias="coverage@10")
    auc: float | None = None
    auc_ci95: Ci95 | None = Field(default=None, description="bootstrap over users")
    uauc: float | None = Field(default=None, description="unweighted mean over users with likes and dislikes")
    uauc_ci95: Ci95 | None = Field(default=None, description="bootstrap over those users")
    uauc_users: Annotated[int, Field(ge=0)] | None = None
    accuracy: float | None = Field(default=None, description="of calling a like at the threshold validation chose")
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    cases: Annotated[int, Field(ge=0)] | None = None

    @property
    def leading(self) -> float | None:
        """NDCG@10, or AUC where nothing was ranked."""
        return self.auc if self.ndcg_10 is None else self.ndcg_10

    @property
    def leading_ci95(self) -> Ci95 | None:
        return self.auc_ci95 if self.ndcg_10 is None else self.ndcg_10_ci95

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {fields[name].alias or name for name in fields.keys() - self.model_fields_set}
        return {name: value for name, value in handler(self).items() if name not in unset}


class Segments(Record):
    """The test metrics of the hard parts; empty where the data has no such case."""

    cold_items: Metrics = Metrics()
    cold_items_only: Metrics = Field(default=Metrics(), description="cold targets ranked among cold items")
    tail_items: Metrics = Metrics()
    short_history: Metrics = Metrics()


class Accuracy(Record):
    """Validation chooses; test is read once."""

    valid: Metrics = Metrics()
    test: Metrics = Metrics()
    segments: Segments = Segments()


class Ratio(Record):
    """Time of the reference / time of this one (above 1: faster), per round: the median and the extremes."""

    median: float
    low: float
    high: float


class LatencyRow(Record):
    """From raw item ids to raw item ids; path `like`: to the log-odds of a like of one item. `precision` is set where
    one bundle holds several."""

    path: Literal["cached", "text", "like"]
    runtime: Literal["onnxruntime", "torch"]
    device: str
    threads: int
    batch: int
    history: int
    items: int
    k: int = 10
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float = Field(description="histories answered per second")
    runs: int
    percentiles_ms: dict[int, float] | None = Field(
        default=None, description="percentile (1, 5, 25, 75) -> ms: the rest of the distribution, where it was kept"
    )
    precision: Precision | None = None
    ratio_to_teacher: Ratio | None = Field(default=None, description="against the teacher, ONNX Runtime fp32, cached")
    ratio_to_teacher_text: Ratio | None = Field(
        default=None, description="against the teacher, ONNX Runtime fp32, text"
    )
    ratio_to_fp32: Ratio | None = Field(default=None, description="against the candidate's own fp32 graph")


class Machine(Record):
    """Where the numbers come from. Load is the one, five and fifteen minute average when they were taken."""

    cpu: str
    flags: list[str]
    cores: int = Field(description="what affinity and cgroup allow this process")
    versions: dict[str, str]
    system: str = ""
    governor: str | None = None
    load_average: list[float] | None = None
    gpu: str | None = None
    cores_online: int | None = None
    threads_per_core: int | None = None
    cpu_quota: float | None = Field(default=None, description="CPUs that the cgroup allows, where it has a limit")
    memory_mb: float | None = None
    memory_limit_mb: float | None = Field(default=None, description="the cgroup's, where it has one below the memory")
    mhz: float | None = Field(default=None, description="the highest frequency that the first core may have")
    waiting: float | None = Field(
        default=None, description="share of the last minute that something waited for a CPU (pressure stall)"
    )


class Dataset(Record):
    """The target domain after filtering."""

    name: str
    users: int
    items: int
    interactions: int


class Protocol(Record):
    """How accuracy was measured."""

    split: Literal["leave-one-out", "time", "random-liked", "user-folds", "published"]
    ranking: Literal["full"] = "full"
    seen_excluded: bool = True
    seeds: list[int]


class Model(Record):
    """One candidate in one precision. `chosen`: per role, the one validation chose."""

    name: str
    role: Role
    variant: str
    chosen: bool
    precision: Precision
    params: int | None = Field(default=None, description="absent where the model is answers in files")
    size_bytes: int | None = Field(default=None, description="absent where the model is answers in files")
    accuracy: Accuracy
    latency: list[LatencyRow] = []
    rss_mb: float | None = None
    load_ms: float | None = None
    seed: int | None = None
    top10_overlap: float | None = Field(
        default=None, description="share of the first 10 items that the fp32 model names too, over validation cases"
    )

    @property
    def served(self) -> LatencyRow | None:
        """The latency that headlines name: item vectors cached, ONNX Runtime, CPU."""
        rows = (row for row in self.latency if (row.path, row.runtime, row.device) == ("cached", "onnxruntime", "cpu"))
        return next(rows, None)


TextKind = Literal["language_model", "contextual", "static"]


class TextEncoderRow(Record):
    """What places an item that is only a text, in one precision: graph and tokenizer. Cold items are ranked in the full
    catalogue by the model `ranked_by`, with this encoder's vectors and with those of the teacher's language model."""

    name: str
    variant: str
    seed: int
    precision: Precision
    kind: TextKind
    size_bytes: int
    p50_ms: float | None = Field(default=None, description="of one text, one by one; the first seed's")
    ratio_to_teacher: Ratio | None = Field(default=None, description="against the teacher's text graph in fp32")
    ranked_by: str | None = None
    cold_items: Metrics | None = None
    cold_items_of_teacher: Metrics | None = None


class Gate(Record):
    """Distillation starts only from a teacher that beats the control on validation NDCG@10."""

    passed: bool
    teacher_valid: float
    control_valid: float
    difference: float | None = None
    ci95: Ci95 | None = None


class TeacherChoice(Record):
    """Which of several teachers a variant learned from: the best by validation NDCG@10, `difference` above the next."""

    variant: str
    chosen: str
    valid: dict[str, float]
    difference: float
    ci95: Ci95
    source_helps: bool | None = Field(
        default=None, description="whether the chosen saw a source domain, where there was one with and one without"
    )


class Trial(Record):
    """What a search tried (`chosen`: path in the recipe -> value) and what it gave, of the recipe's first seed."""

    name: str
    chosen: dict[str, Any] = {}
    valid: float = Field(description="on validation after pruning; after distillation where it was stopped")
    params: int = Field(description="of the same model")
    stopped: str | None = Field(default=None, description="why it was not pruned, and no candidate")
    front: bool = Field(default=False, description="no other trial beats it in both: it went on as a variant")


class Search(Record):
    """Every trial in turn, beside the variant they change as the recipe has it (`of`)."""

    metric: str
    of: Trial
    trials: list[Trial]


class Comparison(Record):
    """`a` - `b` over the same test users. `p_holm` is Holm-corrected over the comparisons made together."""

    a: str
    b: str
    metric: str
    difference: float
    ci95: Ci95
    segment: Literal["cold_items", "tail_items", "short_history"] | None = None
    users: int | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def verdict(self) -> Literal["better", "tie", "worse"]:
        """What is said of `a`: a difference whose interval holds zero is a tie."""
        low, high = self.ci95
        return "better" if low > 0 else "worse" if high < 0 else "tie"

    @property
    def sentence(self) -> str:
        """The comparison as one reads it."""
        low, high = self.ci95
        words = {"tie": "ties with", "better": "is above", "worse": "is below"}[self.verdict]
        return f"{self.a} {words} {self.b}: {self.difference:+.4f} [{low:+.4f}, {high:+.4f}]"

    @property
    def gap(self) -> str:
        """The difference, its interval and the verdict, as a line ends."""
        low, high = self.ci95
        return f"{self.difference:+.4f} [{low:+.4f}, {high:+.4f}], {self.verdict}"


def role_and_variant(role: str, variant: str) -> str:
    """How comparisons call a variant: `control-text`, `baseline ease`."""
    return variant if variant.startswith(role) else f"{role} {variant}"


class Selection(Record):
    """Why `selected` is what it is; `front` names the Pareto-optimal candidates, `nearest` the best misses, `refused`
    what each candidate outside of the budget breaks (absent in records that only have it in `reason`)."""

    reason: str
    budget: dict[str, float] = {}
    front: list[str] = []
    nearest: list[str] = []
    refused: dict[str, list[str]] | None = None


class BundleInfo(Record):
    """What ships: bytes on disk of the archive, or of the folder's files."""

    path: str
    digest: str
    size_bytes: int
    text_encoder_bytes: int


class NotMeasured(Record):
    """A number that is absent, and why."""

    what: str
    why: str


class StageTime(Record):
    """One stage of one variant; seconds and peak memory are those of the run that built it."""

    name: str
    seconds: float
    cached: bool
    variant: str | None = None
    peak_rss_mb: float | None = None


class Result(Record):
    """`result.json`."""

    version: Literal[1] = Field(default=1, alias="schema")
    recipe: str
    commit: str
    machine: Machine
    dataset: Dataset
    protocol: Protocol
    models: list[Model]
    text_encoders: list[TextEncoderRow] = []
    gate: Gate | None = None
    teacher_choices: list[TeacherChoice] = []
    search: Search | None = None
    transfer_ratio: float | None = None
    comparisons: list[Comparison] = []
    selected: str | None = None
    selection: Selection | None = None
    bundle: BundleInfo | None = None
    not_measured: list[NotMeasured] = []
    stages: list[StageTime] = []

    @property
    def metric(self) -> Metric:
        """The leading one: `auc` where no model ranks (like/dislike data)."""
        ranked = any(model.accuracy.test.ndcg_10 is not None for model in self.models)
        return "ndcg@10" if ranked or not self.models else "auc"


class LeftOut(Record):
    """What an evaluation could not use."""

    events_of_unknown_items: int
    users_with_too_few_events: int
    targets_seen_before: int = Field(description="counted, and never found: what was seen is not recommended")


class PrecisionAccuracy(Record):
    """The accuracy of one precision of a bundle."""

    precision: Precision
    test: Metrics


class EvaluateResult(Record):
    """What `evaluate --json` prints. `dataset` counts what the bundle knows of the data."""

    version: Literal[1] = Field(default=1, alias="schema")
    bundle: BundleInfo
    dataset: Dataset
    accuracy: list[PrecisionAccuracy]
    left_out: LeftOut


def schema_text() -> str:
    """The JSON Schema of `Result`, as committed."""
    return json.dumps(Result.model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
