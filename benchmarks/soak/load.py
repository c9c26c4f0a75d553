"""The load generator, a process of its own: `python -m benchmarks.soak.load SPEC.json`.

It reads a `Phase` per line from its standard input and answers each with a `Found` on one line. Histories, users and
what is asked are drawn with fixed seeds.
"""

import asyncio
import json
import random
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from pydantic import Field

from benchmarks.result import Record
from benchmarks.soak.client import Answer, Connection, LostError, request_bytes

Operation = Literal["recommend", "batch", "search", "feedback", "add_item", "remove_item"]

_POOL = 2000  # requests that are made beforehand, so that making them costs nothing while they are timed
_USERS = 10_000
BATCH = 8
_IDLE_SECONDS = 3.0  # the server waits five for the next request; a request sent as it closes would be nobody's fault
_REMEMBERED = 512  # answers of which feedback may tell


class Spec(Record):
    """Whom to ask and about what. `acknowledged`: a file that gets a line per event that the server said it stored."""

    port: int
    items: list[str]
    max_history: int
    acknowledged: str
    attributes: list[str]


class Phase(Record):
    """A stretch of load.

    rate: requests per second, at times drawn beforehand (Poisson) whether or not the server keeps up; None: every
    connection asks again as soon as it is answered. It ends after `requests`, or after `seconds` where these are given;
    `until_closed`: when the server has closed every connection in good order.
    """

    name: str
    connections: int
    requests: int | None = None
    seconds: float | None = None
    rate: float | None = None
    mix: dict[Operation, float] = Field(default={"recommend": 1.0})
    until_closed: bool = False
    seed: int = 0


class Times(Record):
    """Milliseconds."""

    runs: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Found(Record):
    """What a phase came to.

    lost: requests that were sent and not answered. answers: operation -> status -> how many. recommend_ms: of
    recommendations that were answered 200, from the moment a request was due (with a rate) or sent. refused_ms: of 503,
    from the moment it was sent. bare_refusals: 503 without Retry-After. lag_ms: how late the generator itself sent.
    """

    name: str
    seconds: float
    connections: int
    rate: float | None
    sent: int
    lost: int
    answers: dict[str, dict[str, int]]
    recommend_ms: Times | None
    refused_ms: Times | None
    bare_refusals: int
    lag_ms: Times | None
    first_losses: list[str]

    @property
    def answered(self) -> int:
        """Whole answers, of any status."""
        return sum(sum(statuses.values()) for statuses in self.answers.values())

    def count(self, status: str) -> int:
        """Answers of one status."""
        return sum(statuses.get(status, 0) for statuses in self.answers.values())

    @property
    def recommended_per_second(self) -> float:
        """Recommendations answered 200, per second."""
        return self.answers.get("recommend", {}).get("200", 0) / self.seconds


def times(seconds: list[float]) -> Times | None:
    """Percentiles, in milliseconds, of some seconds; None of none."""
    if not seconds:
        return None
    values = [round(float(value) * 1e3, 3) for value in np.percentile(seconds, [50, 90, 99, 99.9, 100])]
    return Times(runs=len(seconds), p50=values[0], p90=values[1], p99=values[2], p999=values[3], max=values[4])


class Work:
    """Requests to send, and what their answers leave for later ones (events, items to remove)."""

    def __init__(self, spec: Spec, acknowledged: TextIO) -> None:
        self._spec, self._acknowledged = spec, acknowledged
        self._draw = random.Random(1)
        self._pool = [request_bytes("POST", "/v1/recommend", json.dumps(self._asked()).encode()) for _ in range(_POOL)]
        self._next = 0
        self._shown: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        self._added: deque[str] = deque()
        self._told: dict[bytes, str] = {}
        self._numbers = iter(range(10**9))

    def _asked(self) -> dict[str, object]:
        length = self._draw.randint(1, self._spec.max_history)
        history = self._draw.choices(self._spec.items, k=length)
        return {"history": history, "k": 10, "user": f"user-{self._draw.randrange(_USERS)}"}

    def make(self, operation: Operation) -> bytes:
        """The next request of a kind; one that has nothing to tell of yet asks for a recommendation."""
        if operation == "batch":
            together = {"requests": [self._asked() for _ in range(BATCH)]}
            return request_bytes("POST", "/v1/recommend/batch", json.dumps(together).encode())
        if operation == "search":
            return request_bytes("GET", f"/v1/items?query={self._draw.choice('aeiou')}&limit=20")
        if operation == "add_item":
            body = {"id": f"cold-{next(self._numbers)}", "title": f"a new one, number {self._draw.randrange(1000)}"}
            body |= dict.fromkeys(self._spec.attributes, "new")
            return request_bytes("POST", "/v1/items", json.dumps(body).encode())
        if operation == "remove_item" and self._added:
            return request_bytes("DELETE", f"/v1/items/{self._added.popleft()}")
        if operation == "feedback" and self._shown:
            request_id, item = self._shown.pop()
            event = {"request_id": request_id, "item_id": item, "event": "click"}
            request = request_bytes("POST", "/v1/feedback", json.dumps(event).encode())
            self._told[request] = f"{request_id} {item}"
            return request
        self._next = (self._next + 1) % _POOL
        return self._pool[self._next]

    def heard(self, request: bytes, answer: Answer) -> None:
        """Keep what later requests need."""
        if request.startswith(b"POST /v1/recommend ") and answer.status == 200 and self._draw.random() < 0.1:
            found = json.loads(answer.body)
            if found["items"]:
                self._shown.append((found["request_id"], found["items"][0]["id"]))
        elif request.startswith(b"POST /v1/items") and answer.status == 201:
            self._added.append(json.loads(answer.body)["id"])
        elif (told := self._told.pop(request, None)) is not None and answer.status == 200:
            self._acknowledged.write(f"{told}\n")
            self._acknowledged.flush()


