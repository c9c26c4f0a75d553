"""The bundle: write one, open one, verify one.

A bundle is a folder or the same files as one archive (`bundle.slim`); `docs/BUNDLE.md` specifies both.
Nothing in it is trusted: names, counts and sizes are bounded, every byte is compared with the manifest, and the
manifest itself with a pinned Ed25519 key where the caller has one.
"""

import hashlib
import shutil
import stat
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.archive import unpack_archive, write_archive
from deploy.errors import GateError, UsageError
from deploy.manifest import (
    MANIFEST,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    RUNTIMES,
    SCHEMA,
    SIGNATURE,
    SIGNATURE_BYTES,
    FileEntry,
    Manifest,
    canonical_json,
    is_file_name,
    parse_manifest,
    parse_record,
    sha256_hex,
    shorten,
)

ARCHIVE = "bundle.slim"
FOLDER = "bundle"


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle. Unpacked archives live in a temporary folder for as long as this object does.

    folder: where the files lie. digest: `sha256:` + SHA-256 of the manifest's bytes; it names the whole bundle.
    signed_by: fingerprint of the pinned key whose signature was verified, None where no key was given.
    """

    folder: Path
    manifest: Manifest
    digest: str
    signed_by: str | None

    @property
    def release(self) -> str:
        """Name and short digest, for people and logs."""
        return f"{self.manifest.name}@{self.digest.removeprefix('sha256:')[:12]}"

    def path(self, name: str) -> Path:
        """Where the file `name` lies."""
        return self.folder / name

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`."""
        return self.path(name).read_bytes()


@dataclass(frozen=True)
class Verification:
    """What `verify_bundle` found out; `level` is `signed` or `integrity only` (no key was given)."""

    name: str
    digest: str
    files: int
    size_bytes: int
    level: str
    signed_by: str | None


def write_bundle(
    files: Path | Mapping[str, Path | bytes],
    out: Path,
    *,
    name: str,
    model: Mapping[str, object],
    list_separators: Mapping[str, str] | None = None,
    private_key: Path | None = None,
) -> Bundle:
    """Write `out/bundle/` and `out/bundle.slim`; equal inputs give equal bytes.

    files: a folder, or file name -> its path or bytes. model: the manifest's `model` section (`manifest.Model`).
    list_separators: attribute of `items.item` -> what separates its values. private_key: a PEM file (`slimrec key
    new`); without one the bundle is unsigned. An older bundle in `out` is replaced.
    Raises UsageError where the files and `model` do not make a valid bundle; nothing is then changed.
    """
    from deploy.signing import load_private

    if isinstance(files, Path):
        files = {path.name: path for path in files.iterdir() if path.name not in (MANIFEST, SIGNATURE)}
    for file_name in files:
        if not is_file_name(file_name):
            raise UsageError(f"bundle: a file's name must be plain, without folders (got {shorten(file_name)})")
    signing_key = load_private(private_key) if private_key else None
    out.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".bundle.", dir=out))
    try:
        folder, archive = partial / FOLDER, partial / ARCHIVE
        folder.mkdir(mode=0o755)
        for file_name, source in files.items():
            target = folder / file_name
            if isinstance(source, bytes):
                target.write_bytes(source)
            else:
                shutil.copyfile(source, target)
        entries = {path.name: _digest(path) for path in sorted(folder.iterdir())}
        document = {
            "schema": SCHEMA,
            "name": name,
            "runtime": {"min": RUNTIMES[-1], "max": RUNTIMES[-1]},
            "model": dict(model),
            "list_separators": dict(list_separators or {}),
            "files": {file_name: entry.model_dump() for file_name, entry in entries.items()},
        }
        manifest = parse_record(Manifest, canonical_json(document), MANIFEST)
        data = manifest.to_bytes()
        (folder / MANIFEST).write_bytes(data)
        if signing_key:
            (folder / SIGNATURE).write_bytes(signing_key.sign(data))
        write_archive({path.name: path for path in folder.iterdir()}, archive)
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        folder.rename(out / FOLDER)
        archive.replace(out / ARCHIVE)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_bundle(out / FOLDER)


