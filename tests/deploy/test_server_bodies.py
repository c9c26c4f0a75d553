"""Whatever is sent, the answer is an answer or a problem document that says what is wrong."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.runtime import Recommender
from deploy.server import OneModel, Options, create_app
from tests.deploy.serving import ask

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
IDS = st.lists(st.sampled_from([f"i{row}" for row in range(1, 21)]) | st.text(min_size=1, max_size=5), max_size=12)
FIELDS = {
    "history": IDS,
    "k": st.integers(1, 1000),
    "exclude": IDS,
    "filter": st.dictionaries(st.just("genre"), st.lists(st.sampled_from(["Drama", "War", "None"]), max_size=3)),
    "user": st.none() | st.text(max_size=20),
}
VALID = st.fixed_dictionaries({"history": IDS}, optional={k: v for k, v in FIELDS.items() if k != "history"})
checked = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model(tiny):
    return Recommender.load(tiny.folder, precision="fp32")


@pytest.fixture(scope="module")
def app(model):
    return create_app(OneModel(model), Options(workers=1))


@checked
@given(body=VALID)
def test_a_valid_body_gets_the_runtimes_answer(app, model, body):
    (response,) = ask(app, ("POST", "/v1/recommend", body))
    assert response.status_code == 200
    answer, filter = response.json(), body.get("filter", {})
    expected = model.recommend(body["history"], body.get("k", 10), body.get("exclude", []), filter)
    assert [item["id"] for item in answer["items"]] == [item.id for item in expected.items]
    assert answer["unknown"] == expected.unknown and answer["source"] == expected.source
    shown = {item["id"] for item in answer["items"]}
    assert len(shown) == len(answer["items"]) <= body.get("k", 10)
    assert not shown & {*body["history"], *body.get("exclude", [])}


@checked
@given(path=st.sampled_from(["/v1/recommend", "/v1/recommend/batch", "/v1/items"]), body=JSON)
def test_any_json_gets_an_answer_or_a_problem(app, path, body):
    (response,) = ask(app, ("POST", path, body))
    assert response.status_code in (200, 201, 422) or (body is None and response.status_code == 400)
    if response.status_code == 422:
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert problem["status"] == 422 and problem["errors"] and problem["detail"]


@checked
@given(body=VALID, place=st.sampled_from(sorted(FIELDS)), value=JSON)
def test_a_field_of_another_form_is_named(app, body, place, value):
    (response,) = ask(app, ("POST", "/v1/recommend", body | {place: value}))
    assert response.status_code in (200, 422)
    if response.status_code == 422:
        assert {error["field"].partition(".")[0] for error in response.json()["errors"]} == {place}


@checked
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_json_are_said_to_be(app, data):
    import httpx

    async def send():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/recommend", content=data)

    import asyncio

    response = asyncio.run(send())
    assert response.status_code in (400, 422)
    assert json.loads(response.content)["status"] == response.status_code
