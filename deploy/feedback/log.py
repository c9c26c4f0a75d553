"""The log as a server uses it: records from many threads, committed in groups by one."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.errors import UnavailableError, UsageError
from deploy.feedback.records import Event, Shown, encode_record
from deploy.feedback.upkeep import prune
from deploy.feedback.writer import Limits, Writer

GROUP_BYTES = 1 << 20
GATHER_SECONDS = 0.05
UPKEEP_SECONDS = 3600.0
DAY_SECONDS = 86_400.0


class LogBusyError(UnavailableError):
    """As many records wait as may wait."""


class FeedbackLog:
    """An open log. A record is acknowledged once it survives power loss.

    Group commit: records that come while a sync is under way are written together after it, with one sync for all. So
    the wait of a single record is one sync, at most two, and no timer delays anything that somebody waits for. What
    nobody waits for is gathered for at most GATHER_SECONDS, and goes with the next record that is. Thread-safe.
    """

    def __init__(self, folder: Path, limits: Limits | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Open the log in `folder`, or begin one. Raises UsageError where the folder cannot be written."""
        self.limits = limits or Limits()
        self._clock = clock
        self._changed = threading.Condition()
        self._pending: deque[tuple[bytes, Future[None]]] = deque()
        self._pending_bytes = 0
        self._awaited = False
        self._closing = False
        self.committed, self.groups, self.failed = 0, 0, 0
        try:
            self._writer = Writer(folder, self.limits)
            self._writer.commit(b"", 0)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be written ({error.strerror or error})") from None
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    @property
    def folder(self) -> Path:
        """Where the log lies."""
        return self._writer.folder

    @property
    def dropped_segments(self) -> int:
        """How many segments this object removed because the log was full."""
        return self._writer.dropped_segments

    def submit(self, record: Shown | Event, *, awaited: bool = True) -> "Future[None]":
        """Queue a record without waiting. The future is done when it survives power loss, or has the error.

        awaited: whether somebody waits for that. Records of one thread are written in the order in which it submits
        them. Raises UnavailableError where the log is closed or (LogBusyError) too many wait.
        """
        line = encode_record(record)
        future: Future[None] = Future()
        with self._changed:
            if self._closing:
                raise UnavailableError(f"{self.folder}: closed")
            if self._pending_bytes + len(line) > self.limits.pending_bytes:
                raise LogBusyError(f"{self.folder}: {self._pending_bytes} bytes wait to be written")
            first = not self._pending
            self._pending.append((line, future))
            self._pending_bytes += len(line)
            self._awaited = self._awaited or awaited
            if first or self._gathered():
                self._changed.notify()
        return future

    def append(self, record: Shown | Event) -> None:
        """Write a record; when this returns it survives power loss.

        Raises as `submit`, and UnavailableError where the disk does not take it.
        """
        self.submit(record).result()

    def close(self) -> None:
        """Write what waits, and let go of the files."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        pruned_at = float("-inf")
        while True:
            if self.limits.retain_days is not None and time.monotonic() - pruned_at > UPKEEP_SECONDS:
                pruned_at = time.monotonic()
                self._prune(self.limits.retain_days)
            group = self._take()
            if group is None:
                return
            if group:
                self._commit(group)

    def _take(self) -> list[tuple[bytes, Future[None]]] | None:
        """The next group; empty after an hour without one, None when the log is closed and all is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing, UPKEEP_SECONDS)
            self._changed.wait_for(lambda: not self._pending or self._gathered(), GATHER_SECONDS)
            group, size = [], 0
            while self._pending and size < GROUP_BYTES:
                line, future = self._pending.popleft()
                self._pending_bytes -= len(line)
                if future.set_running_or_notify_cancel():
                    group.append((line, future))
                    size += len(line)
            self._awaited = bool(self._pending)  # somebody may wait for what did not fit
            return None if self._closing and not group and not self._pending else group

    def _gathered(self) -> bool:
        return self._awaited or self._closing or self._pending_bytes >= GROUP_BYTES

    def _commit(self, group: list[tuple[bytes, Future[None]]]) -> None:
        try:
            self._writer.commit(b"".join(line for line, _ in group), len(group))
        except Exception as error:  # whatever it is: those who wait must hear of it, and the next group be tried
            self.failed += len(group)
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            for _, future in group:
                future.set_exception(UnavailableError(f"{self.folder}: cannot be written ({reason})"))
            return
        self.groups += 1
        self.committed += len(group)
        for _, future in group:
            future.set_result(None)

    def _prune(self, days: float) -> None:
        try:
            prune(self.folder, self._clock() - days * DAY_SECONDS)
        except OSError:
            return  # a full disk: appending says so, and the next hour tries again
