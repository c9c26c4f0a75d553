"""The rules for data whose catalogue is ranked: each looks at the facts, says what it recommends, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.cost_model import CostModel, Shape
from compress.advise.facts import DomainFacts, Facts
from compress.advise.published import Published, finding
from compress.recipe import merge

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """What the small model may cost, and where it is trained."""

    max_size_mb: float | None = None
    max_p95_ms: float | None = None
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class Advice:
    """One recommendation: what it is about, what to choose, the reason, and the recipe fields that follow."""

    about: str
    choice: str
    reason: str
    settings: Settings = field(default_factory=dict)


Rule = Callable[[Facts, Budget, Published], Advice | None]

DENSE = 20.0
SHORT_HISTORIES = 10
LARGE_CATALOGUE = 10_000
EASE_BYTES = 4e9
BASE_DIM = 64
DIMS = (64, 32, 16)
ENCODERS = {"LATIN": "sentence-transformers/all-MiniLM-L6-v2", "CJK": "google-bert/bert-base-chinese"}
OTHER_SCRIPTS = "google-bert/bert-base-multilingual-cased"


def has_text(facts: Facts) -> bool:
    """Whether the target's items say enough for a language model."""
    return facts.target.texts.template is not None


def order(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    if facts.target.ordered:
        return Advice(
            "protocol",
            "leave-one-out by time",
            f"{facts.target.events} events have a time: a user's last one is asked, the rest is history",
            {"data": {"split": "leave_one_out"}},
        )
    still = {"distances": False}
    return Advice(
        "protocol",
        "a random liked item per user, no distances",
        "no time column: an order of the file would be taken for one in time, so none is learned or asked",
        {
            "data": {"split": "random_liked"},
            "target": {"method": {"name": "two_level", **still}},
            "distil": {"student": {"name": "sequence", **still}},
        },
    )


def events(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    target = facts.target
    asked = f"{target.users} users, median {target.per_user:g} events; {target.short:.0%} have fewer than 3, left out"
    if target.feedback == "likes":
        return Advice(
            "events", f"likes alone (rating {target.top_rating:g})", f"two values of rating; {asked}",
            {"data": {"min_rating": target.top_rating}},
        )  # fmt: skip
    what = {
        "ratings": "every rating counts as an event, as published rankings have it",
        "counts": "counts are no scale",
    }
    reason = what.get(target.feedback, "no rating tells likes from dislikes")
    return Advice("events", "all of them", f"{reason}; {asked}")


def backbone(facts: Facts, budget: Budget, _published: Published) -> Advice:
    texts = facts.target.texts
    if texts.template is None:
        reason = "no column of the item file has words for half of the items: there is nothing to read"
        return Advice("backbone", "none", reason)
    tokens = next((n for n in (16, 32) if n >= 1.5 * texts.words_p95 + 2), 64)
    encoder = ENCODERS.get(texts.script, OTHER_SCRIPTS)
    told = f"{texts.coverage:.0%} of items have text, {texts.words_median} words (95 %: {texts.words_p95}), "
    told += ", ".join(f"{share:.1%} {script.capitalize()}" for script, share in texts.scripts[:3] if share >= 0.001)
    why = f"{finding('encoder')}" if encoder == ENCODERS["LATIN"] else "its vocabulary knows the script"
    device = "; the cheapest that was measured" if budget.device == "cpu" else "; no run on a GPU is published"
    settings = {"pretrain": {"backbone": encoder, "max_tokens": tokens}}
    return Advice("backbone", f"{encoder}, {tokens} tokens", f"{told}; {why}{device}", settings)


def teacher(facts: Facts, _budget: Budget, published: Published) -> Advice:
    target = facts.target
    if not has_text(facts):
        return Advice("teacher", "none: the control alone", "every teacher that is trained here reads texts; bring one "
                      "as files with target.method given_vectors or given_lists")  # fmt: skip
    told = f"{target.density:.0f} events an item, {target.per_user:g} of a median user"
    if target.density >= DENSE and target.per_user > SHORT_HISTORIES and _ease_fits(target):
        lm = f"what users do together is what texts lack ({published.gates})"
        reason = f"{told}, dense: {lm}. {finding('dense')}"
        return Advice(
            "teacher", "two-level, mixed with control and EASE", reason, {"mix": {"members": ["control", "ease"]}}
        )
    reason = f"{told}, sparse: there text pays. {finding('sparse')}. The gate on validation has the last word"
    return Advice("teacher", "two-level", reason)


def controls(facts: Facts, _budget: Budget, _published: Published) -> Advice | None:
    if not has_text(facts):
        return None
    return Advice("controls", "control, control-text", finding("frozen"))


def source(facts: Facts, _budget: Budget, _published: Published) -> Advice | None:
    other = facts.source
    if other is None:
        return None
    shared = f"{facts.shared_users} of {facts.target.users} user ids are in both"
    if facts.shared_users and not facts.named_users:
        shared += " (plain numbers: perhaps of different people)"
    if not has_text(facts) or other.texts.template is None:
        reason = f"the bridge is text, and there is none; {shared}"
        return Advice("source", "none", reason)
    told = f"{other.events} events teach {facts.target.events}; {shared}. {finding('source')}; a teacher without it is"
    told += " trained beside and validation chooses"
    if not other.ordered and facts.target.ordered:
        told += f". Expect little: {finding('unordered')}"
    part = other.part
    name = other.name if part.attribute is None else f"{part.attribute}: {', '.join(part.values)}"
    return Advice("source", name, told)


def histories(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    target = facts.target
    length = _length(target)
    told = f"nine users in ten have at most {target.p90_user:.0f} events; {finding('history')}"
    sizes = {"max_history": length}
    return Advice("history", f"the last {length}", told, _both(sizes))


def student(facts: Facts, budget: Budget, _published: Published) -> Advice:
    target, model = facts.target, CostModel.load()
    shapes = {dim: Shape(items=target.items, dim=dim, history=_length(target)) for dim in DIMS}
    costs = {dim: (size_mb(target.items, dim, 4), model.p95_ms(shape)) for dim, shape in shapes.items()}
    inside = [dim for dim, (size, p95) in costs.items() if _within(budget, size_mb(target.items, dim, 1), p95)]
    dim = inside[0] if inside else DIMS[-1]
    size, p95 = costs[dim]
    told = f"{target.items} items: about {size:.2f} MB in fp32, {size_mb(target.items, dim, 1):.2f} with an INT8 table"
    told += f", p95 about {p95:.2f} ms ({model.told})"
    if not inside:
        told += "; even the smallest is outside the budget by this estimate: the run will say"
    elif dim < BASE_DIM:
        told += f"; {DIMS[DIMS.index(dim) - 1]} dimensions are outside the budget"
    settings = {"distil": {"student": {"name": "sequence", "dim": dim, "neurons": 2 * dim}}}
    return Advice("student", f"one block, {dim} dimensions", told, settings)


def softmax(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    items = facts.target.items
    logits = 128 * 20 * items * 4 / 1e6
    told = f"{items} items: scores of one batch take {logits:.0f} MB"
    if items < LARGE_CATALOGUE:
        return Advice("softmax", "full", f"{told}; exact, and small enough")
    sampled = {"softmax": {"name": "sampled", "negatives": 512}}
    recovery = {"epochs": 6, "learning_rate": 5e-4, **sampled}
    settings = {**_trainings(sampled), "prune": {"sequence": {"name": "structured", "recovery": recovery}}}
    return Advice("softmax", "sampled, 512 negatives", f"{told} in full. {finding('sampled')}", settings)


def training(facts: Facts, _budget: Budget, _published: Published) -> Advice | None:
    target = facts.target
    if target.per_user > SHORT_HISTORIES:
        return None
    told = f"the median user has {target.per_user:g} events: batches of like length hold little padding; as beauty.yaml"
    short = {"epochs": 24, "batch_size": 256, "learning_rate": 3e-3, "validate_every": 4, "by_length": True}
    settings = _merged(_trainings(short), _both({"dropout": 0.5}))
    return Advice("training", "24 epochs, large batches, dropout .5", told, settings)


def baselines(facts: Facts, _budget: Budget, _published: Published) -> Advice | None:
    target = facts.target
    gib = 16 * target.items**2 / 2**30
    if not _ease_fits(target):
        told = f"EASE inverts a matrix of all pairs of {target.items} items, about {gib:.0f} GiB: left out"
        return Advice(
            "baselines", "popularity alone", told, {"baselines": {"models": ["popularity", "recent_popularity"]}}
        )
    if target.items < 5000:
        return None
    ease = {"name": "ease", "lambdas": [100.0, 300.0, 1000.0]}
    told = f"EASE inverts a matrix of {target.items} x {target.items}, about {gib:.1f} GiB: three penalties are enough"
    return Advice(
        "baselines",
        "EASE with three penalties",
        told,
        {"baselines": {"models": ["popularity", "recent_popularity", ease]}},
    )


def quantizers(facts: Facts, _budget: Budget, published: Published) -> Advice:
    told, ratio = f"{facts.target.items} items; {finding('int8')}", published.int8()
    if ratio is not None:
        told += f"; published: {ratio[0]:.2f} of the bytes, {ratio[1]:.2f} of the time of fp32"
    return Advice("quantizers", "int8_per_row, int8_dynamic beside fp32", f"{told}; the run measures and chooses")


def budget_fields(_facts: Facts, budget: Budget, _published: Published) -> Advice:
    limits = {"max_size_mb": budget.max_size_mb, "max_p95_ms": budget.max_p95_ms}
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        told = (
            "none was given: the most accurate candidate ships, INT8 where it costs at most 1 % of NDCG@10 and no time"
        )
        return Advice("budget", "none", told)
    told = ", ".join(f"{name} {value:g}" for name, value in given.items())
    return Advice("budget", told, "as given; size is that of the history -> top-k part, without the text encoder",
                  {"select": given})  # fmt: skip


def size_mb(items: int, dim: int, bytes_per_number: int) -> float:
    """The item table with a scale per row where it is INT8, and one fp32 block of the encoder."""
    encoder = 4 * dim * dim + 2 * dim * dim + 8 * dim  # attention, the neurons that pruning leaves, norms and biases
    return ((items + 1) * (dim * bytes_per_number + (4 if bytes_per_number == 1 else 0)) + 4 * encoder) / 1e6


def _length(target: DomainFacts) -> int:
    """Events of a history that the model reads."""
    return 10 if target.p90_user <= SHORT_HISTORIES else 20


def _within(budget: Budget, size: float, p95: float) -> bool:
    fits = budget.max_size_mb is None or size <= budget.max_size_mb
    return fits and (budget.max_p95_ms is None or p95 <= budget.max_p95_ms)


def _ease_fits(target: DomainFacts) -> bool:
    return 16 * target.items**2 <= EASE_BYTES


def _both(sizes: Settings) -> dict[str, Any]:
    return {
        "source": {"method": {"name": "two_level", **sizes}},
        "target": {"method": {"name": "two_level", **sizes}},
        "distil": {"student": {"name": "sequence", **sizes}},
    }


def _trainings(fields: Settings) -> dict[str, Any]:
    return {**_both({"training": fields}), "distil": {"training": fields}}


def _merged(one: Settings, two: Settings) -> dict[str, Any]:
    merged: dict[str, Any] = merge(dict(one), dict(two))
    return merged


RULES: tuple[Rule, ...] = (
    order,
    events,
    backbone,
    teacher,
    controls,
    source,
    histories,
    student,
    softmax,
    training,
    baselines,
    quantizers,
    budget_fields,
)
