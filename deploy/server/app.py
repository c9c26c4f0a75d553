"""The HTTP contract around a recommender: one method per path."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Literal, ParamSpec, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from deploy.cold import NewItem
from deploy.errors import SlimrecError, UnavailableError
from deploy.feedback.records import Event, Shown, ShownItem
from deploy.manifest import shorten
from deploy.runtime import Recommendation
from deploy.server import messages as m
from deploy.server.feedback import Feedback
from deploy.server.guard import Guard, Life
from deploy.server.logs import say
from deploy.server.metrics import CONTENT_TYPE, ServerMetrics, render
from deploy.server.models import Models
from deploy.server.openapi import openapi
from deploy.server.problems import (
    RequestError,
    answer,
    failed,
    gone,
    http_error,
    invalid,
    not_possible,
    parse,
    read_body,
    refused,
)
from deploy.server.workers import Workers, cores

P = ParamSpec("P")
R = TypeVar("R")

# The page's files come from this server, and nothing else does.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Options:
    """How the server serves.

    workers: requests answered at once. waiting: how many may wait for one of them; more are answered 503. seconds: the
    longest a request waits for its answer. token: SHA-256 of the bearer token (`guard.read_token`). local: whether it
    listens on this machine alone.
    """

    workers: int = field(default_factory=cores)
    waiting: int = 64
    seconds: float = 5.0
    token: bytes | None = None
    local: bool = True


def create_app(
    models: Models,
    options: Options | None = None,
    feedback: Feedback | None = None,
    life: Life | None = None,
) -> Guard:
    """The ASGI application.

    models: the recommenders that answer; each has passed its self-test. What `model_for(None)` can do at the start is
    what is offered. feedback: a log; without one there is no `/v1/feedback`, and no shadow is asked.
    """
    options, life = options or Options(), life or Life()
    endpoints = Endpoints(models, options, feedback, life)
    app = Starlette(
        routes=endpoints.routes(),
        exception_handlers={
            RequestError: refused,
            HTTPException: http_error,
            SlimrecError: not_possible,
            ClientDisconnect: gone,
            Exception: failed,
        },
        lifespan=endpoints.lifespan,
    )
    return Guard(
        app,
        path_of=endpoints.path_of,
        metrics=endpoints.metrics,
        token=options.token,
        local=options.local,
        life=life,
    )


class Endpoints:
    """What answers each path."""

    def __init__(self, models: Models, options: Options, feedback: Feedback | None, life: Life) -> None:
        self._models, self._model_for = models, models.model_for
        self._options, self._feedback, self._life = options, feedback, life
        self._workers = Workers(options.workers, options.waiting, options.seconds)
        self._document = lru_cache(maxsize=4)(openapi)
        self._paths: dict[object, str] = {}
        self._shadows: set[asyncio.Future[None]] = set()
        self.metrics = ServerMetrics(
            taken=lambda: self._workers.taken,
            most=self._workers.most,
            cold_items=lambda: len(models.model_for(None).cold.table),
            release=lambda: models.model_for(None).release,
        )

    def routes(self) -> list[Route]:
        """The paths that this bundle and this server offer."""
        offered = self._offered()
        item_methods = ["GET", "POST"] if "items" in offered else ["GET"]
        found = [
            # Paths are tried in turn: the one that is asked for most stands first.
            Route("/v1/recommend", self.recommend, methods=["POST"]),
            Route("/", self.page),
            *(Route(f"/page.{kind}", self.page) for kind in ("css", "js")),
            Route("/healthz", self.health),
            Route("/readyz", self.ready),
            Route("/metrics", self.measured),
            Route("/openapi.json", self.schema),
            Route("/v1/recommend/batch", self.recommend_batch, methods=["POST"]),
            Route("/v1/items", self.items, methods=item_methods),
        ]
        if "items" in offered:
            found.append(Route("/v1/items/{id:path}", self.remove_item, methods=["DELETE"]))
        if "likes" in offered:
            found.append(Route("/v1/like", self.like, methods=["POST"]))
        if "feedback" in offered:
            found.append(Route("/v1/feedback", self.feedback, methods=["POST"]))
        self._paths = {route.endpoint: route.path.replace(":path", "") for route in found}
        return found

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """ASGI's: what was answered before the end is asked of shadows too, for as long as a request may take."""
        yield
        if self._shadows:
            _done, late = await asyncio.wait(self._shadows, timeout=self._options.seconds)
            for asked in late:
                asked.cancel()
                self.metrics.unkept.add()
            if late:
                say(logging.WARNING, "shadows not asked, the server stops", requests=len(late))

    def path_of(self, scope: Scope) -> str:
        """The path of the contract that a routed request asked for."""
        return self._paths.get(scope.get("endpoint"), "other")

    async def recommend(self, request: Request) -> Response:
        wanted = parse(m.RecommendRequest, await read_body(request, m.MAX_BODY_BYTES))
        (found,) = await self._answers(request, [wanted], [request.state.request_id])
        return answer(found)

    async def recommend_batch(self, request: Request) -> Response:
        wanted = parse(m.BatchRequest, await read_body(request, m.MAX_BATCH_BYTES)).requests
        ids = [secrets.token_hex(16) for _ in wanted]
        return answer(m.BatchResponse(answers=await self._answers(request, wanted, ids)))

    async def _answers(
        self, request: Request, wanted: Sequence[m.RecommendRequest], ids: Sequence[str]
    ) -> list[m.RecommendResponse]:
        found = await self._run(request, self._recommend, wanted, ids)
        for one in found:
            self.metrics.answers.add(one.source)
            self.metrics.unknown.add(by=len(one.unknown))
        if self._feedback is not None and any(self._models.shadow_for(one.user) for one in wanted):
            asked = asyncio.ensure_future(self._workers.run(self._ask_shadows, wanted, ids))
            self._shadows.add(asked)  # a task that nobody holds may be collected before it ends
            asked.add_done_callback(self._shadow_done)
        return found

    def _recommend(self, wanted: Sequence[m.RecommendRequest], ids: Sequence[str]) -> list[m.RecommendResponse]:
        """In a worker. Requests of one model, k and filter go through the graph together."""
        groups: dict[tuple[int, int, str], list[int]] = {}
        models = [self._model_for(one.user) for one in wanted]
        for place, (one, model) in enumerate(zip(wanted, models, strict=True)):
            key = (id(model), one.k, repr(sorted(one.filter.items())) if one.filter else "")
            groups.setdefault(key, []).append(place)
        found: dict[int, m.RecommendResponse] = {}
        for places in groups.values():
            first, model = wanted[places[0]], models[places[0]]
            histories, excludes = zip(
                *((wanted[place].history, wanted[place].exclude) for place in places), strict=True
            )
            answers = model.recommend_many(histories, first.k, excludes, first.filter)
            for place, recommendation in zip(places, answers, strict=True):
                found[place] = _response(recommendation, ids[place], model.release)
                self._show(found[place], wanted[place].user)
        return [found[place] for place in range(len(wanted))]

    def _ask_shadows(self, wanted: Sequence[m.RecommendRequest], ids: Sequence[str]) -> None:
        """In a worker, after the answer has gone."""
        for one, request_id in zip(wanted, ids, strict=True):
            shadow = self._models.shadow_for(one.user)
            if shadow is not None:
                found = shadow.recommend(one.history, one.k, one.exclude, one.filter)
                self._show(_response(found, request_id, shadow.release), one.user, "shadow")

    def _shadow_done(self, asked: "asyncio.Future[None]") -> None:
        self._shadows.discard(asked)
        if not asked.cancelled() and (error := asked.exception()) is not None:
            self.metrics.unkept.add()
            if not isinstance(error, UnavailableError):  # a full queue is no failure: a shadow comes after requests
                say(logging.ERROR, "shadow failed", error=error)

    def _show(self, shown: m.RecommendResponse, user: str | None, role: Literal["answer", "shadow"] = "answer") -> None:
        if self._feedback is None:
            return
        record = Shown(
            request_id=shown.request_id,
            user=user,
            release=shown.release,
            items=[ShownItem(id=item.id, score=item.score) for item in shown.items],
            time=time.time(),
            experiment=self._models.experiment_name,
            role=role,
        )
        try:
            self._feedback.submit(record, awaited=False)
        except UnavailableError:  # an answer that cannot be learnt from is still an answer
            self.metrics.unkept.add()

    async def like(self, request: Request) -> Response:
        wanted = parse(m.LikeRequest, await read_body(request, m.MAX_BODY_BYTES))
        model = self._model_for(wanted.user)
        ratings = (wanted.ratings.liked, wanted.ratings.disliked)
        logits = await self._run(request, model.likes, wanted.items, wanted.history, wanted.liked, ratings)
        chances = 1.0 / (1.0 + np.exp(-np.clip(logits, -500.0, 500.0)))
        items = [
            m.LikedItem(id=item, probability=chance, log_odds=logit)
            for item, chance, logit in zip(wanted.items, chances.tolist(), logits, strict=True)
        ]
        known = zip(wanted.history, model.rows_of(wanted.history), strict=True)
        unknown = list(dict.fromkeys(item for item, row in known if not row))
        request_id = request.state.request_id
        return answer(m.LikeResponse(items=items, unknown=unknown, request_id=request_id, release=model.release))

    async def items(self, request: Request) -> Response:
        return await (self._add_item(request) if request.method == "POST" else self._search(request))

    async def _search(self, request: Request) -> Response:
        query = request.query_params.get("query", "")
        if not 1 <= len(query) <= 200:
            raise invalid("query", f"must have 1 to 200 characters (got {len(query)})")
        limit = request.query_params.get("limit", "20")
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= 100):
            raise invalid("limit", f"must be a number from 1 to 100 (got {shorten(limit)})")
        found = await self._run(request, self._model_for(None).search, query, int(limit))
        return answer(m.ItemsResponse(items=[m.FoundItem(id=item, title=title) for item, title in found]))

    async def _add_item(self, request: Request) -> Response:
        wanted = parse(m.ItemRequest, await read_body(request, m.MAX_BODY_BYTES))
        model = self._model_for(None)
        separators = model.catalogue.list_separators
        attributes = {
            # What the item file has in a cell is taken too: the values, separated, where the attribute has several.
            name: [part for value in values for part in value.split(separators[name])] if name in separators else values
            for name, values in (wanted.model_extra or {}).items()
        }
        new = await self._run(request, model.cold.put, NewItem(wanted.id, wanted.title, attributes, wanted.text))
        added = m.ItemResponse(
            id=wanted.id,
            cold_items=len(model.cold.table),
            kept=model.cold.kept,
            request_id=request.state.request_id,
            release=model.release,
        )
        return answer(added, 201 if new else 200)

    async def remove_item(self, request: Request) -> Response:
        item = request.path_params["id"]
        if not await self._run(request, self._model_for(None).cold.remove, item):
            raise invalid("id", f"is no cold item (got {shorten(item)})", 404, "Not Found")
        return Response(status_code=204)

    async def feedback(self, request: Request) -> Response:
        wanted = parse(m.FeedbackRequest, await read_body(request, m.MAX_BODY_BYTES))
        assert self._feedback is not None
        now = time.time()
        event = Event(
            request_id=wanted.request_id,
            item_id=wanted.item_id,
            event=wanted.event,
            ts=now if wanted.ts is None else wanted.ts,
            time=now,
        )
        try:
            async with asyncio.timeout(self._options.seconds):
                await asyncio.wrap_future(self._feedback.submit(event))
        except TimeoutError:
            raise UnavailableError(f"feedback: not on disk within {self._options.seconds:g} s") from None
        return answer(m.FeedbackResponse())

    async def health(self, _: Request) -> Response:
        return answer(self._status("draining" if self._life.draining else "ok"))

    async def ready(self, _: Request) -> Response:
        if self._life.draining:
            raise UnavailableError("the server is stopping")
        return answer(self._status("ready"))

    def _status(self, status: Literal["ok", "ready", "draining"]) -> m.Status:
        model = self._model_for(None)
        return m.Status(status=status, release=model.release, precision=model.precision, accepts=self._offered())

    def _offered(self) -> list[Literal["items", "likes", "feedback"]]:
        model = self._model_for(None)
        offered: list[tuple[Literal["items", "likes", "feedback"], bool]] = [
            ("items", model.cold.possible),
            ("likes", model.says_likes),
            ("feedback", self._feedback is not None),
        ]
        return [name for name, possible in offered if possible]

    async def measured(self, _: Request) -> Response:
        return Response(render(self.metrics.all()), headers={"Content-Type": CONTENT_TYPE})

    async def schema(self, _: Request) -> Response:
        catalogue = self._model_for(None).catalogue
        attributes = tuple((name, catalogue.list_separators.get(name)) for name in catalogue.attributes)
        return JSONResponse(self._document(attributes, tuple(self._offered()), self._options.token is not None))

    async def page(self, request: Request) -> Response:
        name, media_type = _PAGE_FILES[request.url.path]
        data = files("deploy.server").joinpath("page", name).read_bytes()
        headers = {"Content-Security-Policy": _PAGE_POLICY, "Referrer-Policy": "no-referrer"}
        return Response(data, headers=headers, media_type=media_type)

    async def _run(self, request: Request, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        start = time.perf_counter()
        try:
            found = await self._workers.run(call, *args, **kwargs)
        except UnavailableError:
            self.metrics.rejected.add()
            raise
        self.metrics.model_seconds.observe(time.perf_counter() - start, self.path_of(request.scope))
        return found


_PAGE_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def _response(found: Recommendation, request_id: str, release: str) -> m.RecommendResponse:
    return m.RecommendResponse(
        items=[m.Item(id=item.id, score=item.score, title=item.title) for item in found.items],
        unknown=found.unknown,
        source="model" if found.source == "model" else "popularity",
        request_id=request_id,
        release=release,
    )