def open_bundle(path: Path, key: Path | None = None, unpack_to: Path | None = None) -> Bundle:
    """Open and verify a bundle folder or archive.

    key: the pinned public key's PEM file; None checks integrity only. unpack_to: an empty folder for an archive's
    files, left empty where it is refused; None takes a temporary one. Raises UsageError (malformed or unreadable) or
    GateError (digest, signature or runtime).
    """
    if path.is_dir():
        return _verified(path, path, key)
    if not path.exists():
        raise UsageError(f"{path}: no such bundle")
    if unpack_to is not None:
        unpack_archive(path, unpack_to)
        try:
            return _verified(unpack_to, path, key)
        except BaseException:
            for file in unpack_to.iterdir():
                file.unlink()
            raise
    scratch = Path(tempfile.mkdtemp(prefix="slimrec-"))
    try:
        unpack_archive(path, scratch)
        bundle = _verified(scratch, path, key)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    weakref.finalize(bundle, shutil.rmtree, scratch, ignore_errors=True)
    return bundle


def verify_bundle(path: Path, key: Path | None = None) -> Verification:
    """Check every byte of a bundle against its manifest, and the manifest against `key`. Raises as `open_bundle`."""
    return describe(open_bundle(path, key))


def describe(bundle: Bundle) -> Verification:
    """What was verified when `bundle` was opened."""
    entries = bundle.manifest.files.values()
    return Verification(
        name=bundle.manifest.name,
        digest=bundle.digest,
        files=len(entries),
        size_bytes=sum(entry.size for entry in entries),
        level="signed" if bundle.signed_by else "integrity only",
        signed_by=bundle.signed_by,
    )


def _verified(folder: Path, where: Path, key: Path | None) -> Bundle:
    try:
        names = _names(folder, where)
        if MANIFEST not in names:
            raise UsageError(f"{where}: no {MANIFEST} in it; a bundle folder or {ARCHIVE} is wanted")
        data = _read_bounded(folder / MANIFEST, MAX_MANIFEST_BYTES)
        # Before parsing: what a pinned key did not sign is not worth interpreting.
        signed_by = _check_signature(folder, names, data, where, key)
        manifest = parse_manifest(data)
        _check_files(folder, names, manifest, where)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror or error})") from None
    return Bundle(folder, manifest, "sha256:" + sha256_hex(data), signed_by)


def _names(folder: Path, where: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.iterdir():
        if not is_file_name(path.name) or not stat.S_ISREG(path.lstat().st_mode):
            raise UsageError(f"{where}: {shorten(path.name)}: not a plain regular file")
        names.add(path.name)
        if len(names) > MAX_FILES + 2:
            raise UsageError(f"{where}: more than {MAX_FILES + 2} files")
    return names


def _check_signature(folder: Path, names: set[str], data: bytes, where: Path, key: Path | None) -> str | None:
    signature = _read_bounded(folder / SIGNATURE, SIGNATURE_BYTES) if SIGNATURE in names else None
    if signature is not None and len(signature) != SIGNATURE_BYTES:
        raise UsageError(f"{where}: {SIGNATURE}: must be {SIGNATURE_BYTES} bytes")
    if key is None:
        return None
    from deploy.signing import fingerprint, is_signed_by, load_public  # a device without a pinned key needs none of it

    public_key = load_public(key)
    if signature is None:
        raise GateError(f"{where}: {SIGNATURE}: missing, and a key is pinned (got an unsigned bundle)")
    if not is_signed_by(data, signature, public_key):
        raise GateError(
            f"{where}: {SIGNATURE}: not the pinned key's signature of {MANIFEST} ({fingerprint(public_key)})"
        )
    return fingerprint(public_key)


def _check_files(folder: Path, names: set[str], manifest: Manifest, where: Path) -> None:
    present = names - {MANIFEST, SIGNATURE}
    lines = [f"{where}: {name}: in {MANIFEST} but missing" for name in sorted(manifest.files.keys() - present)]
    lines += [f"{where}: {name}: not in {MANIFEST}" for name in sorted(present - manifest.files.keys())]
    if lines:
        raise UsageError(lines)
    for name, entry in sorted(manifest.files.items()):
        size = (folder / name).stat().st_size
        if size != entry.size:
            lines.append(f"{where}: {name}: must be {entry.size} bytes (got {size})")
        elif (got := _digest(folder / name).sha256) != entry.sha256:
            lines.append(f"{where}: {name}: SHA-256 must be {entry.sha256[:12]}... (got {got[:12]}...)")
    if lines:
        raise GateError(lines)


def file_entry(content: Path | bytes) -> FileEntry:
    """What a manifest says of a file, by its path or bytes."""
    if isinstance(content, bytes):
        return FileEntry(sha256=sha256_hex(content), size=len(content))
    return _digest(content)


def _digest(path: Path) -> FileEntry:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(sha256=digest, size=stream.tell())


def _read_bounded(path: Path, limit: int) -> bytes:
    """At most `limit` + 1 bytes, so that the caller sees that there are too many."""
    with path.open("rb") as stream:
        return stream.read(limit + 1)
