"""The application without a process: what a bundle and a server offer, refuse, count and say of themselves."""

import asyncio
import hashlib
import json
import threading
import time
from concurrent.futures import Future

import httpx
import pytest
from uvicorn.server import ServerState

from deploy.errors import UnavailableError
from deploy.feedback import Event, Shown, ShownItem
from deploy.runtime import Recommender
from deploy.server import Life, OneModel, Options, create_app, process
from tests.deploy.conftest import recorded
from tests.deploy.serving import ask

ASKED = {"history": ["i3", "i9"], "k": 4}


@pytest.fixture
def model(tiny):
    return Recommender.load(tiny.folder, precision="fp32")


def app_of(model, **options):
    feedback, life = options.pop("feedback", None), options.pop("life", None)
    return create_app(OneModel(model), Options(workers=2, **options), feedback, life)


class Log:
    """A feedback log in memory; `full` is a disk that takes nothing."""

    def __init__(self, full=False):
        self.records, self.full = [], full

    def submit(self, record, *, awaited=True):
        assert awaited is isinstance(record, Event)
        done = Future()
        if self.full and isinstance(record, Shown):
            raise UnavailableError("feedback: too much waits to be written")
        if self.full:
            done.set_exception(UnavailableError("feedback: cannot be written (No space left on device)"))
        else:
            self.records.append(record)
            done.set_result(None)
        return done


def test_a_batch_answers_each_request(model):
    wanted = [
        {"history": ["i3"], "k": 3},
        {"history": [], "k": 2},
        {"history": ["i3", "nope"], "k": 3, "exclude": ["i1"]},
        {"history": ["i4"], "k": 3, "filter": {"genre": ["War"]}},
    ]
    app = app_of(model)
    batch, *alone = ask(
        app,
        ("POST", "/v1/recommend/batch", {"requests": wanted}),
        *(("POST", "/v1/recommend", one) for one in wanted),
    )
    answers = batch.json()["answers"]
    assert len({one["request_id"] for one in answers}) == 4
    for found, single in zip(answers, alone, strict=True):
        assert found | {"request_id": ""} == single.json() | {"request_id": ""}
    too_many, none = ask(
        app,
        ("POST", "/v1/recommend/batch", {"requests": wanted * 9}),
        ("POST", "/v1/recommend/batch", {"requests": []}),
    )
    assert too_many.status_code == none.status_code == 422


def test_a_cold_item_is_added_ranked_found_and_removed(model):
    item = {"id": "new/1", "title": "film odd", "genre": ["Drama", "War"]}
    added, again, asked, found, filtered, gone, twice, after = ask(
        app_of(model),
        ("POST", "/v1/items", item),
        ("POST", "/v1/items", item | {"genre": "Drama|War"}),
        ("POST", "/v1/recommend", {"history": ["i3"], "k": 21}),
        ("GET", "/v1/items?query=FILM ODD&limit=100", None),
        ("POST", "/v1/recommend", {"history": ["i3"], "k": 21, "filter": {"genre": ["War"]}}),
        ("DELETE", "/v1/items/new/1", None),
        ("DELETE", "/v1/items/new%2F1", None),
        ("POST", "/v1/recommend", {"history": ["new/1"], "k": 21}),
    )
    assert (added.status_code, again.status_code) == (201, 200)
    assert added.json() | {"request_id": ""} == {
        "id": "new/1", "cold_items": 1, "kept": False, "request_id": "", "release": model.release
    }  # fmt: skip
    assert "new/1" in [one["id"] for one in asked.json()["items"]] and len(asked.json()["items"]) == 20
    assert found.json()["items"][-1] == {"id": "new/1", "title": "film odd"}
    assert {one["id"] for one in filtered.json()["items"]} == {"i5", "i10", "i15", "i20", "new/1"}
    assert (gone.status_code, gone.content, twice.status_code) == (204, b"", 404)
    assert after.json()["unknown"] == ["new/1"]


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"id": "i3"}, 409, "id"),
        ({"id": ""}, 422, "id"),
        ({"id": "a\tb"}, 422, "id"),
        ({"title": "  "}, 422, "title"),
        ({"title": None}, 422, "title"),
        ({"year": "1999"}, 422, "year"),
        ({"genre": 7}, 422, "genre"),
        ({"genre": ["a\nb"]}, 422, "genre.0"),
    ],
)
def test_items_that_cannot_be_are_refused(model, change, status, field):
    (response,) = ask(app_of(model), ("POST", "/v1/items", {"id": "n", "title": "film"} | change))
    assert response.status_code == status
    assert response.json()["errors"][0]["field"] == field
    assert len(model.cold.table) == 0


