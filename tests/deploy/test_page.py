"""The page in a real browser. Skips where playwright or Chromium is not installed."""

from collections.abc import Iterator

import pytest

from tests.browser import CHROMIUM, needs_chromium
from tests.deploy.serving import serving

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = needs_chromium


@pytest.fixture(params=[(1100, 900), (360, 740)], ids=["desk", "phone"])
def page(tiny, request, tmp_path) -> Iterator[object]:
    """The page, loaded; nothing it did may have failed or been refused by its policy."""
    width, height = request.param
    with serving(tiny.folder, "--allow-unsigned", "--state", tmp_path) as server, sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        said = []
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("#answers li")
        yield page
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        browser.close()


def pick(page, words):
    page.fill("#query", words)
    page.wait_for_selector("#found button")
    page.press("#query", "Enter")
    sync_api.expect(page.locator("#found button")).to_have_count(0)


def test_a_person_picks_a_history_and_adds_an_item_by_keyboard(page):
    assert "popular now" in page.inner_text("#latency")
    pick(page, "odd 3")
    sync_api.expect(page.locator("#latency")).to_contain_text("from the history")
    assert "Film odd 3" in page.inner_text("#history") and " ms" in page.inner_text("#latency")
    assert "Film odd 3" not in page.inner_text("#answers")
    page.fill("#title", "film odd <b>new</b>")
    page.fill("#attribute-genre", "Drama|War")
    page.press("#attribute-genre", "Enter")
    page.wait_for_selector("#added li")
    assert "film odd <b>new</b>" in page.inner_text("#added")  # as text
    assert "rank " in page.inner_text("#added")
    assert page.locator("#answers li.new").count() == 1
    page.locator("#added button").press("Enter")
    sync_api.expect(page.locator("#added li")).to_have_count(0)
    page.locator("#history button").press("Enter")
    sync_api.expect(page.locator("#latency")).to_contain_text("popular now")


def test_every_field_and_button_has_a_name(page):
    pick(page, "odd 3")
    names = page.evaluate(
        """[...document.querySelectorAll("input, button")].filter(e => e.offsetParent).map(
             e => e.getAttribute("aria-label") || (e.labels[0] || e).textContent)"""
    )
    assert len(names) >= 5 and all(name.strip() for name in names)
