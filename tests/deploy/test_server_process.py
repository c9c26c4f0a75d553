"""Real server processes: how they stop, what they keep, whom they listen to, what they log."""

import json
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

from tests.deploy.serving import ROOT, command, serving

ASKED = {"history": ["i3", "i9"], "k": 4}


def test_sigterm_loses_no_request(tiny):
    """Eight callers ask as fast as they can; each keeps its connection until an answer says that it closes."""
    with serving(tiny.folder, "--allow-unsigned") as server:
        counts, failures = [0] * 8, []

        def ask(caller):
            limits = httpx.Limits(max_connections=1)
            with httpx.Client(base_url=server.client.base_url, timeout=10.0, limits=limits) as client:
                while True:
                    try:
                        response = client.post("/v1/recommend", json=ASKED)
                    except httpx.HTTPError as error:
                        return failures.append(repr(error))
                    if response.status_code not in (200, 503):
                        return failures.append(response.text)
                    counts[caller] += 1
                    if response.headers.get("connection") == "close":
                        return None

        callers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for caller in callers:
            caller.start()
        while min(counts) < 5:
            assert not failures
            time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join(15)
        assert server.process.wait(15) == 0
        assert failures == [] and min(counts) >= 6


def test_connections_that_wait_to_be_accepted_are_answered(tiny):
    """The kernel took them before the signal's work was done; the server had not."""
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
    body = json.dumps(ASKED).encode()
    with serving(tiny.folder, "--allow-unsigned") as server:
        server.process.send_signal(signal.SIGSTOP)
        callers = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
        for caller in callers:
            caller.sendall(head % (len(body), body))
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        for caller in callers:
            with caller, caller.makefile("rb") as stream:
                assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        assert server.process.wait(15) == 0
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_overload_is_answered_in_bounded_time(tiny):
    """One worker, no queue, sixteen callers: only answers and refusals, none of them late."""
    with serving(tiny.folder, "--allow-unsigned", "--workers", 1, "--queue", 0) as server:
        found, slowest = [], []

        def ask():
            with httpx.Client(base_url=server.client.base_url, timeout=10.0) as client:
                for _ in range(25):
                    start = time.monotonic()
                    response = client.post("/v1/recommend", json=ASKED)
                    slowest.append(time.monotonic() - start)
                    found.append((response.status_code, response.headers.get("retry-after")))

        callers = [threading.Thread(target=ask) for _ in range(16)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(found) == 400 and set(found) <= {(200, None), (503, "1")}
        assert (200, None) in found and max(slowest) < 5
        assert server.client.post("/v1/recommend", json=ASKED).status_code == 200


def test_cold_items_outlive_a_killed_server(tiny, tmp_path):
    arguments = (tiny.folder, "--allow-unsigned", "--state", tmp_path)
    item = {"id": "new", "title": "film odd", "genre": ["Drama"]}
    wanted = {"history": ["i3"], "k": 21}
    with serving(*arguments) as server:
        added = server.client.post("/v1/items", json=item)
        assert added.status_code == 201 and added.json()["kept"] is True
        before = server.client.post("/v1/recommend", json=wanted).json()["items"]
        second = subprocess.run(command("serve", *arguments, "--port", 0), cwd=ROOT, text=True, capture_output=True)
        assert second.returncode == 2
        assert second.stderr == f"{tmp_path}: another server keeps its state there\n"
        server.process.kill()
        server.process.wait(15)
    with serving(*arguments) as server:
        assert server.client.post("/v1/recommend", json=wanted).json()["items"] == before
        assert "new" in [one["id"] for one in before]


def test_whom_a_server_listens_to(tiny, tmp_path):
    def refused(*arguments):
        done = subprocess.run(command("serve", tiny.folder, *arguments), cwd=ROOT, text=True, capture_output=True)
        assert done.returncode == 2 and done.stdout == ""
        return done.stderr

    assert refused("--allow-unsigned", "--host", "0.0.0.0") == (
        "serve: pass --token-file FILE to be reached from other machines, or --allow-anonymous (got host 0.0.0.0)\n"
    )
    token = tmp_path / "token"
    token.write_text("short\n")
    assert "a token is one word of 16 to 4096 ASCII characters" in refused("--allow-unsigned", "--token-file", token)
    assert "cannot be read" in refused("--allow-unsigned", "--token-file", tmp_path / "none")
    token.write_text("0123456789abcdef\n")
    with serving(tiny.folder, "--allow-unsigned", "--host", "0.0.0.0", "--token-file", token) as server:
        assert server.client.post("/v1/recommend", json=ASKED).status_code == 401
        headers = {"Authorization": "Bearer 0123456789abcdef", "Host": "shop.example"}
        assert server.client.post("/v1/recommend", json=ASKED, headers=headers).status_code == 200


def test_json_logs_hold_nothing_personal(tiny):
    with serving(tiny.folder, "--allow-unsigned", "--log", "json") as server:
        sent = {"history": ["i3", "private-id"], "user": "private-user"}
        answer = server.client.post("/v1/recommend", json=sent).json()
        server.client.get("/v1/items", params={"query": "private-words"})
        server.client.get("/private-path")
        server.process.send_signal(signal.SIGTERM)
        _, err = server.process.communicate(timeout=15)
    lines = [json.loads(line) for line in err.splitlines()]
    assert "private" not in err and "127.0.0.1" not in err and "i3" not in err
    requests = [(line["method"], line["path"], line["status"]) for line in lines if line["event"] == "request"]
    assert requests == [
        ("GET", "/healthz", 200),
        ("POST", "/v1/recommend", 200),
        ("GET", "/v1/items", 200),
        ("GET", "other", 404),
    ]
    (line,) = [line for line in lines if line["path"] == "/v1/recommend"]
    assert line["request_id"] == answer["request_id"] and line["ms"] > 0 and line["level"] == "info"


def test_a_body_that_never_comes_does_not_hold_the_server(tiny):
    with serving(tiny.folder, "--allow-unsigned") as server:
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for caller in slow:
            caller.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert server.client.post("/v1/recommend", json=ASKED).status_code == 200
        for caller in slow:
            caller.close()
        assert server.client.post("/v1/recommend", json=ASKED).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        out, err = server.process.communicate(timeout=15)
        assert (server.process.returncode, out, err) == (0, "", "")