def test_likes_are_offered_where_the_bundle_says_them(rated, model):
    asked = {"items": ["i3", "i4"], "history": ["i1", "i2", "who"], "liked": [True, False, True]}
    liked, wrong, status = ask(
        app_of(Recommender.load(rated([recorded()]))),
        ("POST", "/v1/like", asked | {"ratings": {"liked": 4, "disliked": 4}}),
        ("POST", "/v1/like", asked | {"items": ["nobody"]}),
        ("GET", "/readyz", None),
    )
    answer = liked.json()
    assert [one["log_odds"] for one in answer["items"]] == pytest.approx([1.3, 1.4])
    assert answer["items"][0]["probability"] == pytest.approx(0.785835)
    assert answer["unknown"] == ["who"] and answer["items"][0]["id"] == "i3"
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["field"] == "items"
    assert "likes" in status.json()["accepts"]
    assert ask(app_of(model), ("POST", "/v1/like", asked))[0].status_code == 404


def test_feedback_is_offered_where_there_is_a_log(model):
    log = Log()
    shown, stored, wrong = ask(
        app := app_of(model, feedback=log),
        ("POST", "/v1/recommend", ASKED | {"user": "opaque"}),
        ("POST", "/v1/feedback", {"request_id": "0" * 32, "item_id": "i1", "event": "click", "ts": 12}),
        ("POST", "/v1/feedback", {"request_id": "0" * 32, "item_id": "i1", "event": "stare"}),
    )
    (false,) = ask(
        app, ("POST", "/v1/feedback", {"request_id": "0" * 32, "item_id": "i1", "event": "click", "ts": False})
    )
    assert false.json()["errors"][0]["field"] == "ts"
    answer = shown.json()
    first, second = log.records
    assert isinstance(first, Shown) and abs(first.time - time.time()) < 60
    assert (first.request_id, first.user, first.release) == (answer["request_id"], "opaque", model.release)
    assert first.items == [ShownItem(id=item["id"], score=item["score"]) for item in answer["items"]]
    assert second == Event(request_id="0" * 32, item_id="i1", event="click", ts=12.0, time=second.time)
    assert (stored.status_code, wrong.status_code) == (200, 422)
    assert ask(app_of(model), ("POST", "/v1/feedback", {}))[0].status_code == 404
    log.full = True
    kept, refused, metrics = ask(
        app,
        ("POST", "/v1/recommend", ASKED),
        ("POST", "/v1/feedback", {"request_id": "0" * 32, "item_id": "i1", "event": "click"}),
        ("GET", "/metrics", None),
    )
    assert kept.status_code == 200  # an answer that nobody can learn from is still an answer
    assert refused.status_code == 503 and "retry-after" in refused.headers
    assert "slimrec_feedback_unkept_total 1\n" in metrics.text


