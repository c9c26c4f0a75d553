"""Several source domains as one: their items one catalogue, their users apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.dataset import SETS, Dataset


def merged(domains: Mapping[str, Dataset]) -> tuple[Dataset, Tensor]:
    """All domains' items and users in one data set, and each item's domain, (n_items,) int64.

    A user of two domains is two users: without a common clock there is no order between their events. Ids get their
    domain's name in front.
    """
    sets = list(domains.values())
    first_item = np.cumsum([0, *(part.n_items for part in sets)])
    first_user = np.cumsum([0, *(len(part.users) for part in sets)])
    first_event = np.cumsum([0, *(len(part.items) for part in sets)])
    split: dict[str, NDArray[Any]] = {
        "train": np.concatenate([part.train for part in sets]),
        "cold_items": _moved([part.cold_items for part in sets], first_item),
        "cold_targets": _moved([part.split["cold_targets"] for part in sets], first_item),
    }
    segments: dict[str, NDArray[np.bool_]] = {}
    for name in SETS:
        split[f"{name}_users"] = _moved([part.split[f"{name}_users"] for part in sets], first_user)
        split[f"{name}_positions"] = _moved([part.split[f"{name}_positions"] for part in sets], first_event)
        for segment in (f"{name}_tail", f"{name}_short"):
            segments[segment] = np.concatenate([part.segments[segment] for part in sets])
    whole = Dataset(
        item_ids=[f"{name}:{item}" for name, part in domains.items() for item in part.item_ids],
        titles=[title for part in sets for title in part.titles],
        texts=[text for part in sets for text in part.texts],
        attributes={"domain": [name for name, part in domains.items() for _ in range(part.n_items)]},
        users=[f"{name}:{user}" for name, part in domains.items() for user in part.users],
        offsets=np.concatenate([[0], *(part.offsets[1:] + at for part, at in zip(sets, first_event, strict=False))]),
        items=_moved([part.items for part in sets], first_item),
        times=np.concatenate([part.times for part in sets]),
        split=split,
        segments=segments,
        list_separators={},
    )
    domain_of = np.repeat(np.arange(len(sets)), [part.n_items for part in sets])
    return whole, torch.from_numpy(domain_of.astype(np.int64))


def _moved(parts: Sequence[NDArray[Any]], first: NDArray[np.int64]) -> NDArray[Any]:
    return np.concatenate([(part + at).astype(part.dtype) for part, at in zip(parts, first, strict=False)])
