"""Stage `mix`: collaborative models join the language model's teacher, each weighted on validation.

What users do together is what texts lack. The mix is a logarithmic opinion pool (Genest and Zidek 1986, section 3): a
weighted sum of the members' scores, the weights those of the multinomial logit that gives the validation items their
highest likelihood, so that the sum is calibrated as well: soft labels need that.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from benchmarks.accuracy import at_once, ndcg, ranks_of, top_rows
from compress.baselines.run import fitted
from compress.chain import gathered
from compress.data.dataset import Cases, Dataset
from compress.likes.mix import mix_likes
from compress.models.folder import load_array, load_scorer, load_text, read_json, write_model
from compress.models.mix import ItemBias, ItemItem, Member, MemberFacts, Mix
from compress.models.sequence import SequenceModel
from compress.stage import Inputs, RunOptions, StageConfig
from compress.store import link_tree
from compress.task import task_of
from compress.teacher.cache import CachedScores, cached_scores
from compress.training import seed_everything
from compress.training.convex import minimise
from compress.training.engine import device_of
from deploy.errors import UsageError

MOST_CASES, MOST_SCORES = 4096, 2**28
"""Validation cases the weights are chosen on: a few numbers need no more. On large catalogues fewer, so that all
members' scores of them stay within 1 GB."""
LEAST_SHARE = 0.01
"""A member that is less of the mix is left out: it costs time and says nothing. The teacher itself stays."""


class MixConfig(StageConfig):
    """Who joins the teacher: variants of this recipe (controls, other teachers) and baselines, by name."""

    skipped: ClassVar = {"members": []}
    members: tuple[str, ...] = Field(default=(), max_length=16)
    # validation ranks are those of weights that did not see the user
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    cached_scores: CachedScores = CachedScores()
    domain: str = "target"

    @model_validator(mode="after")
    def _no_common_space(self) -> Self:
        if self.members and self.cached_scores.user_vectors:
            raise ValueError("cached_scores.user_vectors: a mix has no user vectors of a common space; use tail")
        return self

    @property
    def teaches(self) -> bool:
        return bool(self.members)

    @property
    def reads(self) -> tuple[str, ...]:
        return self.members

    @property
    def leaves(self) -> frozenset[str]:
        return self.cached_scores.leaves


