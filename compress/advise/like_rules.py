"""The rules for like/dislike rows of a published split: will this user like that item, judged by AUC."""

from compress.advise.facts import Facts, RowFacts
from compress.advise.published import Published, finding
from compress.advise.rules import Advice, Budget, Rule, backbone, budget_fields, has_text

MANY_ROWS = 5000
SHOTS = 256


def _rows(facts: Facts) -> RowFacts:
    assert facts.rows is not None  # these rules are asked where there are rows
    return facts.rows


def rows(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    found = _rows(facts)
    counts = ", ".join(f"{count} {split}" for split, count in found.rows.items())
    told = f"rows carry their own history (median {found.history:g} items), {found.liked:.0%} are likes: {counts}"
    if "train" in found.rows:
        return Advice("protocol", "the published rows, AUC and UAUC", told, {"data": {"split": "published"}})
    shots = min(SHOTS, found.rows["valid"] // 2)
    told += "; none to train on, so some of the validation rows train"
    split = {"name": "published", "shots": shots}
    return Advice("protocol", f"the published rows, {shots} shots", told, {"data": {"split": split}})


def like_baselines(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    models = ["item_mean", "boosted_trees"]
    if _few(facts):
        models[1:1] = ["liked_fraction", "recent_liked_fraction"]
    told = f"published 7B models start here: {finding('trees')}; {finding('liked')}"
    return Advice("baselines", ", ".join(models), told, {"baselines": {"models": models}})


def like_teacher(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    n, few = _training_rows(facts), _few(facts)
    dim = 16 if few else 32
    length = 10
    fields: dict[str, float] = {"epochs": 5, "batch_size": 512, "validate_every": 1}
    if few:
        fields = {"epochs": 30, "batch_size": 64, "validate_every": 3}
    fields |= {"weight_decay": 0.1, "warmup_epochs": 1}
    sizes = {"dim": dim, "heads": 2, "neurons": 2 * dim, "max_history": length, "dropout": 0.2 if few else 0.3}
    method = {"name": "two_level", **sizes, "trained_layers": 0, "id_vectors": not few, "training": fields}
    student, training = {"name": "sequence", **sizes}, dict(fields)
    if not few:  # what a user liked in training is what a student of likes alone cannot know (docs/LOG.md)
        student |= {"dim": 2 * dim, "neurons": 4 * dim, "rated": True}
        training["validate_every"] = training["epochs"]
    told = f"{n} rows train: they move a language model little, so its texts stay frozen; as "
    told += "tallrec-book.yaml" if few else "collm-ml1m.yaml"
    settings = {
        "pretrain": {"objective": "none"} if has_text(facts) else {},
        "target": {"method": method},
        "distil": {"student": student, "loss": "soft_labels", "training": training},
    }
    return Advice(
        "teacher, student", f"two-level on frozen text, {dim} dimensions, mixed with baselines", told, settings
    )


def like_quantizers(facts: Facts, _budget: Budget, _published: Published) -> Advice:
    told = f"{facts.target.items} items; {finding('int8')}: where it gains no time, select keeps fp32"
    return Advice("quantizers", "int8_per_row", told, {"quantize": {"history": ["int8_per_row"]}, "prune": "none"})


def _training_rows(facts: Facts) -> int:
    found = _rows(facts).rows
    return found.get("train", min(SHOTS, found["valid"] // 2))


def _few(facts: Facts) -> bool:
    return _training_rows(facts) < MANY_ROWS


LIKE_RULES: tuple[Rule, ...] = (rows, like_baselines, backbone, like_teacher, like_quantizers, budget_fields)