class Load:
    """One phase under way."""

    def __init__(self, phase: Phase, work: Work, port: int) -> None:
        self._phase, self._work, self._port = phase, work, port
        self._draw = random.Random(phase.seed)
        self._operations, self._weights = list(phase.mix), list(phase.mix.values())
        self._idle: list[tuple[Connection, float]] = []
        self._free = asyncio.Semaphore(phase.connections)
        self.sent = self.lost = self.bare_refusals = 0
        self.answers: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.recommend_s: list[float] = []
        self.refused_s: list[float] = []
        self.lag_s: list[float] = []
        self.losses: list[str] = []

    async def run(self) -> Found:
        """Until the phase's end, every answer waited for."""
        start = time.perf_counter()
        await (self._closed(start) if self._phase.rate is None else self._open(self._phase.rate))
        seconds = time.perf_counter() - start
        for connection, _ in self._idle:
            connection.close()
        return Found(
            name=self._phase.name,
            seconds=round(seconds, 3),
            connections=self._phase.connections,
            rate=self._phase.rate,
            sent=self.sent,
            lost=self.lost,
            answers={operation: dict(sorted(found.items())) for operation, found in sorted(self.answers.items())},
            recommend_ms=times(self.recommend_s),
            refused_ms=times(self.refused_s),
            bare_refusals=self.bare_refusals,
            lag_ms=times(self.lag_s),
            first_losses=self.losses[:5],
        )

    async def _closed(self, start: float) -> None:
        remaining = iter(range(self._phase.requests)) if self._phase.requests is not None else None
        stop = start + (self._phase.seconds if self._phase.seconds is not None else float("inf"))

        async def caller() -> None:
            connection = await Connection.open("127.0.0.1", self._port)
            while self._goes_on(remaining, stop):
                answer = await self._ask(connection, None)
                if answer is None or not connection.usable:
                    if self._phase.until_closed or answer is None:
                        return
                    connection = await Connection.open("127.0.0.1", self._port)
            connection.close()

        await asyncio.gather(*(caller() for _ in range(self._phase.connections)))

    def _goes_on(self, remaining: Iterator[int] | None, stop: float) -> bool:
        return (remaining is None or next(remaining, None) is not None) and time.perf_counter() < stop

    async def _open(self, rate: float) -> None:
        """Requests at drawn times. One that finds all connections taken waits, and its time runs."""
        due, number, running = time.perf_counter(), 0, set[asyncio.Task[None]]()
        stop = due + (self._phase.seconds if self._phase.seconds is not None else float("inf"))
        while True:
            due += self._draw.expovariate(rate)
            if due > stop or number == self._phase.requests:
                break
            number += 1
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            task = asyncio.ensure_future(self._one(due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _one(self, due: float) -> None:
        async with self._free:
            connection = self._kept_alive() or await Connection.open("127.0.0.1", self._port)
            self.lag_s.append(max(0.0, time.perf_counter() - due))
            await self._ask(connection, due)
            if connection.usable:
                self._idle.append((connection, time.perf_counter()))

    def _kept_alive(self) -> Connection | None:
        """The connection that was used last; those that the server may be closing for their silence are let go."""
        while self._idle:
            connection, since = self._idle.pop()
            if connection.usable and time.perf_counter() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _ask(self, connection: Connection, due: float | None) -> Answer | None:
        [operation] = self._draw.choices(self._operations, self._weights)
        request = self._work.make(operation)
        self.sent += 1
        sent = time.perf_counter()
        try:
            answer = await connection.ask(request)
        except LostError as error:
            self.lost += 1
            self.losses.append(f"{operation}: {error}")
            return None
        now = time.perf_counter()
        self.answers[operation][str(answer.status)] += 1
        if answer.status == 503:
            self.refused_s.append(now - sent)
            self.bare_refusals += not answer.retry_after
        elif operation == "recommend" and answer.status == 200:
            self.recommend_s.append(now - (sent if due is None else due))
        self._work.heard(request, answer)
        return answer


def main(arguments: list[str]) -> None:
    """Answer phases until the standard input ends."""
    spec = Spec.model_validate_json(Path(arguments[0]).read_bytes())
    with Path(spec.acknowledged).open("a", encoding="utf-8") as acknowledged:
        work = Work(spec, acknowledged)
        for line in sys.stdin:
            phase = Phase.model_validate_json(line)
            print(asyncio.run(_run(phase, work, spec.port)).to_json(), flush=True)


async def _run(phase: Phase, work: Work, port: int) -> Found:
    return await Load(phase, work, port).run()


if __name__ == "__main__":
    main(sys.argv[1:])