def mix(config: MixConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, baselines, target, every member's model -> the teacher as it teaches: `mix/` in place of `sequence/`,
    cached scores and validation ranks of the mix. Without members the teacher goes on as it is."""
    if not config.members:
        link_tree(inputs["target"], out)
        return
    if task_of(inputs["data"]) == "likes":
        mix_likes(config.members, config.folds, config.seed, config.domain, inputs, out, options)
        return
    rng = seed_everything(config.seed, options)
    dataset = Dataset.open(inputs["data"], config.domain)
    members = dict(_members(config, inputs, dataset))
    cases = dataset.cases("valid")
    fitting = _Fitting([model for model, _ in members.values()], cases, rng, device_of(options))
    alone = {name: fitting.ndcg_alone(index) for index, name in enumerate(members)}
    heard = np.array(fitting.shares(fitting.weights())) >= LEAST_SHARE
    heard |= [reads_text for _, reads_text in members.values()]
    left_out = [name for name, kept in zip(members, heard, strict=True) if not kept]
    members = {name: member for name, member in members.items() if name not in left_out}
    fitting = fitting.among(heard)
    weights = fitting.weights()
    model = _mixed(members, weights).to(device_of(options)).eval()
    ranks = fitting.crossed_ranks(config.folds, rng)
    value = float(ndcg(ranks, 10).mean())
    arrays: dict[str, NDArray[Any]] = {"valid_ranks": ranks}
    if (vectors := load_array(inputs["target"], "item_vectors")) is not None:
        arrays["item_vectors"] = vectors
    shares = dict(zip(members, fitting.shares(weights), strict=True))
    metrics = {"valid_ndcg@10": value, "alone": alone, "shares": shares, "left_out": left_out}
    arrays |= cached_scores(model, dataset, config.cached_scores, options)
    write_model(out, text=load_text(inputs["target"]), mix=model, arrays=arrays, metrics=metrics)
    parts = ", ".join(f"{name} {shares.get(name, 0.0):.0%} (alone {alone[name]:.4f})" for name in alone)
    options.log(f"mix: validation NDCG@10 {value:.4f}, weights chosen on other users; {parts}")


def _members(config: MixConfig, inputs: Inputs, dataset: Dataset) -> Iterator[tuple[str, tuple[Member, bool]]]:
    """(name, (model, whether its vectors are those of the teacher's own text part))."""
    own = load_scorer(inputs["target"])
    if isinstance(own, SequenceModel):
        yield "teacher", (own, True)
    elif (inputs["target"] / "answers.npz").exists():
        raise UsageError("mix.members: a teacher given as answers scores no other history; give its variant mix: none")
    variants = {chain.variant: folder for chain, folder in gathered(inputs, "member")}
    baselines = read_json(inputs["baselines"] / "baselines.json")
    for name in config.members:
        if name not in variants:
            yield name, (fitted(name, baselines, dataset), False)
            continue
        model = load_scorer(variants[name])
        if not isinstance(model, SequenceModel):
            raise UsageError(
                f"mix.members: {name} ranks nothing on its own; name a control or a teacher (got {name!r})"
            )
        yield name, (model, False)


KINDS: Mapping[type, str] = {SequenceModel: "sequence", ItemItem: "item_item", ItemBias: "item_bias"}


def _mixed(members: Mapping[str, tuple[Member, bool]], weights: NDArray[np.float64]) -> Mix:
    facts = [
        MemberFacts.model_validate(
            {
                "name": name,
                "kind": KINDS[type(model)],
                "weight": float(weight),
                "reads_text": reads_text,
                "last": model.max_history if isinstance(model, ItemItem) else 0,
            }
        )
        for (name, (model, reads_text)), weight in zip(members.items(), weights, strict=True)
    ]
    return Mix([model for model, _ in members.values()], facts)


class _Fitting:
    """The members' scores of some validation cases, and what weights follow from them."""

    def __init__(self, members: Sequence[Member], cases: Cases, rng: np.random.Generator, device: torch.device) -> None:
        self.members, self.cases, self.seen = [model.to(device).eval() for model in members], cases, cases.seen
        self.device = device
        self.most = max(1, min(MOST_CASES, MOST_SCORES // (len(members) * (members[0].n_items + 1))))
        self.index = np.sort(rng.permutation(len(cases))[: self.most])
        raw = self._scores(self.index)
        forbidden = torch.zeros(raw.shape[1:], dtype=torch.bool)
        forbidden[:, 0] = True
        for row, case in zip(forbidden, self.index, strict=True):
            row[torch.from_numpy(self.seen[case].astype(np.int64))] = True
        self.targets = torch.from_numpy(cases.targets[self.index].astype(np.int64))
        self.fair = ~forbidden.gather(1, self.targets[:, None])[:, 0].numpy()  # a repeat is never answered
        self.spread = np.array([float(scores[~forbidden].std()) for scores in raw])  # 0: the same for all items
        unit = torch.from_numpy(np.where(self.spread > 0, self.spread, 1.0)).float()
        self.scores = (raw / unit[:, None, None]).masked_fill(forbidden, -1e4)

    def among(self, kept: NDArray[np.bool_]) -> "_Fitting":
        """The same cases with the members `kept` alone."""
        fewer = copy(self)
        fewer.members = [member for member, keep in zip(self.members, kept, strict=True) if keep]
        fewer.scores, fewer.spread = self.scores[torch.from_numpy(kept)], self.spread[kept]
        return fewer

    @torch.no_grad()
    def _scores(self, index: NDArray[np.int64]) -> Tensor:
        """The cases' scores by every member, (members, cases, n_items + 1) float32."""
        parts = []
        for model in self.members:
            histories = torch.from_numpy(self.cases.histories(model.max_history)[index]).to(self.device)
            parts.append(
                torch.cat([model.scores(some).float().cpu() for some in torch.split(histories, at_once(model.n_items))])
            )
        return torch.stack(parts)

    def weights(self, held_out: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Non-negative weights (members,) of highest likelihood on the cases, those `held_out` aside, by L-BFGS; equal
        shares where no case is left."""
        rows = torch.from_numpy(self.fair if held_out is None else self.fair & ~held_out)
        scores, targets = self.scores[:, rows], self.targets[rows]

        def loss(free: Tensor) -> Tensor:
            return functional.cross_entropy(torch.einsum("m,mci->ci", functional.softplus(free), scores), targets)

        start = torch.full((len(scores),), -1.0)
        best = minimise(start, loss) if rows.any() else start
        units = np.asarray(functional.softplus(best).double().numpy(), np.float64)
        return np.where(self.spread > 0, units / np.maximum(self.spread, 1e-12), 0.0)

    def shares(self, weights: NDArray[np.float64]) -> list[float]:
        """How much of the mix's spread each member's is."""
        parts = weights * self.spread
        return [float(part) for part in parts / parts.sum()]

    def crossed_ranks(self, folds: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """Ranks of all validation cases, (cases,) int32, each with weights chosen on the other folds' cases."""
        fold = rng.permutation(len(self.cases)) % folds
        ranks = np.zeros(len(self.cases), np.int32)
        for number in np.unique(fold):
            weights = self.weights(fold[self.index] == number)
            held = np.flatnonzero(fold == number)
            for part in np.array_split(held, -(-len(held) // self.most)):
                ranks[part] = self._ranks(part, weights)
        return ranks

    def ndcg_alone(self, member: int) -> float:
        """Validation NDCG@10 of one member, on the cases the weights are chosen on."""
        return float(ndcg(self._ranks(self.index, np.eye(len(self.members))[member]), 10).mean())

    def _ranks(self, index: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.int32]:
        mixed = torch.einsum("m,mci->ci", torch.from_numpy(weights).float(), self._scores(index)).numpy()
        top = top_rows(mixed, [self.seen[case] for case in index], min(1000, mixed.shape[1] - 1))
        return ranks_of(top, self.cases.targets[index])
