"""The page that answers in a browser: the same answers as the device's, from a file, with nothing fetched.

Needs Chromium and the npm package onnxruntime-web (`make test-web`); what is refused before a browser is asked needs
neither.
"""

import base64
import json
import os
import re
from html import unescape
from importlib.resources import files
from pathlib import Path
from random import Random

import pytest

from benchmarks.damage import WAYS, damaged
from deploy.errors import GateError, UsageError
from deploy.runtime import Recommender
from deploy.signing import load_public, new_key, raw_public
from deploy.web import ORT, WASM, write_page
from tests.browser import CHROMIUM, dom_of

ROOT = Path(__file__).parents[2]
DIST = Path(os.environ.get("SLIMREC_ONNXRUNTIME_WEB", ROOT / "node_modules" / "onnxruntime-web" / "dist"))
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None or not (DIST / WASM).is_file(), reason="no chromium in PATH, or no onnxruntime-web (make test-web)"
)


def state(dom: str) -> str:
    return re.findall(r'<body data-state="(\w+)"', dom)[0]


def said(dom: str, name: str) -> str:
    return unescape(re.findall(rf'id="{name}"[^>]*>([^<]*)<', dom)[0])


@pytest.fixture(scope="module")
def page(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("web") / "page.html"
    write_page(tiny.archive, out, DIST, tiny.public_key)
    return out


@in_a_browser
def test_golden_answers_are_the_devices(page, tmp_path, golden, tiny):
    dom = dom_of(page, tmp_path)
    assert state(dom) == "ready"
    report = json.loads(said(dom, "report"))
    assert report.keys() == {"fp32", "int8"}
    for precision, answers in report.items():
        recorded = [case["answers"][precision] for case in golden["cases"]]
        assert [answer["items"] for answer in answers] == [answer["items"] for answer in recorded]
        for answer, wanted in zip(answers, recorded, strict=True):
            assert answer["scores"] == pytest.approx(wanted["scores"], abs=golden["tolerance"])
    assert "signature verified" in said(dom, "release")
    assert said(dom, "release").startswith(Recommender.load(tiny.archive).release)
    assert "3 golden answers as recorded, in fp32 and int8; answering in int8" in said(dom, "golden")


@in_a_browser
@pytest.mark.parametrize("history", ["i3", "i3,i9,i1,i2,i4,i5,i6,i7", "i8,nobody,i8", "nobody", ""])
def test_any_history_is_answered_as_on_the_device(page, tmp_path, tiny, history):
    """Short, longer than the model reads, with unknown ids and repeats, without a known id, empty."""
    dom = dom_of(page, tmp_path, f"#history={history}")
    wanted = Recommender.load(tiny.archive).recommend([item for item in history.split(",") if item])
    assert re.findall(r'data-id="(\w+)"', dom) == [item.id for item in wanted.items]
    scores = [float(score) for score in re.findall(r'class="score">(-?\d+\.\d+)<', dom)]
    assert scores == pytest.approx([item.score for item in wanted.items if item.score is not None], abs=1e-3)


@in_a_browser
def test_a_changed_bundle_is_refused(page, tmp_path, tiny):
    text = page.read_text("utf-8")
    inside = re.findall(r'id="part-bundle">([^<]*)<', text)[0]
    archive = base64.b64decode(inside)
    assert archive == tiny.archive.read_bytes()
    changed = archive.replace(b"Film odd 1 ", b"Film odd 9 ")
    (tmp_path / "changed.html").write_text(text.replace(inside, base64.b64encode(changed).decode()), "utf-8")
    dom = dom_of(tmp_path / "changed.html", tmp_path)
    assert state(dom) == "refused" and "data-id" not in dom
    assert said(dom, "error") == "Refused: items.item: another SHA-256 than manifest.json says"


@in_a_browser
def test_a_wrong_answer_is_refused(tmp_path, write_tiny, golden):
    wrong = json.loads(json.dumps(golden))
    wrong["cases"][1]["answers"]["fp32"]["scores"][0] += 0.01
    made = write_tiny({"golden.json": json.dumps(wrong).encode()})
    write_page(made.archive, tmp_path / "page.html", DIST)
    dom = dom_of(tmp_path / "page.html", tmp_path)
    assert state(dom) == "refused"
    assert "golden.json: cases.1: fp32: place 1 must score" in said(dom, "error")


@in_a_browser
def test_its_reader_refuses_damage(tmp_path, tiny):
    """The archive reader of the page, a third one, against the same damage as the other two."""
    archive, key = tiny.archive.read_bytes(), raw_public(load_public(tiny.public_key))
    cases = [archive, *(damaged(archive, way, Random(f"{way}.{case}")) for way in WAYS for case in range(6))]
    encoded = json.dumps([base64.b64encode(case).decode() for case in cases])
    script = files("deploy.web").joinpath("slimrec.js").read_text("utf-8")
    test = f"""const cases = {encoded}, key = new Uint8Array({list(key)});
    const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    (async () => {{
      const ends = [];
      for (const text of cases) {{
        try {{ await openBundle(bytes(text), key); ends.push("accepted"); }}
        catch (error) {{ ends.push(error instanceof Refused ? "refused" : String(error)); }}
      }}
      document.getElementById("ends").textContent = JSON.stringify(ends);
    }})();"""
    page = tmp_path / "damage.html"
    page.write_text(f"<p id='ends'></p><script>{script}</script><script>{test}</script>", "utf-8")
    assert json.loads(said(dom_of(page, tmp_path), "ends")) == ["accepted"] + ["refused"] * (len(cases) - 1)


@pytest.fixture
def dist(tmp_path) -> Path:
    """Stand-ins for what npm installs: enough to write a page that no browser opens."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / ORT).write_bytes(b"export {};")
    (folder / WASM).write_bytes(b"\0asm")
    return folder


def test_nothing_is_fetched(tiny, dist, tmp_path):
    size = write_page(tiny.archive, tmp_path / "page.html", dist)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert size == len(text.encode())
    assert re.findall(r'(?:src|href|action)\s*=\s*["\'](?!#|data:)([^"\']+)', text) == []
    assert "default-src 'none'" in text and "connect-src" not in text


def test_a_page_is_written_of_what_verifies_only(tiny, dist, tmp_path):
    out = tmp_path / "page.html"
    with pytest.raises(GateError, match="not the pinned key's signature"):
        write_page(tiny.archive, out, dist, new_key(tmp_path / "stranger"))
    with pytest.raises(UsageError, match=r"the page takes the archive, bundle\.slim \(got a folder\)"):
        write_page(tiny.folder, out, dist)
    (dist / WASM).unlink()
    with pytest.raises(UsageError, match=rf"no {WASM}; npm install onnxruntime-web"):
        write_page(tiny.archive, out, dist)
    assert not out.exists()


def test_the_command(tiny, dist, tmp_path, capsys):
    from deploy.cli import run_command

    arguments = ["web", tiny.archive, tmp_path / "page.html", "--key", tiny.public_key, "--onnxruntime-web", dist]
    assert run_command([str(argument) for argument in arguments]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    arguments[2] = tmp_path / "no" / "page.html"
    assert run_command([str(argument) for argument in arguments]) == 2
    assert "cannot be written" in capsys.readouterr().err
