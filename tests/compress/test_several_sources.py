"""Several source domains, in turn or mixed, and what each has of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from compress.data.dataset import Dataset
from compress.models.folder import load_array, load_sequence, load_text
from compress.models.text import TextEncoder
from compress.pipeline import STAGES
from compress.recipe_file import load_recipe
from compress.stage import RunOptions
from compress.teacher.domains import DomainAdapter, DomainEntry, DomainPart, DomainVector
from compress.teacher.several import merged
from compress.teacher.transfer import SourceConfig, TargetConfig, train_source, train_target
from compress.training import validation_ranks
from deploy.errors import UsageError

Run = Callable[..., Path]
METHOD: dict[str, Any] = {
    "name": "two_level",
    "dim": 8,
    "heads": 2,
    "neurons": 8,
    "max_history": 6,
    "trained_layers": 0,
    "training": {"epochs": 2, "warmup_epochs": 0, "learning_rate": 0.01, "validate_every": 1},
}


def text_of(folder: Path) -> TextEncoder:
    encoder = load_text(folder)
    assert encoder is not None
    return encoder


@pytest.fixture(scope="module")
def both(film_data: Path) -> dict[str, Dataset]:
    return {name: Dataset.open(film_data, name) for name in ("source", "target")}


def test_a_merged_data_set_asks_and_trains_as_its_parts_do(both: dict[str, Dataset]) -> None:
    whole, domain_of = merged(both)
    first, second = both.values()
    assert domain_of.tolist() == [0] * first.n_items + [1] * second.n_items
    assert whole.texts == first.texts + second.texts and len(set(whole.item_ids)) == whole.n_items
    sequences = whole.train_sequences()
    expected = [*first.train_sequences(), *(events + first.n_items for events in second.train_sequences())]
    assert len(sequences) == len(expected)
    for one, two in zip(sequences, expected, strict=True):
        np.testing.assert_array_equal(one, two)
    for name in ("valid", "test", "cold"):
        cases, parts = whole.cases(name), [first.cases(name), second.cases(name)]
        np.testing.assert_array_equal(
            cases.targets, np.concatenate([parts[0].targets, parts[1].targets + first.n_items])
        )
        np.testing.assert_array_equal(cases.tail, np.concatenate([part.tail for part in parts]))
        later = cases.histories(5)[len(parts[0]) :]
        np.testing.assert_array_equal(
            later, np.where(parts[1].histories(5) > 0, parts[1].histories(5) + first.n_items, 0)
        )
    np.testing.assert_array_equal(whole.popularity[1:], np.concatenate([first.popularity[1:], second.popularity[1:]]))


@pytest.mark.parametrize("entry", [DomainVector(), DomainAdapter(rank=3)])
def test_a_domains_part_by_hand_and_folded(entry: DomainVector | DomainAdapter) -> None:
    torch.manual_seed(0)
    part = DomainPart(entry, 5, 4, torch.tensor([0, 1, 1]))
    states = torch.randn(3, 5)
    assert not part(states, None).any()  # nothing at the start
    with torch.no_grad():
        part.vectors.normal_()
        part.up.normal_()
    added = part(states, None)
    for item, domain in enumerate((0, 1, 1)):
        by_hand = part.vectors[domain].clone()
        if isinstance(entry, DomainAdapter):
            by_hand += states[item] @ part.down[domain] @ part.up[domain]
        torch.testing.assert_close(added[item], by_hand)
    torch.testing.assert_close(part(states[1:], torch.tensor([1, 2])), added[1:])
    with pytest.raises(ValueError, match="only one domain"):
        part.folded_into(torch.nn.Linear(5, 4, bias=False))
    alone = DomainPart(entry, 5, 4, torch.zeros(3, dtype=torch.int64))
    with torch.no_grad():
        alone.vectors.normal_()
        alone.up.normal_()
    head = torch.nn.Linear(5, 4, bias=False)
    torch.testing.assert_close(alone.folded_into(head)(states), head(states) + alone(states, None))


@pytest.mark.parametrize("schedule", ["in_turn", "mixed"])
@pytest.mark.parametrize("domain", ["none", "vector", "adapter"])
def test_the_shared_part_goes_on_and_the_targets_own_folds_into_the_head(
    schedule: str, domain: str, build: Run, film_data: Path, film_teacher: dict[str, Path], both: dict[str, Dataset]
) -> None:
    method = {**METHOD, "domain": domain}
    config = SourceConfig.model_validate({"method": method, "domains": ["target", "source"], "schedule": schedule})
    folder = build(train_source, config, data=film_data, pretrain=film_teacher["pretrain"])
    head = text_of(folder).head
    assert isinstance(head, torch.nn.Linear) and head.bias is None
    model = load_sequence(folder)
    assert model is not None
    sizes = [part.n_items for part in both.values()]
    assert model.n_items == (sum(sizes) if schedule == "mixed" else both["source"].n_items)
    target = build(
        train_target, TargetConfig.model_validate({"method": method, "cached_scores": 5}), data=film_data, source=folder
    )
    text, vectors, table = text_of(target), load_array(target, "item_vectors"), load_sequence(target)
    assert isinstance(text.head, torch.nn.Linear) and (text.head.bias is not None) == (domain != "none")
    assert vectors is not None and table is not None
    dataset = both["target"]
    np.testing.assert_allclose(text.encode(dataset.texts), vectors[1:], atol=1e-5)  # the text part is the whole truth
    cold = dataset.cold_items
    np.testing.assert_allclose(table.item_table.detach().numpy()[cold], vectors[cold], atol=1e-6)
    np.testing.assert_array_equal(validation_ranks(table, dataset), load_array(target, "valid_ranks"))


def test_sources_in_turn_are_the_same_as_one_after_the_other(
    build: Run, film_data: Path, film_teacher: dict[str, Path]
) -> None:
    def learned(start: Path, **fields: Any) -> Path:
        config = SourceConfig.model_validate({"method": METHOD, **fields})
        return build(train_source, config, data=film_data, pretrain=start)

    at_once = learned(film_teacher["pretrain"], domains=["source", "target"])
    first = learned(film_teacher["pretrain"], domain="source")
    second = learned(first, domain="target")
    one, two = load_sequence(at_once), load_sequence(second)
    assert one is not None and two is not None
    torch.testing.assert_close(one.state_dict(), two.state_dict(), atol=0.0, rtol=0.0)
    logged: list[str] = []
    config = SourceConfig.model_validate({"method": METHOD, "domains": ["source", "target"]})
    out = at_once.parent / "again"
    out.mkdir()
    inputs = {"data": film_data, "pretrain": film_teacher["pretrain"]}
    train_source(config, inputs, out, RunOptions(threads=1, log=logged.append))
    assert [line.split(":")[0] for line in logged] == ["source source", "source target"]


def test_mistakes(request: pytest.FixtureRequest) -> None:
    path = request.config.rootpath / "recipes" / "tiny.yaml"
    with pytest.raises(UsageError) as caught:
        load_recipe(path, STAGES, ["source.domains=[source, books]"])
    assert any(
        "source.domains: no such domain in data.domains" in line and "'books'" in line for line in caught.value.lines
    )
    assert load_recipe(path, STAGES, ["source.domains=[source, target]"])
    with pytest.raises(ValidationError):
        TypeAdapter(DomainEntry).validate_python({"name": "adapter", "rank": 0})
