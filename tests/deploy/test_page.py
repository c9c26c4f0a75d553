"""The server's page in a real browser."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.browser import Browser, browser, needs_chromium
from tests.deploy.serving import serving

pytestmark = needs_chromium
LATENCY = "document.getElementById('latency').textContent"


@pytest.fixture(params=[(1100, 900), (360, 740)], ids=["desk", "phone"])
def page(tiny, request, tmp_path) -> Iterator[Browser]:
    """The page, loaded; nothing it did may have failed or been refused by its policy."""
    width, height = request.param
    with ExitStack() as stack:
        server = stack.enter_context(serving(tiny.folder, "--allow-unsigned", "--state", tmp_path / "state"))
        tab = stack.enter_context(browser(tmp_path / "profile"))
        tab.open(f"http://127.0.0.1:{server.port}/", width, height)
        tab.wait_for("document.querySelector('#answers li')?.textContent")
        yield tab
        assert tab.said == []
        assert all(address.startswith((f"http://127.0.0.1:{server.port}/", "data:")) for address in tab.asked)
        assert tab.ask("document.documentElement.scrollWidth") == width


def words(tab: Browser, name: str) -> str:
    found: str = tab.ask(f"document.getElementById({json.dumps(name)}).innerText")
    return found


def type_into(tab: Browser, name: str, text: str) -> None:
    tab.ask(f"document.getElementById({json.dumps(name)}).focus()")
    tab.call("Input.insertText", text=text)


def pick(tab: Browser, title: str) -> None:
    type_into(tab, "query", title)
    tab.wait_for("document.querySelector('#found button')?.textContent")
    tab.press("Enter")
    tab.wait_for("!document.querySelector('#found button')")


def test_a_person_picks_a_history_and_adds_an_item_by_keyboard(page):
    assert "popular now" in words(page, "latency")
    pick(page, "odd 3")
    page.wait_for(f"{LATENCY}.includes('from the history')")
    assert "Film odd 3" in words(page, "history") and " ms" in words(page, "latency")
    assert "Film odd 3" not in words(page, "answers")
    type_into(page, "title", "film odd <b>new</b>")
    type_into(page, "attribute-genre", "Drama|War")
    page.press("Enter")
    page.wait_for("document.querySelector('#added li')?.textContent")
    assert "film odd <b>new</b>" in words(page, "added")  # as text
    assert "rank " in words(page, "added")
    assert page.ask("document.querySelectorAll('#answers li.new').length") == 1
    page.ask("document.querySelector('#added button').focus()")
    page.press("Enter")
    page.wait_for("!document.querySelector('#added li')")
    page.ask("document.querySelector('#history button').focus()")
    page.press("Enter")
    page.wait_for(f"{LATENCY}.includes('popular now')")


def test_every_field_and_button_has_a_name(page):
    pick(page, "odd 3")
    names = page.ask(
        """[...document.querySelectorAll("input, button")].filter(e => e.offsetParent).map(
             e => e.getAttribute("aria-label") || (e.labels?.[0] || e).textContent)"""
    )
    assert len(names) >= 5 and all(name.strip() for name in names)
