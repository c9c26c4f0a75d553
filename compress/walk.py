"""The loop that walks the table: steps whose inputs are there are found or built, here and by workers beside.

Walkers share nothing but the store: whoever holds a step's lock builds it, the others take another step meanwhile.
"""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.pipeline import (
    AFTER_GATE,
    Run,
    Step,
    check_sources,
    gate_of,
    selected,
    source_helps,
    step_inputs,
    steps,
    teacher_choice,
)
from compress.recipe import Recipe
from compress.search.trials import run_search
from compress.stage import RunOptions
from compress.store import Artifact, Store
from deploy.errors import UsageError

PAUSE = 0.1  # seconds between two looks at what others are building


def run_pipeline(recipe: Recipe, store: Store, options: RunOptions, jobs: int = 1) -> Run:
    """Walk the table; sealed steps are found, others built, up to `jobs` at once, each in a process of its own.

    Students whose teacher fails the gate are left out. A search runs its trials one after another when all chains are
    there. Measurements run alone, after everything else.
    """
    check_sources(recipe)
    run = Run()
    if recipe.search is not None:
        run = _walked(recipe, store, options, jobs, run, gather=False)
        recipe = run_search(recipe, run, partial(_build, store, options), options.log)
    return _walked(recipe, store, options, jobs, run)


def _walked(recipe: Recipe, store: Store, options: RunOptions, jobs: int, run: Run, gather: bool = True) -> Run:
    with _workers(recipe, store, options, jobs - 1):
        return Walk(recipe, store, options, run, helped=jobs > 1, gather=gather).to_the_end()


def _build(store: Store, options: RunOptions, step: Step, inputs: Mapping[str, Artifact]) -> Artifact:
    start = time.monotonic()
    speaking = replace(options, log=partial(_say, options, step.title))
    artifact = store.get_or_build(step.stage, step.config, inputs, speaking)
    took = "sealed" if artifact.cached else f"{time.monotonic() - start:.1f} s"
    options.log(f"{step.title:<32} {took}")
    return artifact


