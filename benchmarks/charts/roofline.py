"""The roofline: what a machine could do, and what graphs do on it. S. Williams, A. Waterman, D. Patterson, Roofline: An
Insightful Visual Performance Model (CACM 52, 2009)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.charts.axes import across, log_axis, upright
from benchmarks.charts.drawing import Drawing, Labels, line, mark, of_model, text

_TOP, _BOTTOM, _HEIGHT, _LEFT = 22, 300, 342, 50


@dataclass(frozen=True)
class Work:
    """One graph on the machine: operations per byte that must be read, and Gop/s (10^9 operations a second) that it
    reached."""

    name: str
    words: str
    kind: str
    intensity: float
    rate: float


def roofline(works: Sequence[Work], slopes: Mapping[str, float], ceilings: Mapping[str, float]) -> Drawing:
    """`slopes`: name -> 10^9 bytes a second that the machine reads; `ceilings`: name -> 10^9 operations a second.

    Raises ValueError without works, slopes or ceilings, or where one is not above 0.
    """
    if not (works and slopes and ceilings):
        raise ValueError("a roofline needs graphs and the machine's rates")
    ridge = max(ceilings.values()) / min(slopes.values())
    sideways = log_axis([*(work.intensity for work in works), ridge])
    lowest = min(sideways.low * min(slopes.values()), *(work.rate for work in works))
    up = log_axis([lowest, *ceilings.values(), *(work.rate for work in works)])

    def place(intensity: float, rate: float) -> tuple[float, float]:
        return sideways.percent(intensity), up.up(rate, _TOP, _BOTTOM)

    parts = [*upright(up, _TOP, _BOTTOM), *across(sideways, _TOP, _BOTTOM, "operations per byte read")]
    parts.append(text(0, 12, "Gop/s", "start", "number", 8 - _LEFT))
    highest = max(ceilings.values())
    for name, rate in ceilings.items():
        start = max(sideways.low, min(rate / max(slopes.values()), sideways.high))
        (x1, y), (x2, _) = place(start, rate), place(sideways.high, rate)
        parts += [line(x1, y, x2, y, "zero dashed"), text(100, y - 5, name, "end", "number")]
    for number, (name, bandwidth) in enumerate(slopes.items()):
        stop = min(sideways.high, highest / bandwidth)
        start = max(sideways.low, up.low / bandwidth)
        (x1, y1), (x2, y2) = place(start, start * bandwidth), place(stop, stop * bandwidth)
        parts += [line(x1, y1, x2, y2, "zero"), text(x1, y1 - 6 + 18 * number, name, "start", "number", 10)]
    spots = [place(work.intensity, work.rate) for work in works]
    labels = Labels(spots, _TOP, _BOTTOM)
    for work, (x, y) in zip(works, spots, strict=True):
        parts.append(of_model(work.name, [mark(x, y, "circle", work.kind), labels.place(x, y, work.name)], work.words))
    spoken = "; ".join(work.words for work in works)
    return Drawing(parts, _HEIGHT, "Roofline: achieved operations a second against operations per byte", spoken, _LEFT)
