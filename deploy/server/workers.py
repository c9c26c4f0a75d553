"""The threads that ask the model, and the bounded queue in front of them."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from deploy.errors import UnavailableError

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """At most `threads` calls run and `waiting` wait; one more is refused at once, and none is waited for longer than
    `seconds`. Used from one event loop.
    """

    def __init__(self, threads: int, waiting: int, seconds: float) -> None:
        self.most, self._seconds = threads + waiting, seconds
        self._pool = ThreadPoolExecutor(threads, "model")
        self.taken = 0
        """Calls that run or wait."""

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`call`'s answer. Raises UnavailableError where the queue is full or the answer takes too long."""
        if self.taken >= self.most:
            raise UnavailableError(f"queue: full, {self.taken} requests are before this one")
        self.taken += 1
        future = self._pool.submit(call, *args, **kwargs)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise UnavailableError(f"queue: no answer within {self._seconds:g} s") from None
        finally:
            if future.done():
                self.taken -= 1
            else:  # it runs on though nobody waits: its place is free when it is done
                loop = asyncio.get_running_loop()
                future.add_done_callback(lambda _: self._release_in(loop))

    def _release_in(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody counts any more
            loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self.taken -= 1


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