class Walk:
    """One walker, which goes on from what `run` has. A `helper` only builds: it tells nothing else, and leaves what
    gathers chains to the one it helps."""

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        options: RunOptions,
        run: Run | None = None,
        helped: bool = False,
        helper: bool = False,
        gather: bool = True,
    ) -> None:
        self.recipe, self.store, self.options, self.helped, self.helper = recipe, store, options, helped, helper
        self.run, self.started = run or Run(), time.time()
        self.taken: set[Path] = set()
        self.others_build = False  # whether somebody held the lock of a step that could be taken
        every = [step for step in steps(recipe) if gather or step.stage.scope != "gather"]
        self.waiting = [step for step in every if (step.stage.name, step.chain) not in self.run.artifacts]
        self.order = {(step.stage.name, step.chain): place for place, step in enumerate(every)}

    def to_the_end(self) -> Run:
        while self.waiting:
            self.others_build = False
            if not self._advance():
                if not self.others_build:
                    waiting = ", ".join(step.title for step in self.waiting)
                    raise RuntimeError(f"nobody builds what these steps wait for: {waiting}")
                time.sleep(PAUSE)
        return self.run

    def _advance(self) -> bool:
        """Take the first step that can be taken; False where all wait for what others build."""
        for step in self.waiting:
            if step.stage.scope == "gather":
                if step is not self.waiting[0]:
                    return False
                self._sort()
            inputs = self._inputs(step)
            if self._is_left_out(step) or (inputs is not None and self._take(step, inputs)):
                self.waiting.remove(step)
                return True
        return False

    def _take(self, step: Step, inputs: dict[str, Artifact]) -> bool:
        start = time.monotonic()
        speaking = replace(self.options, log=partial(_say, self.options, step.title))
        artifact = self.store.build_unless_locked(step.stage, step.config, inputs, speaking)
        if artifact is None:
            self.others_build = True
            return False
        helped = self.helped and artifact.sealed_at >= self.started and artifact.path not in self.taken
        self.taken.add(artifact.path)
        new = not artifact.cached or helped
        self.run.artifacts[step.stage.name, step.chain] = replace(artifact, cached=not new)
        self.run.steps.append(step)
        if not artifact.cached:
            self.options.log(f"{step.title:<32} {time.monotonic() - start:.1f} s")
        elif not new:
            self._tell(f"{step.title:<32} sealed")
        return True

    def _sort(self) -> None:
        """What was built in any order is gathered in the recipe's."""
        self.run.artifacts = dict(sorted(self.run.artifacts.items(), key=lambda item: self.order[item[0]]))
        self.run.steps.sort(key=lambda step: self.order[step.stage.name, step.chain])

    def _inputs(self, step: Step) -> dict[str, Artifact] | None:
        """None where one is not there yet."""
        try:
            if step.chain is not None and step.stage.name == "distil":
                self._choose_teacher(step, step.chain.variant)
                if step.chain.role == "student":
                    self._ask_gate(step.chain.variant)
            return step_inputs(step, self.run.artifacts)
        except KeyError:
            return None

    def _is_left_out(self, step: Step) -> bool:
        if step.chain is not None and step.chain.role == "student" and step.stage.name in AFTER_GATE:
            gate = self.run.gates.get(step.chain.variant)
            return gate is not None and not gate.passed
        return step.stage.name == "pack" and selected(self.run.artifacts) is None

    def _choose_teacher(self, step: Step, variant: str) -> None:
        if len(step.teachers) < 2 or variant in self.run.choices:
            return
        choice = self.run.choices[variant] = teacher_choice(step, self.run.artifacts)
        told = ", ".join(f"{name} {value:.4f}" for name, value in choice.valid.items())
        helps = source_helps(self.recipe, choice)
        verdict = "" if helps is None else f"; the source {'helps' if helps else 'does not help'}"
        self._tell(f"{variant} learns from {choice.chosen} (validation NDCG@10 {told}){verdict}")

    def _ask_gate(self, variant: str) -> None:
        if variant in self.run.gates:
            return
        self.run.gates[variant] = gate = gate_of(self.recipe, variant, self.run.artifacts)
        verdict = "passed" if gate.passed else "failed: no distillation; the compressed control ships"
        self._tell(
            f"teacher gate of {variant}: teacher {gate.teacher_valid:.4f}, control {gate.control_valid:.4f}, "
            f"difference {gate.difference:+.4f} [{gate.ci95[0]:+.4f}, {gate.ci95[1]:+.4f}]: {verdict}"
        )

    def _tell(self, line: str) -> None:
        if not self.helper:
            self.options.log(line)


def _say(options: RunOptions, title: str, line: str) -> None:
    options.log(f"  {title}: {line}")


@contextlib.contextmanager
def _workers(recipe: Recipe, store: Store, options: RunOptions, count: int) -> Iterator[None]:
    """Helpers in processes of their own (torch's seed and threads are a process's); what they say is told here."""
    context = multiprocessing.get_context("spawn")
    lines = context.SimpleQueue()
    arguments = (recipe, store.root, replace(options, log=lines.put, progress=_silent), os.getpid())
    workers = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    teller = threading.Thread(target=_tell_all, args=(lines.get, options), daemon=True)
    teller.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        lines.put(None)
        teller.join()


def _tell_all(next_line: Callable[[], str | None], options: RunOptions) -> None:
    for line in iter(next_line, None):
        options.log(line)


def _silent(items: Iterable[Any], _what: str, _total: int | None) -> Iterator[Any]:
    return iter(items)


def _work(recipe: Recipe, root: Path, options: RunOptions, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(UsageError):  # the parent meets the same mistake and reports it
        Walk(recipe, Store(root), options, helper=True, gather=False).to_the_end()


def _end_with(parent: int) -> None:
    """A killed parent must not leave a worker behind that holds locks."""
    while os.getppid() == parent:
        time.sleep(PAUSE)
    os._exit(1)
