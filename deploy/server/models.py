"""Which recommender answers whom: one bundle for all, or the releases of a folder."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.releases.serving import Serving
from deploy.runtime import Recommender
from deploy.server.logs import say

REFRESH_SECONDS = 1.0


class Models(Protocol):
    """`deploy.releases.Serving` of recommenders is one. Called from several threads."""

    @property
    def experiment_name(self) -> str | None:
        """The experiment under way, which the feedback log names beside every answer."""

    def model_for(self, user: str | None) -> Recommender:
        """Who answers `user` (opaque, or None)."""

    def shadow_for(self, user: str | None) -> Recommender | None:
        """Who is asked too, without its answer being shown."""


@dataclass(frozen=True)
class OneModel:
    """The same recommender for everybody."""

    model: Recommender

    @property
    def experiment_name(self) -> None:
        """There is none."""

    def model_for(self, _user: str | None) -> Recommender:
        return self.model

    def shadow_for(self, _user: str | None) -> None:
        return None


def open_models(source: Path, load: Callable[[Path], Recommender]) -> OneModel | Serving[Recommender]:
    """The bundle at `source`, or where it is a folder of releases what is active there. Raises as `load` and
    `open_active`."""
    return Serving(source, load) if (source / "releases").is_dir() else OneModel(load(source))


@contextmanager
def following(models: OneModel | Serving[Recommender]) -> Iterator[None]:
    """Meanwhile take up changed releases within REFRESH_SECONDS; the log hears of each change and problem."""
    if isinstance(models, OneModel):
        yield
        return
    stopped = threading.Event()

    def follow() -> None:
        known: tuple[str, ...] = ()
        replaced = False
        while True:
            for line in set(models.problems) - set(known):
                say(logging.WARNING, "release left out", why=line)
            known = models.problems
            if stopped.wait(REFRESH_SECONDS):
                return
            if replaced:  # a second ago: requests have let go of what answered before, cycles hold it still
                gc.collect()
            if replaced := models.refresh():
                say(logging.INFO, "releases changed", active=models.model_for(None).release)

    thread = threading.Thread(target=follow, name="releases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
