"""The releases that answer, kept open by a server and exchanged while it runs."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from deploy.errors import SlimrecError, UsageError
from deploy.releases.opening import open_active
from deploy.releases.pointer import read_pointer
from deploy.releases.shelf import Shelf
from deploy.releases.split import Experiment

T = TypeVar("T")


@dataclass(frozen=True)
class _Open(Generic[T]):
    """What answers now: the active release, and those of the experiment that could be opened."""

    serial: int | None
    active: str
    models: Mapping[str, T]
    experiment: Experiment | None
    problems: tuple[str, ...]


class Serving(Generic[T]):
    """The models of a releases folder, by user. Thread-safe: a request keeps the model it was given.

    A change of releases needs no restart: `refresh`, every second or so, reads one small file. While models are
    exchanged the old and the new are in memory.
    """

    def __init__(self, root: Path, load: Callable[[Path], T]) -> None:
        """Open what is active in `root`; `load` and what is raised are those of `open_active`."""
        self._root, self._load = root, load
        self._changing = threading.Lock()
        self._now = self._open({})

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each release that should answer and does not."""
        return self._now.problems

    @property
    def experiment(self) -> Experiment | None:
        """The one under way; `Shown.experiment` records its name."""
        return self._now.experiment

    @property
    def experiment_name(self) -> str | None:
        """The name of the experiment under way."""
        return None if self.experiment is None else self.experiment.name

    def model_for(self, user: str | None) -> T:
        """The model that answers `user`; None has the active release."""
        now = self._now
        arm = now.experiment.answers(user) if now.experiment else None
        return now.models.get(arm or now.active, now.models[now.active])

    def shadow_for(self, user: str | None) -> T | None:
        """The model that is asked too, its answer recorded (`Shown.role`) and not shown."""
        now = self._now
        shadow = now.experiment.shadow(user) if now.experiment else None
        return now.models.get(shadow) if shadow else None

    def refresh(self) -> bool:
        """Look whether the pointer changed, and open what it names; whether other models answer now.

        What was open answers until then, and goes on answering where nothing that the pointer names opens.
        """
        with self._changing:
            before = self._now
            serial = _serial(self._root)
            if serial is None or serial == before.serial:
                return False  # None: damaged while it runs; what is open is as good as ever
            try:
                self._now = self._open(before.models)
            except SlimrecError as error:
                # The serial is taken, so that what does not open is not tried again every second.
                self._now = replace(before, serial=serial, problems=error.lines)
                return False
            return True

    def _open(self, models: Mapping[str, T]) -> _Open[T]:
        shelf = Shelf(self._root)
        here = {shelf.folder(digest): model for digest, model in models.items()}

        def load(folder: Path) -> T:
            return here[folder] if folder in here else self._load(folder)

        before = _serial(self._root)
        opened = open_active(self._root, load)
        active, problems = opened.release.digest, list(opened.passed_over)
        now = {active: opened.value}
        pointer = read_pointer(self._root)
        experiment = pointer.experiment if pointer.active == active else None
        for digest in sorted(experiment.digests() if experiment else ()):
            try:
                shelf.check_name(digest)
                now[digest] = load(shelf.folder(digest))
            except SlimrecError as error:
                problems += [f"{digest[:12]}: {line}" for line in error.lines]
        # Another release became active meanwhile: the next look must see it.
        missed = pointer.active != active and pointer.serial != before
        return _Open(None if missed else pointer.serial, active, now, experiment, tuple(problems))


def _serial(root: Path) -> int | None:
    try:
        return read_pointer(root).serial
    except UsageError:
        return None
