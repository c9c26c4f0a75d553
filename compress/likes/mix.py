"""Stage `mix` for like/dislike data: what each member says of a row, weighted on validation.

A logistic regression of the label on the members' log-odds: the logarithmic opinion pool of `compress/teacher/mix.py`
with two classes. Weights are not negative, so that a member can be left out but not turned around.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.accuracy import auc
from benchmarks.likes import user_values
from compress.chain import gathered
from compress.likes.rows import SPLITS, LikeData, Split, read_logits, write_logits
from compress.likes.stages import LOGITS
from compress.models.folder import load_array, load_text, write_model
from compress.stage import Inputs, RunOptions
from compress.training.convex import minimise
from deploy.errors import UsageError

Logits = Mapping[Split, NDArray[np.float64]]


def mix_likes(
    members: tuple[str, ...], folds: int, seed: int, domain: str, inputs: Inputs, out: Path, options: RunOptions
) -> None:
    """data, baselines, target, every member's logits -> the teacher as it teaches: text part and logits of the mix.

    Validation logits are those of weights that did not see the user, so that the gate judges what is not fitted to it.
    """
    data = LikeData.open(inputs["data"], domain)
    found = _members(members, inputs)
    labels, users = data["valid"].labels, data["valid"].users
    pool = Pool(found, labels)
    weights = pool.weights(np.ones(len(labels), bool))
    logits = {split: pool.mixed(weights, {name: values[split] for name, values in found.items()}) for split in SPLITS}
    fold = user_folds(users, folds, seed)
    for number in np.unique(fold):
        held = fold == number
        logits["valid"][held] = pool.mixed(
            pool.weights(~held), {name: values["valid"][held] for name, values in found.items()}
        )
    value = auc(logits["valid"], labels) or 0.0
    alone = {name: auc(values["valid"], labels) or 0.0 for name, values in found.items()}
    shares = dict(zip(found, (weights[:-1] / max(weights[:-1].sum(), 1e-9)).tolist(), strict=True))
    arrays = {"valid_values": user_values(logits["valid"], labels, users)}
    if (vectors := load_array(inputs["target"], "item_vectors")) is not None:
        arrays["item_vectors"] = vectors
    metrics = {"valid_auc": value, "alone": alone, "shares": shares}
    write_model(out, text=load_text(inputs["target"]), arrays=arrays, metrics=metrics)
    write_logits(out / LOGITS, logits)
    parts = ", ".join(f"{name} {shares[name]:.0%} (alone {alone[name]:.4f})" for name in found)
    options.log(f"mix: validation AUC {value:.4f}, weights chosen on other users; {parts}")


def _members(names: tuple[str, ...], inputs: Inputs) -> dict[str, Logits]:
    """Every member's logits by name; the teacher itself is the first."""
    variants = {chain.variant: folder for chain, folder in gathered(inputs, "member")}
    files = {"teacher": inputs["target"] / LOGITS}
    files |= {n: variants[n] / LOGITS if n in variants else inputs["baselines"] / f"{n}.npz" for n in names}
    for name in names:
        if not files[name].exists():
            raise UsageError(f"mix.members: {name} answers no like/dislike rows; name a control or a teacher that does")
    return {name: read_logits(path) for name, path in files.items() if path.exists()}


class Pool:
    """Members' validation logits, and the weights that follow from them; a member's unit is its own spread there."""

    def __init__(self, members: Mapping[str, Logits], labels: NDArray[np.bool_]) -> None:
        self.spread = np.array([max(float(values["valid"].std()), 1e-6) for values in members.values()])
        self.valid = self._table({name: values["valid"] for name, values in members.items()})
        self.labels = torch.from_numpy(labels.astype(np.float64))

    def weights(self, among: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Non-negative weights in units of spread and the bias, (members + 1,), most likely on the rows `among`."""
        rows, labels = torch.from_numpy(self.valid[among]), self.labels[torch.from_numpy(among)]

        def loss(free: Tensor) -> Tensor:
            mixed = rows @ functional.softplus(free[:-1]) + free[-1]
            return functional.binary_cross_entropy_with_logits(mixed, labels)

        best = minimise(torch.full((rows.shape[1] + 1,), -1.0, dtype=torch.float64), loss)
        return np.asarray(torch.cat([functional.softplus(best[:-1]), best[-1:]]).numpy(), np.float64)

    def mixed(self, weights: NDArray[np.float64], members: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The mix's logits of the rows that `members` answer, float64 (rows,)."""
        found: NDArray[np.float64] = self._table(members) @ weights[:-1] + weights[-1]
        return found

    def _table(self, members: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.asarray(np.stack(list(members.values()), axis=1) / self.spread, np.float64)


def user_folds(users: NDArray[np.int32], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row, int64 (rows,): a user's rows are in one."""
    distinct, index = np.unique(users, return_inverse=True)
    fold: NDArray[np.int64] = (np.random.default_rng(seed).permutation(len(distinct)) % folds)[index]
    return fold
