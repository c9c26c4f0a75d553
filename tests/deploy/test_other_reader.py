"""The format is what `docs/BUNDLE.md` says: a reader written from that page accepts and refuses what ours does."""

import json
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from benchmarks.damage import WAYS, archived, damaged, entries
from benchmarks.fuzz import fuzz, row_of
from deploy.bundle import open_bundle
from deploy.errors import GateError, SlimrecError, UsageError
from deploy.manifest import canonical_json
from deploy.signing import load_private
from tests.deploy.other_reader import RefusedError, read_bundle

CASES = 20  # of each way


@pytest.fixture(scope="module")
def public(tiny) -> Ed25519PublicKey:
    key = load_pem_public_key(tiny.public_key.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    return key


def test_both_read_the_same(tiny, parts, public):
    digest, manifest, files = read_bundle(tiny.archive.read_bytes(), public)
    ours = open_bundle(tiny.archive, tiny.public_key)
    assert digest == ours.digest
    assert files == parts
    assert json.loads(ours.manifest.to_bytes()) == manifest


@pytest.mark.parametrize("way", WAYS)
def test_damage_is_refused_by_both(tiny, public, tmp_path, way):
    archive = tiny.archive.read_bytes()
    for case in range(CASES):
        data = damaged(archive, way, Random(f"{way}.{case}"))
        (tmp_path / "damaged.slim").write_bytes(data)
        with pytest.raises(RefusedError):
            read_bundle(data, public)
        with pytest.raises((UsageError, GateError)) as caught:
            open_bundle(tmp_path / "damaged.slim", tiny.public_key, unpack_to=tmp_path / "into")
        assert all(caught.value.lines)
        assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("way", WAYS)
def test_without_a_key_both_agree(tiny, tmp_path, way):
    """Integrity alone lets forgeries pass that are consistent; then both must see the same bundle in them."""
    archive = tiny.archive.read_bytes()
    for case in range(CASES):
        data = damaged(archive, way, Random(f"{way}.{case}"))
        (tmp_path / "damaged.slim").write_bytes(data)
        try:
            digest, _, files = read_bundle(data)
        except RefusedError:
            with pytest.raises(SlimrecError):
                open_bundle(tmp_path / "damaged.slim")
        else:
            ours = open_bundle(tmp_path / "damaged.slim")
            assert ours.digest == digest
            assert {name: ours.read(name) for name in ours.manifest.files} == files


def test_some_forgeries_are_consistent(tiny):
    """So that the test before compares what both accept, too."""
    archive, accepted = tiny.archive.read_bytes(), 0
    for case in range(CASES):
        try:
            read_bundle(damaged(archive, "forged manifest", Random(case)))
            accepted += 1
        except RefusedError:
            continue
    assert accepted > CASES // 2


DOCUMENTS = [
    ({"runtime": {"min": 1, "max": 3}}, None),
    ({"runtime": {"min": 2, "max": 3}}, "runtime 1, a newer one runs this bundle .got 2 to 3"),
    ({"runtime": {"min": 2, "max": 1}}, "max must be at least min"),
    ({"runtime": {"min": 0, "max": 1}}, "runtime.min"),
    ({"schema": 2, "unheard_of": []}, "schema: this slimrec reads 1, a newer one"),
    ({"schema": 0}, "schema: this slimrec reads 1, an older one"),
    ({"name": "a/b"}, "name"),
    ({"name": "a\n"}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"list_separators": {'Gen\u0007re \\ "é\u2028': "\t"}}, None),
    ({"list_separators": {"genre": ""}}, "list_separators.genre"),
    ({"list_separators": {str(place): "," for place in range(65)}}, "list_separators"),
]


@pytest.mark.parametrize(("changes", "said"), DOCUMENTS)
def test_what_a_vendor_signs_is_checked_too(tiny, public, tmp_path, changes, said):
    files = entries(tiny.archive.read_bytes())
    data = canonical_json({**json.loads(files["manifest.json"]), **changes})
    files |= {"manifest.json": data, "manifest.sig": load_private(tiny.private_key).sign(data)}
    archive = tmp_path / "signed.slim"
    archive.write_bytes(archived(files))
    if said is None:
        assert read_bundle(archive.read_bytes(), public)[0] == open_bundle(archive, tiny.public_key).digest
        return
    with pytest.raises(RefusedError):
        read_bundle(archive.read_bytes(), public)
    with pytest.raises((UsageError, GateError), match=said) as caught:
        open_bundle(archive, tiny.public_key)
    assert len(caught.value.lines) == 1
    assert isinstance(caught.value, GateError) == ("runtime 1" in said)


def large(document, name, size):
    document["files"][name]["size"] = size


LIMITS = [
    (lambda d: large(d, "golden.json", (64 << 20) + 1), "golden.json must be at most 67108864 bytes"),
    (lambda d: large(d, "tokenizer.json", (64 << 20) + 1), "tokenizer.json must be at most 67108864 bytes"),
    (lambda d: large(d, "items.item", (2 << 30) + 1), "items.item must be at most 2147483648 bytes"),
    (lambda d: large(d, "text.fp32.onnx", 4 << 30), "at most 4294967296 bytes together"),
    (lambda d: d["model"].update(n_items=1 << 31), "model.n_items"),
    (lambda d: d["model"].update(max_history=0), "model.max_history"),
    (lambda d: d["model"]["precisions"].update({f"p{i}": "history.fp32.onnx" for i in range(7)}), "model.precisions"),
    (lambda d: d["model"]["precisions"].update({"FP32": "history.fp32.onnx"}), "model.precisions"),
    (lambda d: d["files"].update({f"f{i}": d["files"]["card.md"] for i in range(64)}), "files"),
    (lambda d: d["list_separators"].update({"x" * 257: ","}), "list_separators"),
]


@pytest.mark.parametrize(("change", "said"), LIMITS)
def test_limits_are_those_of_the_page(tiny, tmp_path, change, said):
    files = entries(tiny.archive.read_bytes())
    document = json.loads(files["manifest.json"])
    change(document)
    archive = tmp_path / "large.slim"
    archive.write_bytes(archived({**files, "manifest.json": canonical_json(document)}))
    with pytest.raises(RefusedError):
        read_bundle(archive.read_bytes())
    with pytest.raises(UsageError, match=said):
        open_bundle(archive)


def test_the_command_counts_what_happened(tiny):
    found = [row_of(way, tally) for way, tally in fuzz(tiny.archive.read_bytes(), tiny.public_key, 60, seed=1)]
    assert [row.way for row in found] == list(WAYS)
    assert all((row.tried, row.accepted, row.crashed, row.left_behind) == (5, 0, 0, 0) for row in found)
    assert all(row.malformed + row.gate == 5 and row.reasons for row in found)


def test_the_command_sees_what_was_not_refused(tiny, tmp_path, monkeypatch):
    """A reader that checks nothing is caught: accepted, crashed and left behind are counted."""

    def careless(archive: Path, _key: Path, unpack_to: Path) -> None:
        (unpack_to / "x").write_bytes(b"")
        Path("escaped").write_bytes(b"")
        if archive.stat().st_size % 2:
            raise KeyError("oops")

    monkeypatch.setattr("benchmarks.fuzz.open_bundle", careless)
    monkeypatch.chdir(tmp_path)
    found = [row_of(way, tally) for way, tally in fuzz(tiny.archive.read_bytes(), tiny.public_key, 24, seed=1)]
    assert sum(row.accepted for row in found) and sum(row.crashed for row in found)
    assert sum(row.left_behind for row in found) == 24
    assert list(tmp_path.iterdir()) == []
