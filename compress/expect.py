"""How long an answer of each small model of a recipe will take, before there is one: sizes into the cost model."""

from benchmarks.cost_model import CostModel, Shape
from compress.bench import BenchConfig
from compress.models.folder import read_json
from compress.models.sequence import EncoderSizes
from compress.pipeline import steps
from compress.plan import published_items
from compress.prune.prune import PruneConfig
from compress.prune.schedule import kept
from compress.prune.sequence import StructuredSequence
from compress.recipe import Recipe, Variant
from compress.store import Store, artifact_key


def expected_p95_ms(recipe: Recipe, store: Store, model: CostModel) -> tuple[int, dict[str, float]] | None:
    """(items, variant -> p95 of one fp32 answer on one thread) of students and controls, as wide and deep as pruning
    leaves them; None where nobody knows yet how many items there are: the data is not sealed and nothing published."""
    items = _items(recipe, store)
    if items is None:
        return None
    bench = recipe.shared.get("bench")
    history = bench.history if isinstance(bench, BenchConfig) else BenchConfig().history
    shapes = {variant.name: _shape(variant, items, history) for variant in recipe.variants}
    return items, {name: model.p95_ms(shape) for name, shape in shapes.items() if shape is not None}


def _shape(variant: Variant, items: int, history: int) -> Shape | None:
    student = getattr(variant.configs.get("distil"), "student", None)
    if variant.role not in ("student", "control") or not isinstance(student, EncoderSizes):
        return None
    dim, blocks = getattr(student, "table_dim", None) or student.dim, student.blocks
    prune = variant.configs.get("prune")
    if isinstance(prune, PruneConfig) and isinstance(prune.sequence, StructuredSequence):
        dim, blocks = kept(dim, prune.sequence.keep_dims), min(blocks, prune.sequence.keep_layers or blocks)
    return Shape(items=items, dim=dim, blocks=blocks, history=min(history, student.max_history))


def _items(recipe: Recipe, store: Store) -> int | None:
    step = next(step for step in steps(recipe) if step.stage.name == "data")
    found = store.find(step.stage, artifact_key(step.stage, step.config, {}))
    if found is None:
        return published_items(recipe.name)
    data = read_json(found.path / "dataset.json")
    return int(data["domains"][data["target"]]["items"])
