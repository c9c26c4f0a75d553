"""The page in headless Chromium: drawn without a complaint, used by keyboard, read on a phone, safe with any name.

`make test-web` also asks axe-core (npm); without it the page's own checks remain.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.charts.style import LIGHT
from compress.report.page import write_report
from tests.browser import Browser, browser, needs_chromium
from tests.compress.report_example import example, extras

pytestmark = needs_chromium
ROOT = Path(__file__).parents[2]
AXE = Path(os.environ.get("SLIMREC_AXE", ROOT / "node_modules" / "axe-core")) / "axe.min.js"
HOSTILE = "</script><script>window.run=1</script><img src=x onerror='window.run=1'>\"><svg onload=window.run=1>"

CONTRAST = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = channels(colour).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const paper = (part) => {
    for (let at = part; at; at = at.parentElement) {
      const found = getComputedStyle(at).backgroundColor;
      if ((channels(found)[3] ?? 1) === 1) return found;
    }
    return "rgb(255, 255, 255)";
  };
  const weak = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const part = walker.currentNode.parentElement, style = getComputedStyle(part);
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "title", "desc"].includes(part.tagName)) continue;
    if (!part.getClientRects().length || style.visibility === "hidden") continue;
    const own = part.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [low, high] = [light(own), light(paper(part))].sort((a, b) => a - b), ratio = (high + .05) / (low + .05);
    seen += 1;
    if (ratio < 4.5) weak.push([part.outerHTML.slice(0, 120), own, paper(part), ratio]);
  }
  return { seen, weak };
})()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(example(), out, extras())
    return out.as_uri()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_said_or_asked(tab: Browser) -> Iterator[None]:
    """Whatever a test does: no error or message of a page, no request beside the page itself."""
    tab.said.clear()
    tab.asked.clear()
    yield
    assert tab.said == []
    assert {address.partition(":")[0] for address in tab.asked} == {"file"} and len(tab.asked) == 1


def shown_rows(tab: Browser) -> list[str]:
    rows = "[...document.querySelectorAll('#all-models tbody tr')].filter((row) => !row.hidden)"
    found: list[str] = tab.ask(f"{rows}.map((row) => row.dataset.name)")
    return found


def focused(tab: Browser, expression: str) -> object:
    return tab.ask(f"(() => {{ const at = document.activeElement; return {expression}; }})()")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_every_text_is_readable_and_the_page_is_as_wide_as_the_window(
    tab: Browser, report: str, width: int, dark: bool
) -> None:
    tab.open(report, width, dark=dark)
    tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert tab.ask("document.documentElement.scrollWidth") == width
    found = tab.ask(CONTRAST)
    assert found["weak"] == [] and found["seen"] > 300
    # no letter of a drawing leaves its figure
    outside = tab.ask("""[...document.querySelectorAll("figure text")].filter((part) => {
      const own = part.getBoundingClientRect(), box = part.closest("figure").getBoundingClientRect();
      return own.width && (own.left < box.left - 1 || own.right > box.right + 1);
    }).map((part) => part.textContent)""")
    assert outside == []


def test_the_contrast_check_finds_pale_text(tab: Browser, report: str) -> None:
    tab.open(report)
    tab.ask("document.querySelector('h1').style.color = '#aaa'")
    assert len(tab.ask(CONTRAST)["weak"]) == 1


def test_marks_are_gone_through_and_chosen_by_keyboard(tab: Browser, report: str) -> None:
    tab.open(report)
    tab.ask("document.querySelector('#trade-off [data-pick] [tabindex=\"0\"]').focus()")
    first = focused(tab, "at.dataset.model")
    tab.press("ArrowRight")
    second = focused(tab, "at.dataset.model")
    assert second != first and focused(tab, "at.getAttribute('role')") == "button"
    assert tab.ask("document.getElementById('tip').hidden") is False
    assert str(second) in str(tab.ask("document.getElementById('tip').textContent"))
    stops = "document.querySelectorAll('#trade-off [data-pick]')[0].querySelectorAll('[tabindex=\"0\"]').length"
    assert tab.ask(stops) == 1
    tab.press("End", "ArrowRight")
    assert focused(tab, "at.dataset.model") == first  # round
    tab.press("ArrowRight", "Enter")
    chosen = f"[...document.querySelectorAll('.on')].every((part) => part.dataset.model === {json.dumps(second)})"
    assert tab.ask(chosen) and tab.ask("document.querySelectorAll('figure .on').length") >= 2
    assert tab.ask("document.querySelectorAll('tr.on').length") >= 2
    assert str(second) in str(tab.ask("document.getElementById('picked').textContent"))
    assert focused(tab, "at.getAttribute('aria-pressed')") == "true"
    tab.press("Escape")
    assert tab.ask("document.querySelectorAll('.on').length") == 0
    assert tab.ask("document.getElementById('tip').hidden") is True


def test_the_table_is_sorted_filtered_and_chosen_from_by_keyboard(tab: Browser, report: str) -> None:
    tab.open(report)
    tab.ask("document.querySelectorAll('#all-models th.sorts button')[3].focus()")  # p50
    tab.press("Enter")
    ascending = shown_rows(tab)
    assert ascending[0] == "pruned-int8" and set(ascending[-2:]) == {"EASE", "popularity"}
    tab.press("Enter")
    descending = shown_rows(tab)
    assert descending[0] in ("teacher", "teacher-scratch") and set(descending[-2:]) == {"EASE", "popularity"}
    assert tab.ask("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"
    tab.ask("document.getElementById('find').focus()")
    tab.press(*"int8")
    assert set(shown_rows(tab)) == {"student-int8", "pruned-int8", "control-int8"}
    assert tab.ask("document.getElementById('count').textContent") == "3 of 9 rows"
    tab.ask("document.getElementById('role').value = 'control'")
    tab.ask("document.getElementById('role').dispatchEvent(new Event('input', { bubbles: true }))")
    assert shown_rows(tab) == ["control-int8"]
    tab.ask("document.querySelector('#all-models tr:not([hidden]) .who button').focus()")
    tab.press(" ")
    assert tab.ask("document.querySelector('figure .on').dataset.model") == "control-int8"
    assert focused(tab, "at.getAttribute('aria-pressed')") == "true"


def test_tab_reaches_everything_that_acts(tab: Browser, report: str) -> None:
    tab.open(report)
    names, seen = (
        [],
        "at.getAttribute('aria-label') || at.textContent.trim() || (at.labels && at.labels[0].textContent)",
    )
    for _ in range(400):
        tab.press("Tab")
        where = focused(tab, "at.tagName.toLowerCase()")
        if where == "body":
            break
        names.append(focused(tab, seen))
    else:
        pytest.fail("Tab never left the page")
    assert all(names) and len(names) > 40
    assert {"Table of all models", "Save result.json"} <= set(names)


def test_names_of_any_kind_are_text(tab: Browser, tmp_path: Path) -> None:
    result = example()
    models = [one.model_copy(update={"name": f"{HOSTILE}{place}-fp32"}) for place, one in enumerate(result.models)]
    data = result.dataset.model_copy(update={"name": HOSTILE})
    hostile = result.model_copy(
        update={"models": models, "recipe": HOSTILE, "selected": models[3].name, "dataset": data, "comparisons": []}
    )
    write_report(hostile, tmp_path / "report.html", extras())
    tab.open((tmp_path / "report.html").as_uri())
    tab.ask("document.querySelector('#all-models .who button').click()")
    tab.ask("document.querySelector('[data-pick] [tabindex=\"0\"]').focus()")
    assert tab.ask("window.run") is None and tab.ask("document.querySelectorAll('img').length") == 0
    assert HOSTILE in str(tab.ask("document.getElementById('picked').textContent"))
    assert HOSTILE in str(tab.ask("document.querySelector('h1').textContent"))
    assert tab.ask("JSON.parse(document.getElementById('record').textContent).recipe") == HOSTILE


def test_without_javascript_all_is_there(tab: Browser, report: str) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(report)
        assert tab.ask("document.querySelectorAll('svg.chart[role=img]').length") == 11
        assert tab.ask("document.getElementById('controls').hidden") is True
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_paper_gets_the_tables_too(tab: Browser, report: str) -> None:
    tab.open(report, 718, dark=True)  # A4 with margins
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    tab.call("Emulation.setEmulatedMedia", media="print", features=[dark])
    assert tab.ask("getComputedStyle(document.documentElement).getPropertyValue('--ink')").strip() == LIGHT["ink"]
    tab.ask("dispatchEvent(new Event('beforeprint'))")
    wide = "[...document.querySelectorAll('table')].filter((one) => one.scrollWidth > 718).map((one) => one.innerText)"
    assert tab.ask(wide) == []
    assert tab.ask("document.querySelectorAll('details:not([open])').length") == 0
    tab.ask("dispatchEvent(new Event('afterprint'))")
    assert tab.ask("document.querySelectorAll('details:not([open])').length") > 3
    assert len(tab.call("Page.printToPDF")["data"]) > 50_000


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core (make test-web)")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_axe_finds_nothing(tab: Browser, report: str, width: int, dark: bool) -> None:
    tab.open(report, width, dark=dark)
    tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.call("Runtime.evaluate", expression=AXE.read_text("utf-8"))
    assert (
        tab.ask("axe.run(document).then((found) => found.violations.map((one) => [one.id, one.nodes[0].html]))") == []
    )
