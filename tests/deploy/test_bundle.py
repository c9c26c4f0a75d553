"""Writing, opening and verifying bundles."""

import json
import shutil
from pathlib import Path

import pytest

from deploy.bundle import open_bundle, verify_bundle, write_bundle
from deploy.errors import GateError, UsageError
from deploy.manifest import canonical_json, sha256_hex
from deploy.signing import new_key


def test_folder_and_archive_hold_the_same_bundle(tiny, parts):
    folder, archive = open_bundle(tiny.folder), open_bundle(tiny.archive)
    assert folder.digest == archive.digest == "sha256:" + sha256_hex((tiny.folder / "manifest.json").read_bytes())
    for name, data in parts.items():
        assert folder.read(name) == archive.read(name) == data


def test_equal_inputs_give_equal_bytes(tiny, write_tiny):
    again = write_tiny()
    assert again.archive.read_bytes() == tiny.archive.read_bytes()
    names = sorted(path.name for path in tiny.folder.iterdir())
    assert names == sorted(path.name for path in again.folder.iterdir())
    assert all((tiny.folder / name).read_bytes() == (again.folder / name).read_bytes() for name in names)


def test_a_folder_is_an_input_too(tiny, tmp_path):
    manifest = open_bundle(tiny.folder).manifest
    write_bundle(
        tiny.folder,
        tmp_path,
        name="tiny",
        model=manifest.model.model_dump(),
        list_separators=manifest.list_separators,
        private_key=tiny.private_key,
    )
    assert (tmp_path / "bundle.slim").read_bytes() == tiny.archive.read_bytes()


def test_verify_says_how_much_it_knows(tiny):
    plain = verify_bundle(tiny.archive)
    pinned = verify_bundle(tiny.archive, tiny.public_key)
    assert (plain.level, plain.signed_by) == ("integrity only", None)
    assert pinned.level == "signed"
    assert pinned.signed_by is not None and len(pinned.signed_by) == 16
    assert plain.digest == pinned.digest
    assert plain.size_bytes == sum(path.stat().st_size for path in tiny.folder.iterdir()) - len(
        (tiny.folder / "manifest.json").read_bytes() + (tiny.folder / "manifest.sig").read_bytes()
    )


def test_temporary_files_go_with_the_bundle(tiny):
    bundle = open_bundle(tiny.archive)
    folder = bundle.folder
    assert folder.exists()
    del bundle
    assert not folder.exists()


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny.folder, tmp_path / "copy"))


def test_every_file_is_covered(tiny, copy, parts):
    for name in parts:
        original = (copy / name).read_bytes()
        middle = len(original) // 2
        (copy / name).write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        with pytest.raises(GateError, match=rf"{name}: SHA-256 must be"):
            open_bundle(copy)
        (copy / name).write_bytes(original + b"\n")
        with pytest.raises(GateError, match=rf"{name}: must be {len(original)} bytes \(got {len(original) + 1}\)"):
            open_bundle(copy)
        (copy / name).write_bytes(original)
    assert open_bundle(copy, tiny.public_key).digest == open_bundle(tiny.folder).digest


def test_missing_and_extra_files_are_malformed(copy):
    (copy / "popular.json").unlink()
    (copy / "extra.txt").write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        open_bundle(copy)
    assert [line.partition(": ")[2] for line in caught.value.lines] == [
        "popular.json: in manifest.json but missing",
        "extra.txt: not in manifest.json",
    ]


def test_links_and_folders_are_refused(copy, tmp_path):
    (tmp_path / "outside").write_bytes((copy / "popular.json").read_bytes())
    (copy / "popular.json").unlink()
    (copy / "popular.json").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match=r"'popular.json': not a plain regular file"):
        open_bundle(copy)


