"""The archive: canonical on writing, bounded and suspicious on reading."""

import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.archive import header, unpack_archive, write_archive
from deploy.bundle import open_bundle
from deploy.errors import GateError, UsageError

SLOW_IO = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", fullmatch=True)


def unpack(data: bytes) -> dict[str, bytes]:
    """Unpack into a fresh folder; whatever happens, nothing may appear beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        archive, folder = Path(scratch) / "a.slim", Path(scratch) / "into"
        archive.write_bytes(data)
        try:
            unpack_archive(archive, folder)
        except UsageError as error:
            assert len(error.lines) == 1
            assert list(folder.iterdir()) == []
            raise
        finally:
            assert sorted(path.name for path in Path(scratch).iterdir()) == ["a.slim", "into"]
            assert not folder.is_symlink() and all(path.is_file() for path in folder.iterdir())
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def entry(name: str, content: bytes = b"", **fields: object) -> bytes:
    """One ustar entry as a hostile writer may make it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


END = bytes(1024)


@SLOW_IO
@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6))
def test_round_trip(files):
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        paths = {}
        for place, (name, data) in enumerate(files.items()):
            paths[name] = root / str(place)
            paths[name].write_bytes(data)
        write_archive(paths, root / "out.slim")
        data = (root / "out.slim").read_bytes()
        assert unpack(data) == files
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert tar.getnames() == sorted(files)


def test_a_hand_made_canonical_archive_is_read():
    assert unpack(entry("a", b"x") + entry("b") + END) == {"a": b"x", "b": b""}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (entry("../evil", b"x") + END, "must be plain"),
        (entry("/etc/evil", b"x") + END, "must be plain"),
        (entry("a/b", b"x") + END, "must be plain"),
        (entry("..", b"x") + END, "must be plain"),
        (entry(".hidden") + END, "must be plain"),
        (entry("a\\b") + END, "must be plain"),
        (entry("a b") + END, "must be plain"),
        (entry("x" * 120 + "/" + "y" * 90) + END, "must be plain|canonical"),
        (entry("a", type=tarfile.SYMTYPE, linkname="/etc/passwd") + END, "not a regular file"),
        (entry("a", type=tarfile.LNKTYPE, linkname="b") + END, "not a regular file"),
        (entry("a", type=tarfile.DIRTYPE) + END, "must be plain"),
        (entry("a", type=tarfile.FIFOTYPE) + END, "not a regular file"),
        (entry("a", type=tarfile.CHRTYPE, devmajor=1) + END, "not a regular file"),
        (entry("a", b"x", type=tarfile.XHDTYPE) + END, "not a regular file"),
        (entry("a", b"x", type=tarfile.GNUTYPE_LONGNAME) + END, "not a regular file"),
        (entry("a", linkname="b") + END, "canonical"),
        (entry("a", mode=0o755) + END, "canonical"),
        (entry("a", mode=0o4644) + END, "canonical"),
        (entry("a", mtime=1) + END, "canonical"),
        (entry("a", uid=1) + END, "canonical"),
        (entry("a", uname="root") + END, "canonical"),
        (entry("a", b"x") + entry("a", b"y") + END, "sorted and used once"),
        (entry("b") + entry("a") + END, "sorted and used once"),
        (entry("A") + entry("a") + END, "differs from it only in case"),
        (entry("a", b"x") + END + b"\0", "end after"),
        (entry("a", b"x") + END + bytes(8192), "end after"),
        (entry("a", b"x") + END + entry("b"), "end after"),
        (entry("a", b"x") + bytes(512), "cut short|end after"),
        (entry("a", b"x"), "cut short"),
        (entry("a", b"x")[:-1] + b"z" + END, "padding"),
        (header("a", 1 << 32) + END, "cut short"),
        (header("a", (8 << 30) - 1) + END, "more than .* bytes"),
        (header("a", 1)[:124] + b"-0000000001\0" + header("a", 1)[136:] + END, "canonical"),
        (b"".join(entry(f"f{place:03d}") for place in range(67)) + END, "more than 66 files"),
        (b"", "not a slimrec archive"),
        (b"PK\x03\x04" + bytes(2000), "not a slimrec archive"),
        (b"\0" * 512, "end after"),
    ],
)
def test_hostile_archives(data, said):
    with pytest.raises(UsageError, match=said):
        unpack(data)


def test_as_many_files_as_allowed():
    assert len(unpack(b"".join(entry(f"f{place:03d}") for place in range(66)) + END)) == 66


@SLOW_IO
@given(data=st.data())
def test_any_flipped_bit_is_refused(tiny, tmp_path, data):
    archive = bytearray(tiny.archive.read_bytes())
    position = data.draw(st.integers(0, len(archive) * 8 - 1))
    archive[position // 8] ^= 1 << position % 8
    damaged = tmp_path / "damaged.slim"
    damaged.write_bytes(archive)
    with pytest.raises((UsageError, GateError)):
        open_bundle(damaged, tiny.public_key)


@SLOW_IO
@given(data=st.data())
def test_any_truncation_is_refused(tiny, tmp_path, data):
    archive = tiny.archive.read_bytes()
    cut = tmp_path / "cut.slim"
    cut.write_bytes(archive[: data.draw(st.integers(0, len(archive) - 1))])
    with pytest.raises(UsageError):
        open_bundle(cut)


@SLOW_IO
@given(st.binary(max_size=3000))
def test_noise_is_refused(data):
    with pytest.raises(UsageError):
        unpack(data)


def test_a_device_is_not_an_archive(tmp_path):
    with pytest.raises(UsageError, match="not a regular file"):
        open_bundle(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        open_bundle(tmp_path / "pipe")
    with pytest.raises(UsageError, match="empty folder"):
        (tmp_path / "taken").write_bytes(b"")
        unpack_archive(tmp_path / "any", tmp_path)
