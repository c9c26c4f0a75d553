"""The downloader against a local server: retries, checksums, the cache, and what stays behind after a failure."""

import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compress.data.dataset import Dataset
from compress.data.load import DataConfig, load_data, source_digests
from compress.data.public import download
from compress.data.public.download import Download, fetch
from compress.data.public.movielens import Ml1m
from compress.stage import RunOptions
from deploy.errors import UsageError

BODY = b"user::item::rating\n" * 1000
OTHERWISE = "name a folder in SLIMREC_DATA"


@dataclass
class Publisher:
    """A local server. `script` holds what the next answers do: send all, break off, or an HTTP status."""

    address: str = ""
    body: bytes = BODY
    script: list[str | int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def file(self, checksum: str | None, name: str = "sets/ml.zip", max_bytes: int = 1 << 20) -> Download:
        return Download(name, f"{self.address}/{name}", checksum, max_bytes)


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    publisher = Publisher()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.asked.append(self.path)
            what = publisher.script.pop(0) if publisher.script else "all"
            if isinstance(what, int):
                self.send_error(what)
                return
            self.send_response(200)
            if what != "no length":
                self.send_header("Content-Length", str(len(publisher.body)))
            self.end_headers()
            self.wfile.write(publisher.body[:100] if what == "break off" else publisher.body)

        def log_message(self, *_args: object) -> None:
            pass

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    publisher.address = f"http://127.0.0.1:{server.server_port}"
    yield publisher
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ml1m(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """MovieLens-1M at the local server: five films, one user who saw them all."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("ml-1m/movies.dat", "".join(f"{i}::Film {i} (199{i})::Drama\n" for i in range(1, 6)))
        files.writestr("ml-1m/ratings.dat", "".join(f"7::{i}::5::{978300760 - i}\n" for i in range(1, 6)))
    publisher.body = archive.getvalue()
    wanted = publisher.file(hashlib.sha256(publisher.body).hexdigest(), "ml-1m.zip")
    monkeypatch.setattr(Ml1m, "downloads", lambda _self: (wanted,))
    monkeypatch.delenv("SLIMREC_DATA", raising=False)
    return publisher


def cached(tmp_path: Path) -> list[str]:
    root = tmp_path / ".cache" / "slimrec" / "data"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def refused(*downloads: Download) -> list[str]:
    with pytest.raises(UsageError) as caught:
        fetch(downloads, OTHERWISE)
    return list(caught.value.lines)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_fetched_once_then_read_offline(publisher: Publisher, tmp_path: Path, algorithm: str) -> None:
    wanted = publisher.file(hashlib.new(algorithm, BODY).hexdigest())
    (path,) = fetch([wanted], OTHERWISE)
    assert path.read_bytes() == BODY
    assert cached(tmp_path) == ["sets/ml.zip"]
    publisher.script = [500] * 9
    assert fetch([wanted], OTHERWISE) == [path]
    assert publisher.asked == ["/sets/ml.zip"]


@pytest.mark.parametrize("script", [["break off"], [503, "break off"], ["no length"]])
def test_a_broken_connection_is_tried_again(publisher: Publisher, script: list[str | int]) -> None:
    publisher.script = list(script)
    (path,) = fetch([publisher.file(hashlib.sha256(BODY).hexdigest())], OTHERWISE)
    assert path.read_bytes() == BODY
    assert len(publisher.asked) == len(script) + (script != ["no length"])


def test_a_connection_that_stays_broken_is_one_line(publisher: Publisher, tmp_path: Path) -> None:
    publisher.script = ["break off"] * 9
    (line,) = refused(publisher.file(hashlib.sha256(BODY).hexdigest()))
    assert line.endswith(f"(got the connection ended after 100 of {len(BODY)} bytes)")
    assert OTHERWISE in line
    assert len(publisher.asked) == download.ATTEMPTS
    assert cached(tmp_path) == []


def test_an_answer_that_will_not_change_is_not_asked_for_again(publisher: Publisher) -> None:
    publisher.script = [404] * 9
    (line,) = refused(publisher.file(None))
    assert "404" in line
    assert len(publisher.asked) == 1


def test_a_wrong_checksum_leaves_nothing_behind(publisher: Publisher, tmp_path: Path) -> None:
    found = hashlib.sha256(BODY).hexdigest()
    (line,) = refused(publisher.file("0" * 64))
    assert line == (
        f"{publisher.address}/sets/ml.zip: not kept, because it is not the file that was pinned, "
        f"SHA256 {'0' * 64} (got {found})"
    )
    assert cached(tmp_path) == []


def test_a_file_larger_than_announced_for_its_kind_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    (line,) = refused(publisher.file(None, max_bytes=1000))
    assert "larger than 1000 bytes" in line
    assert cached(tmp_path) == []


def test_a_damaged_cache_is_named(publisher: Publisher) -> None:
    wanted = publisher.file(hashlib.sha256(BODY).hexdigest())
    (path,) = fetch([wanted], OTHERWISE)
    path.write_bytes(BODY[:-1])
    (line,) = refused(wanted)
    assert line.startswith(f"{path}: delete it to fetch it again")


def test_without_a_checksum_the_user_confirms_the_digest_that_came(publisher: Publisher) -> None:
    files = [publisher.file(None, name) for name in ("a.gz", "b.gz")]
    lines = refused(*files)
    digest = hashlib.sha256(BODY).hexdigest()
    assert len(lines) == 2
    assert all(f"confirm the file in the recipe with sha256: {digest} (got none)" in line for line in lines)
    (shown,) = refused(Download("c.gz", files[0].url, None, 1 << 20, "sha256.ratings", "https://hub/page"))
    assert f"sha256.ratings: {digest}, once you have compared it with https://hub/page" in shown
    paths = fetch([publisher.file(digest, name) for name in ("a.gz", "b.gz")], OTHERWISE)
    assert [path.name for path in paths] == ["a.gz", "b.gz"]
    assert len(publisher.asked) == 3  # fetched once each, also across the two runs
    assert files[0].pin == "a.gz:unconfirmed"


def test_a_recipe_names_a_public_data_set(ml1m: Publisher, tmp_path: Path) -> None:
    ml1m.script = ["break off", "all", 500, 500, 500]
    config = DataConfig.model_validate({"domains": {"target": {"from": "ml-1m", "text": "{movie_title}"}}})
    made = []
    for number in range(2):
        out = tmp_path / str(number)
        out.mkdir()
        load_data(config, {}, out, RunOptions())
        made.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    assert len(ml1m.asked) == 2
    data = Dataset.open(tmp_path / "0")
    assert (data.users, data.titles[0]) == (["7"], "Film 1")
    assert data.items.tolist() == [5, 4, 3, 2, 1]  # by time
    assert source_digests(config) == {"target": f"ml-1m.zip:{hashlib.sha256(ml1m.body).hexdigest()}"}
