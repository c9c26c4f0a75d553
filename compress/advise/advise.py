"""Facts, rules and cost put together: what is recommended for data and a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.advise import cost
from compress.advise.facts import Facts, Part, gather
from compress.advise.like_rules import LIKE_RULES
from compress.advise.published import Published
from compress.advise.rules import RULES, Advice, Budget
from compress.advise.write import recipe_text, recipe_values, slug, uses_source
from compress.pipeline import STAGES
from compress.recipe import parse_recipe


@dataclass(frozen=True)
class Recommendation:
    """The facts, one entry per rule that had something to say, and the recipe that follows, as YAML."""

    facts: Facts
    advice: Sequence[Advice]
    recipe: str

    @property
    def name(self) -> str:
        return slug(self.facts)


def advise(target: Part, source: Part | None, columns: Mapping[str, str], budget: Budget) -> Recommendation:
    """Look at the data and recommend. Raises UsageError for data that a run would refuse too."""
    facts, published = gather(target, source, columns), Published.load()
    rules = RULES if facts.rows is None else LIKE_RULES
    advice = [found for rule in rules if (found := rule(facts, budget, published)) is not None]
    if facts.rows is None:
        advice.append(_cost(facts, advice, published))
    return Recommendation(facts, advice, recipe_text(facts, advice))


def _cost(facts: Facts, advice: Sequence[Advice], published: Published) -> Advice:
    recipe = parse_recipe(recipe_values(facts, advice), slug(facts), STAGES)
    other = facts.source if uses_source(facts) else None
    size = cost.Size((facts.target.events, facts.target.items), (other.events, other.items) if other else (0, 0))
    seconds = cost.seconds(recipe, size, published)
    if seconds is None:
        return Advice("time", "unknown", "no published run has trained such stages")
    told = (
        f"an estimate: rates of the published runs ({published.machine}) times this recipe's epochs, events and items"
    )
    return Advice("time", f"about {_duration(seconds)} for one seed on two cores", told)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
