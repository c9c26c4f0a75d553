"""Which cell is faster, and when nobody may say so."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from benchmarks.bench.cells import Cell
from benchmarks.bench.record import BenchRow, LatencyComparison, Side, Verdict
from benchmarks.intervals import holm
from benchmarks.measure import Latency
from benchmarks.ratios import paired

ALPHA = 0.05


def compare(measured: Mapping[Cell, Latency], tolerance: float) -> list[LatencyComparison]:
    """Every pair of cells that do the same work, Holm-corrected over all of them; paired by round.

    `tolerance`: a smaller relative difference is a tie, however sure. Two copies of one bundle differ by some percent
    in every round of a process: their ids lie elsewhere in memory.
    """
    alike: dict[tuple[int, int, int], list[Cell]] = defaultdict(list)
    for cell in measured:
        alike[cell.work].append(cell)
    pairs = [pair for cells in alike.values() for pair in combinations(cells, 2)]
    ratios = [paired(measured[b].round_medians(), measured[a].round_medians()) for a, b in pairs]
    p_values = [ratio.p_value(tolerance) for ratio in ratios]
    return [
        LatencyComparison(
            a=a.side,
            b=b.side,
            batch=a.batch,
            history=a.history,
            items=a.subject.n_items,
            ratio=ratio.ratio,
            ci95=ratio.interval(),
            p=p,
            p_holm=p_holm,
            verdict=_verdict(ratio.ratio, p_holm),
        )
        for (a, b), ratio, p, p_holm in zip(pairs, ratios, p_values, holm(p_values), strict=True)
    ]


def _verdict(ratio: float, p_holm: float) -> Verdict:
    if p_holm >= ALPHA:
        return "tie"
    return "faster" if ratio > 1 else "slower"


def against(side: Side, work: tuple[int, int, int], comparisons: Sequence[LatencyComparison]) -> dict[Side, Verdict]:
    """What the comparisons say of `side` on this work, by the other side."""
    turned: dict[Verdict, Verdict] = {"faster": "slower", "slower": "faster", "tie": "tie"}
    found: dict[Side, Verdict] = {}
    for one in comparisons:
        if (one.batch, one.history, one.items) == work:
            if one.a == side:
                found[one.b] = one.verdict
            elif one.b == side:
                found[one.a] = turned[one.verdict]
    return found


def side_of(row: BenchRow, bundle: str) -> Side:
    """The row as it is named in comparisons."""
    return Side(bundle=bundle, precision=row.precision or "", device=row.device, threads=row.threads)
