"""What charts are made of: axes with round marks, places in percent, texts that stay texts, colours with contrast."""

from xml.etree import ElementTree

import pytest

from benchmarks.charts.axes import linear_axis, log_axis, round_step, short
from benchmarks.charts.drawing import Drawing, Labels, mark, of_model, text
from benchmarks.charts.roofline import Work, roofline
from benchmarks.charts.rows import Estimate, Spread, Stack, estimates, spreads, stacks
from benchmarks.charts.scatter import Spot, pareto_front, trade_off
from benchmarks.charts.style import DARK, LIGHT, ROLES, SERIES

HOSTILE = "</svg><script>alert(1)</script>\"'&"
SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(drawing.standalone(600))


def lines(drawing: Drawing, kind: str) -> list[dict[str, str]]:
    return [dict(part.attrib) for part in parsed(drawing).iter(f"{SVG}line") if kind in part.get("class", "").split()]


def test_axes_by_hand() -> None:
    axis = linear_axis([0.0, 10.0], count=5)
    assert axis.ticks == (0, 5, 10) and axis.percent(5.0) == pytest.approx(50)
    assert linear_axis([3.0], zero=True).low == 0 and linear_axis([2.0]).share(2.0) == pytest.approx(0.5)
    wide = log_axis([0.1, 100.0])
    assert wide.ticks == pytest.approx((0.1, 0.3, 1, 3, 10, 30, 100)[::2]) and wide.percent(10**0.5) == pytest.approx(
        50
    )
    narrow = log_axis([1.0, 1.1])
    assert narrow.high / narrow.low > 2 and len(narrow.ticks) >= 1
    assert wide.up(wide.high, 20, 300) == pytest.approx(20) and wide.up(wide.low, 20, 300) == pytest.approx(300)
    for wrong in ([], [0.0], [-1.0, 1.0]):
        with pytest.raises(ValueError, match="above 0"):
            log_axis(wrong)


def test_numbers_of_marks() -> None:
    assert [round_step(value) for value in (0.03, 1.0, 2.1, 6, 0)] == pytest.approx([0.05, 1, 5, 10, 1])
    assert [short(value) for value in (0.05, 0, 200, 5000, 20_000, 3e6, 2e-6)] == [
        *("0.05", "0", "200", "5000", "20k", "3M", "2µ"),
    ]


def test_the_front_by_hand() -> None:
    places = {"a": (1, 0.1), "b": (2, 0.3), "c": (3, 0.2), "d": (4, 0.3), "e": (5, 0.4), "out": (0.5, 0.9)}
    spots = [Spot(name, name, "student", *at, on_front=name != "out") for name, at in places.items()]
    assert [spot.name for spot in pareto_front(spots)] == ["a", "b", "e"]


def test_a_spot_stands_where_its_numbers_are() -> None:
    spots = [Spot("a", "a", "student", 1, 0.1, (0.05, 0.15)), Spot("b", "b", "teacher", 100, 0.2, ringed=True)]
    drawing = trade_off(spots, "cost", "gain", limits={"budget": 10}, levels={"far below": -5.0, "near": 0.08})
    groups = {part.get("data-model"): part for part in parsed(drawing).iter(f"{SVG}g") if part.get("data-model")}
    (x0, y0), (x1, y1) = (
        (float(ring.get("cx", "")[:-1]), float(ring.get("cy", "")))
        for group in (groups["a"], groups["b"])
        for ring in [group.findall(f"{SVG}circle")[-1]]
    )
    assert x0 + x1 == pytest.approx(100) and y0 > y1
    [limit] = lines(drawing, "limit")
    assert limit["x1"] == "50.00%" == limit["x2"]
    assert len(lines(drawing, "level")) == 1 and len(lines(drawing, "whisker")) == 1
    assert "No other beats in both: a, b." in drawing.description


