"""Attribute filters of requests, kept between them: the same few are asked for again and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from deploy.catalogue import Catalogue, Filter
from deploy.ranker import Rows

_MOST_BYTES, _MOST_ENTRIES = 16 << 20, 64


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a filter lets through: `mask` bool (n + 1,), and `blocked`, the rows it does not, int64 without row 0."""

    mask: npt.NDArray[np.bool_]
    blocked: Rows


class Filters:
    """filter -> `Allowed`, the most recently asked ones kept, in at most 16 MB. Thread-safe."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        entries = min(_MOST_ENTRIES, max(1, _MOST_BYTES // (9 * (len(catalogue) + 1))))
        self._kept = lru_cache(maxsize=entries)(self._find)

    def allowed(self, filter: Filter) -> Allowed:
        """Raises UsageError where an attribute does not exist."""
        return self._kept(tuple(sorted((attribute, tuple(sorted(values))) for attribute, values in filter.items())))

    def _find(self, filter: Sequence[tuple[str, Sequence[str]]]) -> Allowed:
        mask = self._catalogue.allowed(dict(filter))
        return Allowed(mask, np.flatnonzero(~mask)[1:].astype(np.int64, copy=False))
