"""Which linear maps stay fp32: each group is quantized alone, and the worst are left out until a bound is met."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Group = Sequence[str]


@dataclass(frozen=True)
class Choice:
    """Names of the maps to quantize, how many groups were left out, and how many graphs were measured."""

    quantized: list[str]
    left_out: int
    measured: int


def choose_maps(groups: Sequence[Group], loss: Callable[[list[str]], float], bound: float) -> Choice:
    """The fewest of the most sensitive groups left out with which `loss(names)` is at most `bound`.

    All at once first: where that is good enough nothing else is measured. Otherwise each group alone, then a binary
    search over how many of the worst are left out: at most 1 + groups + log2(groups) measurements. Nothing is quantized
    where no choice meets the bound.
    """
    if loss(_names(groups)) <= bound:
        return Choice(_names(groups), 0, 1)
    alone = [loss(list(group)) for group in groups]
    worst_first = sorted(range(len(groups)), key=lambda index: -alone[index])
    measured = 1 + len(groups)
    low, high = 1, len(groups)  # leaving out all is always inside
    while low < high:
        middle = (low + high) // 2
        measured += 1
        if loss(_names([groups[index] for index in sorted(worst_first[middle:])])) <= bound:
            high = middle
        else:
            low = middle + 1
    return Choice(_names([groups[index] for index in sorted(worst_first[low:])]), low, measured)


def _names(groups: Sequence[Group]) -> list[str]:
    return [name for group in groups for name in group]