def test_callers_must_know_the_token(model):
    app = app_of(model, token=hashlib.sha256(b"correct horse battery").digest(), local=False)
    calls = [("POST", "/v1/recommend", ASKED), ("GET", "/metrics", None), ("GET", "/nothing", None)]
    for headers in (None, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct horse battery"}):
        for response in ask(app, *calls, headers=headers):
            assert response.status_code == response.json()["status"] == 401
            assert response.headers["www-authenticate"] == "Bearer"
    known = ask(app, *calls, headers={"Authorization": "bearer correct horse battery"})
    assert [response.status_code for response in known] == [200, 200, 404]
    free = ask(app, *(("GET", path, None) for path in ("/", "/page.js", "/healthz", "/readyz", "/openapi.json")))
    assert {response.status_code for response in free} == {200}
    assert free[-1].json()["paths"]["/v1/recommend"]["post"]["security"] == [{"token": []}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "[::1", "Origin": "http://[::1"}, 421),
        ({"Host": "rebound.example", "Origin": "http://rebound.example"}, 421),
    ],
)
def test_without_a_token_pages_of_other_sites_are_not_answered(model, headers, status):
    (response,) = ask(app_of(model), ("POST", "/v1/recommend", ASKED), headers=headers)
    assert response.status_code == status


def test_too_much_at_once_is_refused_at_once(model, monkeypatch):
    """Two workers are held, three may wait: the sixth and all later ones get 503 while nothing moves."""
    held, go = threading.Semaphore(0), threading.Event()
    answer = model.recommend_many

    def slow(*arguments):
        held.release()
        assert go.wait(20)
        return answer(*arguments)

    monkeypatch.setattr(model, "recommend_many", slow)
    app = app_of(model, waiting=3, seconds=20.0)

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            taken = [asyncio.create_task(client.post("/v1/recommend", json=ASKED)) for _ in range(5)]
            while "slimrec_queue 5\n" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0)
            refused = [await client.post("/v1/recommend", json=ASKED) for _ in range(20)]
            assert not any(task.done() for task in taken)
            go.set()
            return refused, await asyncio.gather(*taken), (await client.get("/metrics")).text

    refused, taken, metrics = asyncio.run(run())
    assert {(one.status_code, one.headers["retry-after"]) for one in refused} == {(503, "1")}
    assert all(one.headers["content-type"] == "application/problem+json" for one in refused)
    assert {one.status_code for one in taken} == {200}
    assert "slimrec_rejected_total 20\n" in metrics and "slimrec_queue 0\n" in metrics


