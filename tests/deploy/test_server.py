"""The server as a real process on a real port."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from deploy.errors import UsageError
from deploy.runtime import Recommender
from deploy.server import listen
from tests.deploy.serving import ROOT, Running, command, serving


@pytest.fixture(scope="module")
def server(tiny) -> Iterator[Running]:
    with serving(tiny.archive, "--key", tiny.public_key) as running:
        yield running


def test_recommend_answers_as_the_runtime(server, tiny):
    body = {"history": ["i3", "nope", "i9"], "k": 4, "exclude": ["i1"], "filter": {"genre": ["Drama"]}, "user": "u"}
    response = server.client.post("/v1/recommend", json=body)
    assert response.status_code == 200
    answer = response.json()
    model = Recommender.load(tiny.folder)
    expected = model.recommend(["i3", "i9"], 4, ["i1"], {"genre": ["Drama"]})
    assert [item["id"] for item in answer["items"]] == [item.id for item in expected.items]
    assert [item["title"] for item in answer["items"]] == [item.title for item in expected.items]
    assert [item["score"] for item in answer["items"]] == pytest.approx([item.score for item in expected.items])
    assert answer["unknown"] == ["nope"] and answer["source"] == "model" and answer["release"] == model.release
    assert answer["request_id"] != server.client.post("/v1/recommend", json=body).json()["request_id"]


def test_an_empty_history_gets_recent_popularity(server):
    answer = server.client.post("/v1/recommend", json={"history": []}).json()
    assert [item["id"] for item in answer["items"]] == ["i7", "i3", "i12", "i1", "i20", "i5"]
    assert answer["source"] == "popularity" and answer["items"][0]["score"] is None


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        (b"{", 400, []),
        (b"", 400, []),
        (b"\xff\xfe", 400, []),
        (b"[" * 50_000, 400, []),
        (b"[]", 422, ["body"]),
        (b"{}", 422, ["history"]),
        (b'{"history": "i1"}', 422, ["history"]),
        (b'{"history": ["i1", 2]}', 422, ["history.1"]),
        (b'{"history": [], "k": "ten"}', 422, ["k"]),
        (b'{"history": [], "k": 0}', 422, ["k"]),
        (b'{"history": [], "k": 100000}', 422, ["k"]),
        (b'{"history": [], "k": true}', 422, ["k"]),
        (b'{"history": [], "exclude": null}', 422, ["exclude"]),
        (b'{"history": [], "filter": {"genre": "Drama"}}', 422, ["filter.genre"]),
        (b'{"history": [], "filter": {"year": ["1999"]}}', 422, ["filter"]),
        (b'{"history": [], "excluded": []}', 422, ["excluded"]),
        (b'{"history": [""], "k": -1}', 422, ["history.0", "k"]),
    ],
)
def test_malformed_requests_are_problem_documents(server, body, status, fields):
    response = server.client.post("/v1/recommend", content=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status and problem["type"] == "about:blank" and problem["detail"]
    assert [error["field"] for error in problem["errors"]] == fields


def test_bodies_are_bounded(server):
    limit = 64 << 10
    just = json.dumps({"history": ["i1"], "user": ""}).encode()
    assert server.client.post("/v1/recommend", content=just.ljust(limit)).status_code == 200
    assert server.client.post("/v1/recommend", content=just.ljust(limit + 1)).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(5):
            yield b" " * (limit // 4)

    response = server.client.post("/v1/recommend", content=chunks())  # no Content-Length
    assert response.status_code == 413 and response.json()["title"] == "Content Too Large"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/recommend", 405), ("DELETE", "/healthz", 405), ("GET", "/../x", 404)],
)
def test_unknown_paths_and_methods(server, method, path, status):
    response = server.client.request(method, path)
    assert response.status_code == response.json()["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert ("allow" in response.headers) == (status == 405)


def test_titles_are_searched(server):
    found = server.client.get("/v1/items", params={"query": "EVEN 1", "limit": 3}).json()
    assert [item["id"] for item in found["items"]] == ["i10", "i12", "i14"]
    assert server.client.get("/v1/items", params={"query": "zebra"}).json() == {"items": []}
    for params in ({}, {"query": "x" * 201}, {"query": "a", "limit": "0"}, {"query": "a", "limit": "²"}):
        assert server.client.get("/v1/items", params=params).status_code == 422


def test_health_readiness_and_contract(server):
    assert server.client.get("/healthz").json()["status"] == "ok"
    assert server.client.get("/readyz").json()["status"] == "ready"
    document = server.client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    text = json.dumps(document)
    for reference in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method in operations:
            query = {"query": "a"} if path == "/v1/items" else None
            response = server.client.request(method, path, params=query)
            assert response.status_code != 405
            assert response.status_code != 404 or "is no cold item" in response.json()["detail"]


def test_the_page_needs_nothing_from_elsewhere(server):
    response = server.client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "//" not in response.text.replace("<!--", "")


def test_a_busy_port_is_one_line(server, tiny):
    done = subprocess.run(
        command("serve", tiny.archive, "--port", server.port, "--allow-unsigned"),
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"serve: port {server.port} is in use on 127.0.0.1 (")
    assert done.stderr.count("\n") == 1


def test_an_address_of_another_machine_is_one_line():
    with pytest.raises(UsageError, match=r"serve: cannot listen on port 0 of 192\.0\.2\.1 \("):
        listen("192.0.2.1", 0)


def test_small_answers_do_not_wait_for_acknowledgements():
    """asyncio sets TCP_NODELAY only on sockets that name their protocol."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_sigterm_stops_cleanly(server):
    """Last in the file: it ends the shared server."""
    server.process.send_signal(signal.SIGTERM)
    out, err = server.process.communicate(timeout=15)
    assert server.process.returncode == 0
    assert (out, err) == ("", "")
    assert server.banner.startswith("serving tiny@")
    assert server.banner.endswith(f" on http://127.0.0.1:{server.port}\n")
