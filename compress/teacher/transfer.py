"""Stages `source` and `target`: the teacher learns the richer domain first, then the domain it will serve."""

import tempfile
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from benchmarks.accuracy import ndcg
from compress.data.dataset import Dataset
from compress.likes.stages import train_likes_teacher
from compress.models.folder import load_sequence, load_text, model_facts, write_json, write_model
from compress.models.sequence import SequenceEncoder, SequenceModel
from compress.stage import Entry, Inputs, RunOptions, Shorthand, Skip, StageConfig
from compress.store import link_tree
from compress.task import task_of
from compress.teacher.cache import CachedScores, cached_scores
from compress.teacher.given.lists import GivenLists
from compress.teacher.given.vectors import GivenVectors
from compress.teacher.meta import Meta, train_meta
from compress.teacher.several import merged
from compress.teacher.two_level import TwoLevel, TwoLevelTeacher
from compress.training import seed_everything, validation_ranks
from compress.training.engine import device_of


class Frozen(Entry):
    """No recommender is trained: the LM as it is gives item vectors, for controls that may use text."""

    name: Literal["frozen"] = "frozen"


Given = GivenVectors | GivenLists


class SourceConfig(StageConfig):
    """The teacher on the source domain; `none` goes straight to the target."""

    skipped: ClassVar = {"method": "none"}

    method: Annotated[TwoLevel | Meta | Skip, Field(discriminator="name"), Shorthand] = TwoLevel()
    domain: str = "source"
    domains: tuple[str, ...] = Field(default=(), max_length=8, description="several in place of `domain`")
    schedule: Literal["in_turn", "mixed"] = "in_turn"

    @property
    def learned(self) -> tuple[str, ...]:
        """The domains, in the order they are learned."""
        return self.domains or (self.domain,)

    @property
    def teaches(self) -> bool:
        return not isinstance(self.method, Skip)


class TargetConfig(StageConfig):
    """The teacher on the target domain, and how many of its scores students may read."""

    skipped: ClassVar = {"method": "none"}

    method: Annotated[TwoLevel | Frozen | Given | Skip, Field(discriminator="name"), Shorthand] = TwoLevel()
    domain: str = "target"
    cached_scores: CachedScores = CachedScores()

    @property
    def teaches(self) -> bool:
        return self.method.teaches if isinstance(self.method, Given) else isinstance(self.method, TwoLevel)

    @property
    def leaves(self) -> frozenset[str]:
        return self.cached_scores.leaves


def given_digests(config: TargetConfig) -> dict[str, str]:
    """The content of the files that a given teacher comes in. Raises UsageError where one is missing."""
    return config.method.digests() if isinstance(config.method, Given) else {}


def train_source(config: SourceConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, pretrain -> a model folder with `text/` and `sequence/` of the source domain."""
    if isinstance(config.method, Skip) or not _has_text(inputs["pretrain"]):
        link_tree(inputs["pretrain"], out)
        return
    domains = {name: Dataset.open(inputs["data"], name) for name in config.learned}
    if config.schedule == "mixed" and len(domains) > 1:
        whole, domain_of = merged(domains)
        _train(config.method, whole, config.seed, inputs["pretrain"], out, options, "source", domain_of)
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        start = inputs["pretrain"]
        for number, (name, dataset) in enumerate(domains.items(), 1):
            folder = out if number == len(domains) else Path(scratch) / name
            folder.mkdir(exist_ok=True)
            what = "source" if len(domains) == 1 else f"source {name}"
            _train(config.method, dataset, config.seed, start, folder, options, what)
            start = folder


def train_target(config: TargetConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, source -> the teacher: model folder, `item_vectors.npy`, cached scores and validation ranks."""
    if isinstance(config.method, Given):
        dataset = Dataset.open(inputs["data"], config.domain)
        config.method(dataset, config.cached_scores, config.seed, out, options)
        return
    if isinstance(config.method, Skip) or not _has_text(inputs["source"]):
        link_tree(inputs["source"], out)
        return
    dataset = Dataset.open(inputs["data"], config.domain)
    if isinstance(config.method, Frozen):
        encoder = load_text(inputs["source"])
        assert encoder is not None
        vectors = np.pad(encoder.encode(dataset.texts), ((1, 0), (0, 0)))  # row 0 is padding
        write_model(out, text=encoder, arrays={"item_vectors": vectors})
        return
    if task_of(inputs["data"]) == "likes":
        train_likes_teacher(config.method, config.domain, config.seed, inputs["data"], inputs["source"], out, options)
        return
    model = _train(config.method, dataset, config.seed, inputs["source"], out, options, "target")
    for name, array in cached_scores(model, dataset, config.cached_scores, options).items():
        np.save(out / f"{name}.npy", array)


def _has_text(folder: Path) -> bool:
    return "text" in model_facts(folder)["parts"]


def _train(
    method: TwoLevel | Meta,
    dataset: Dataset,
    seed: int,
    start: Path,
    out: Path,
    options: RunOptions,
    what: str,
    domain_of: Tensor | None = None,
) -> SequenceModel:
    """Writes the teacher's model folder. What a source domain has of its own is left out of the text part there: the
    next domain starts from what they share."""
    rng = seed_everything(seed, options)
    text = load_text(start)
    assert text is not None
    sizes = method.two_level if isinstance(method, Meta) else method
    teacher = TwoLevelTeacher(sizes, text, dataset, _encoder(start, sizes), domain_of).to(device_of(options))
    if isinstance(method, Meta):
        result = train_meta(method, teacher, dataset, rng, options, what)
    else:
        result = teacher.train_two_level(method, dataset, rng, options, what)
    if what == "target":
        teacher.fold_domain()
    model = teacher.folded()
    ranks = validation_ranks(model, dataset)
    write_model(
        out,
        text=teacher.text,
        sequence=model,
        arrays={
            "item_vectors": teacher.text_vectors().detach().cpu().numpy().astype(np.float32),
            "valid_ranks": ranks,
        },
        metrics={"valid_ndcg@10": float(ndcg(ranks, 10).mean()), "best_epoch": result.best_epoch},
    )
    write_json(out / "curve.json", [[e, None if loss != loss else loss, v] for e, loss, v in result.curve])
    return model


def _encoder(start: Path, method: TwoLevel) -> SequenceEncoder | None:
    """The sequence encoder of an earlier domain where all sizes agree: it has seen no item ids, so it transfers."""
    model = load_sequence(start)
    if model is None:
        return None
    shape = method.shape(model.shape.n_items)
    if model.shape.model_copy(update={"dropout": shape.dropout}) != shape:
        return None
    with torch.device("meta"):  # takes the weights as they are and draws none
        encoder = SequenceEncoder(shape)
    encoder.load_state_dict(model.encoder.state_dict(), assign=True)
    return encoder