def test_labels_keep_clear_of_marks_and_of_each_other() -> None:
    labels = Labels([(50, 100), (50, 101)], 0, 200)
    placed = [labels.place(50, 100, "a name") for _ in range(20)]
    assert all(placed[:4]) and len(set(placed[:4])) == 4 and placed[-1] == ""
    assert labels.place(1, 50, "a longer name").count('text-anchor="start"') == 1  # the edge is near
    assert labels.place(50, 150, "x" * 60) == ""


def test_rows_say_what_they_show() -> None:
    rows = [Estimate("a", "a", "0.2", "student", 0.2, (0.1, 0.3)), Estimate("b", "b", "0.1", "teacher", -0.1)]
    drawing = estimates(rows, "difference", "title", zero=True)
    assert drawing.description == "a: 0.2; b: 0.1" and len(lines(drawing, "zero")) == 1
    [whisker] = lines(drawing, "whisker")
    assert float(whisker["x1"][:-1]) < float(whisker["x2"][:-1])
    whole = {1: 0.8, 5: 0.9, 25: 1.0, 50: 1.1, 75: 1.2, 95: 1.5, 99: 2.0}
    known = spreads([Spread("a", "a", "", "student", whole)], "ms", "title")
    bands = [part for part in parsed(known).iter(f"{SVG}rect") if "student" in part.get("class", "")]
    widths = [float(part.get("width", "")[:-1]) for part in bands]
    assert len(bands) == 3 and widths == sorted(widths, reverse=True)
    part_known = spreads([Spread("a", "a", "", "student", {50: 1.1, 95: 1.5, 99: 2.0})], "ms", "title")
    assert len(lines(part_known, "whisker")) == 1
    long = "a name that no phone has the room for, whole"
    assert f">{long}<" in (made := "".join(estimates([Estimate("a", long, "0.2", "student", 0.2)], "x", "t").parts))
    assert "…<" in made and made.count("short") == made.count("long") == 1


def test_bars_are_as_long_as_their_amounts() -> None:
    rows = [Stack("", "long", "", "now", [(60, "soft"), (40, "now")]), Stack("", "short", "", "now", [(0.001, "now")])]
    bars = [part for part in parsed(stacks(rows, "s", "t")).iter(f"{SVG}rect") if "paper" not in part.get("class", "")]
    first, second, third = (float(part.get("width", "")[:-1]) for part in bars)
    assert first / second == pytest.approx(1.5, rel=1e-3) and third == 0.25  # what is there is seen


def test_a_roofline_by_hand() -> None:
    """At one operation a byte 10 GB/s allow 10 Gop/s; the ceiling of 100 starts at ten operations a byte."""
    drawing = roofline([Work("g", "g: half", "student", 1.0, 5.0)], {"memory": 10.0}, {"fp32": 100.0})
    slope, ceiling = lines(drawing, "zero")[::-1]
    assert slope["x2"] == ceiling["x1"] and slope["y2"] == ceiling["y1"] == ceiling["y2"]
    with pytest.raises(ValueError, match="machine's rates"):
        roofline([], {"memory": 1.0}, {"fp32": 1.0})


def test_texts_stay_texts() -> None:
    parts = [of_model(HOSTILE, [text(0, 0, HOSTILE), mark(1, 1, "circle", "student")], HOSTILE)]
    drawing = Drawing(parts, 10, HOSTILE, HOSTILE)
    tree = parsed(drawing)
    assert [part.text for part in tree.iter(f"{SVG}text")] == [HOSTILE] and not list(tree.iter(f"{SVG}script"))
    assert "<script" not in drawing.inline("x")


@pytest.mark.parametrize(("colours", "series"), [(LIGHT, "light"), (DARK, "dark")])
def test_colours_have_contrast(colours: dict[str, str], series: str) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: texts 4.5, marks 3."""

    def light(colour: str) -> float:
        values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    for paper in ("page", "paper", "picked"):
        for ink in ("ink", "soft", "good", "bad", "link"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    for name in (*ROLES, "ring", "now"):
        assert contrast(colours[name], colours["paper"]) >= 3, name
    for colour in SERIES[series]:
        assert contrast(colour, colours["paper"]) >= 3, colour