def test_an_answer_that_takes_too_long_is_not_waited_for(model, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(model, "recommend_many", lambda *_: go.wait(20))
    late, metrics = ask(app_of(model, seconds=0.05), ("POST", "/v1/recommend", ASKED), ("GET", "/metrics", None))
    go.set()
    assert late.status_code == 503 and late.json()["detail"] == "queue: no answer within 0.05 s"
    assert "slimrec_queue 1\n" in metrics.text  # the worker is still held


def test_a_connection_that_says_nothing_or_nonsense_is_closed(model, monkeypatch):
    monkeypatch.setattr(process, "HEAD_SECONDS", 0.05)

    async def run():
        config = process.configuration(app_of(model))
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(
            lambda: process.Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        address = listening.sockets[0].getsockname()
        silent, writer = await asyncio.open_connection(*address[:2])
        writer.write(b"POST /v1/recommend HTTP/1.1\r\n")
        assert await asyncio.wait_for(silent.read(), 10) == b""
        wrong, other = await asyncio.open_connection(*address[:2])
        other.write(b"\x16\x03\x01 is no HTTP\r\n\r\n")
        head, _, body = (await asyncio.wait_for(wrong.read(), 10)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in head
        assert json.loads(body)["status"] == 400
        other.close()
        writer.close()
        listening.close()

    asyncio.run(run())


def test_a_defect_is_one_500_without_what_was_sent(model, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("about i3")

    monkeypatch.setattr(model, "recommend_many", broken)
    (response,) = ask(app_of(model), ("POST", "/v1/recommend", ASKED))
    assert response.status_code == 500 and response.headers["content-type"] == "application/problem+json"
    assert "i3" not in response.text
    (line,) = [record for record in caplog.records if record.getMessage() == "failed"]
    assert line.fields == {"request_id": response.headers["x-request-id"]}


def test_what_is_stopping_says_so(model):
    life = Life(draining=True)
    health, ready, answer = ask(
        app_of(model, life=life), ("GET", "/healthz", None), ("GET", "/readyz", None), ("POST", "/v1/recommend", ASKED)
    )
    assert health.json()["status"] == "draining" and ready.status_code == 503
    assert answer.status_code == 200 and answer.headers["connection"] == "close"


def test_metrics_count_what_happened(model):
    *_, response = ask(
        app_of(model),
        ("POST", "/v1/recommend", ASKED),
        ("POST", "/v1/recommend", {"history": ["who"]}),
        ("POST", "/v1/recommend", {}),
        ("GET", "/secret-of-a-user", None),
        ("GET", "/metrics", None),
    )
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    for line in (
        'slimrec_requests_total{method="POST",path="/v1/recommend",status="200"} 2',
        'slimrec_requests_total{method="POST",path="/v1/recommend",status="422"} 1',
        'slimrec_requests_total{method="GET",path="other",status="404"} 1',
        'slimrec_request_seconds_count{path="/v1/recommend"} 3',
        'slimrec_recommendations_total{source="popularity"} 1',
        "slimrec_unknown_ids_total 1",
        f'slimrec_release_info{{release="{model.release}"}} 1',
    ):
        assert line in lines
    assert "secret" not in response.text
    buckets = [line for line in lines if line.startswith('slimrec_request_seconds_bucket{path="/v1/recommend"')]
    counts = [float(line.rpartition(" ")[2]) for line in buckets]
    assert counts == sorted(counts) and counts[-1] == 3 and 'le="+Inf"' in buckets[-1]


def test_the_contract_is_what_is_offered(model):
    (response,) = ask(app_of(model, feedback=Log()), ("GET", "/openapi.json", None))
    document = response.json()
    schemas = document["components"]["schemas"]
    assert set(document["paths"]) == {
        "/v1/recommend", "/v1/recommend/batch", "/v1/items", "/v1/items/{id}", "/v1/feedback",
        "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    assert set(schemas["RecommendRequest"]["properties"]["filter"]["properties"]) == {"genre"}
    assert set(schemas["ItemRequest"]["properties"]) == {"id", "title", "text", "genre"}
    assert schemas["ItemRequest"]["additionalProperties"] is False
    references = set(json.dumps(document).split("#/components/schemas/")[1:])
    assert {part.partition('"')[0] for part in references} <= set(schemas)


def test_shadows_are_asked_before_the_server_ends(model):
    class Slow:
        release, gate = "slow@0", threading.Event()

        def recommend(self, *asked):
            assert self.gate.wait(10)
            return model.recommend(*asked)

    class Models(OneModel):
        def shadow_for(self, _user):
            return Slow()

    async def run(seconds):
        log, sent, told = Log(), asyncio.Queue(), asyncio.Queue()
        app = create_app(Models(model), Options(workers=1, seconds=seconds), log)
        life = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, sent.get, told.put))
        await sent.put({"type": "lifespan.startup"})
        assert (await told.get())["type"] == "lifespan.startup.complete"
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.post("/v1/recommend", json=ASKED)).status_code == 200
            await sent.put({"type": "lifespan.shutdown"})
            if seconds > 1:
                Slow.gate.set()
            assert (await told.get())["type"] == "lifespan.shutdown.complete"
            await life
            return [record.role for record in log.records], (await client.get("/metrics")).text

    roles, metrics = asyncio.run(run(0.05))
    assert roles == ["answer"] and "slimrec_feedback_unkept_total 1" in metrics  # bounded, and counted
    roles, metrics = asyncio.run(run(10.0))
    assert roles == ["answer", "shadow"] and "slimrec_feedback_unkept_total 0" in metrics