def test_a_pinned_key_refuses_what_it_did_not_sign(tiny, copy, write_tiny, tmp_path):
    stranger = new_key(tmp_path / "stranger")
    with pytest.raises(GateError, match=r"manifest.sig: not the pinned key's signature"):
        open_bundle(tiny.archive, stranger)
    with pytest.raises(GateError, match=r"manifest.sig: missing"):
        open_bundle(write_tiny(signed=False).archive, tiny.public_key)
    # A consistent forgery: another file and a manifest that agrees with it.
    document = json.loads((copy / "manifest.json").read_bytes())
    (copy / "evidence.json").write_bytes(b"{ }")
    document["files"]["evidence.json"] = {"sha256": sha256_hex(b"{ }"), "size": 3}
    (copy / "manifest.json").write_bytes(canonical_json(document))
    assert verify_bundle(copy).level == "integrity only"
    with pytest.raises(GateError, match="not the pinned key's signature"):
        verify_bundle(copy, tiny.public_key)


def change_default(document):
    document["model"]["default"] = "int4"


def drop_golden(document):
    del document["files"]["golden.json"]


def add_field(document):
    document["extra"] = 1


def list_manifest(document):
    document["files"]["manifest.sig"] = document["files"]["golden.json"]


def escape(document):
    document["files"]["../x"] = document["files"]["golden.json"]


def twins(document):
    document["files"]["Golden.json"] = document["files"]["golden.json"]


def negative(document):
    document["files"]["golden.json"]["size"] = -1


def other_schema(document):
    document["schema"] = 2


def number_as_text(document):
    document["model"]["n_items"] = "20"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_default, "default must be one of fp32, int8 .got int4"),
        (drop_golden, "files must list golden.json"),
        (add_field, "extra: Extra inputs are not permitted"),
        (list_manifest, "files must not list manifest.json or manifest.sig"),
        (escape, "files...*x"),
        (twins, "differ only in case"),
        (negative, "files.golden.json.size: .* .got -1"),
        (other_schema, "schema: this slimrec reads 1, a newer one runs this bundle .got 2"),
        (number_as_text, "model.n_items: .* .got '20'"),
    ],
)
def test_manifest_mistakes_are_named(copy, change, said):
    document = json.loads((copy / "manifest.json").read_bytes())
    change(document)
    (copy / "manifest.json").write_bytes(canonical_json(document))
    with pytest.raises(UsageError, match=said) as caught:
        open_bundle(copy)
    assert all(line.startswith("manifest.json: ") for line in caught.value.lines)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * ((1 << 20) + 2)])
def test_a_manifest_that_is_no_manifest(copy, data):
    (copy / "manifest.json").write_bytes(data)
    with pytest.raises(UsageError, match=r"^manifest\.json: "):
        open_bundle(copy)


def test_only_canonical_json_is_a_manifest(copy):
    document = json.loads((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_text(json.dumps(document, indent=1))
    with pytest.raises(UsageError, match="canonical form"):
        open_bundle(copy)


def test_nothing_is_written_for_a_wrong_model(parts, tmp_path):
    with pytest.raises(UsageError, match=r"files must list history\.fp32\.onnx"):
        write_bundle(
            {name: data for name, data in parts.items() if name != "history.fp32.onnx"},
            tmp_path / "out",
            name="tiny",
            model={
                "n_items": 1,
                "dim": 1,
                "max_history": 1,
                "precisions": {"fp32": "history.fp32.onnx"},
                "default": "fp32",
            },
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_where_there_is_no_bundle(tmp_path):
    with pytest.raises(UsageError, match="no such bundle"):
        open_bundle(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"no manifest\.json in it"):
        open_bundle(tmp_path)


def test_keys_are_never_overwritten_and_are_private(tmp_path):
    public = new_key(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="never overwritten"):
        new_key(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before and public.name == "a.pub"


def test_a_private_key_is_not_taken_for_a_public_one(tiny):
    with pytest.raises(UsageError, match=r"not a PEM public key; pass the file that ends in \.pub"):
        verify_bundle(tiny.archive, tiny.private_key)
