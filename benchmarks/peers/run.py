"""One peer after another: environment, training, accuracy, latency beside ours, fresh processes; then its row."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import ndcg, ranks_of, summarise
from benchmarks.case_table import CaseTable
from benchmarks.machine import commit, describe_machine, fingerprint
from benchmarks.peers.environment import Installed, build, interpreter
from benchmarks.peers.export import Exported
from benchmarks.peers.measure import Conditions, Served, fresh_processes, histories, side_by_side
from benchmarks.peers.plan import OURS, Peer, Plan, digest
from benchmarks.peers.process import AdapterProcess, PeerError
from benchmarks.peers.record import TIMED_ALONE, PeerRow, Training
from benchmarks.peers.train import Limits, sealed, train
from benchmarks.result import Metrics, NotMeasured
from benchmarks.studies import compared
from deploy.bundle import open_bundle
from deploy.errors import SlimrecError

DEPTH = 100
"""Places ranked per case; a target below counts as not found."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """All that rows have in common. `environments`: one folder per environment; `out`: what belongs to this recipe."""

    plan: Plan
    data: Exported
    bundle: Path
    environments: Path
    out: Path
    limits: Limits
    conditions: Conditions
    log: Log = lambda _line: None

    def train_only(self, names: Sequence[str]) -> None:
        """Environments and trainings, as far as they go: what needs no quiet machine."""
        for name in names:
            try:
                self._installed(name)
                self._trained(name)
            except SlimrecError as error:
                self.log(f"{name}: {error}")

    def rows(self, names: Sequence[str], table: CaseTable[PeerRow]) -> None:
        """Measure the peers whose row is missing, of another key or incomplete; each is saved as it is there."""
        known = {row.name: row for row in table.read()}
        for name in names:
            if name in known and known[name].key == self._key(name) and known[name].done:
                self.log(f"{name}: measured already")
                continue
            self.log(f"{name}: {self.plan.peers[name].what}")
            table.save(self._row(name), self.plan.peers)

    def discard(self, names: Sequence[str]) -> None:
        """Remove the environments of these peers; their sizes are in the rows."""
        for environment in {self.plan.peers[name].environment for name in names}:
            shutil.rmtree(self.environments / environment, ignore_errors=True)

    def _key(self, name: str) -> str:
        peer = self.plan.peers[name]
        said = [peer.model_dump(), self.plan.environments[peer.environment].model_dump(), self.data.digest]
        return digest([*said, self._digest, self.limits.model_dump(), self.conditions.model_dump(), fingerprint("cpu")])

    @cached_property
    def _digest(self) -> str:
        return open_bundle(self.bundle).digest

    def _row(self, name: str) -> PeerRow:
        peer = self.plan.peers[name]
        row: dict[str, Any] = {"name": name, "key": self._key(name), "what": peer.what, "not_measured": []}
        steps: tuple[tuple[str, Callable[[str], dict[str, Any]]], ...] = (
            ("environment", self._environment_facts),
            ("training", lambda name: {"training": self._trained(name)}),
            ("accuracy", self._accuracy),
            ("latency", self._latency),
            ("fresh processes", self._fresh),
        )
        for what, step in steps:
            try:
                row |= step(name)
            except SlimrecError as error:
                self.log(f"{name}: {what}: {error}")
                row["not_measured"].append(NotMeasured(what=what, why=" ".join(error.lines)))
                if what in ("environment", "training"):
                    break
        return PeerRow.model_validate(
            {
                **row,
                "seeds": [self.limits.seed],
                "dataset": self.data.dataset,
                "machine": describe_machine(),
                "commit": commit(),
            }
        )

    def _installed(self, name: str) -> Installed:
        environment = self.plan.peers[name].environment
        folder = self.environments / environment
        return build(environment, self.plan.environments[environment], folder, self._log_file(environment))

    def _log_file(self, name: str) -> Path:
        path = self.out.absolute() / "logs" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _process(self, name: str) -> AdapterProcess:
        peer = self.plan.peers[name]
        python = interpreter(self.environments.absolute() / peer.environment)
        return AdapterProcess(python, peer.module, self._log_file(name), threads=self.conditions.threads)

    def _environment_facts(self, name: str) -> dict[str, Any]:
        installed = self._installed(name)
        with self._process(name) as process:
            return process.ask("versions") | {"environment_mb": installed.size_bytes / 1e6}

    def _folder(self, peer: Peer) -> Path:
        key = peer.training_key(self.data.digest, self.limits.model_dump())
        return self.out / "trained" / f"{peer.adapter}-{key}"

    def _trained(self, name: str) -> Training | None:
        peer = self.plan.peers[name]
        if name == OURS:
            return None
        return train(peer, self.data.file, self.limits, self._folder(peer), lambda: self._process(name))

    def _served(self, name: str) -> Served:
        peer = self.plan.peers[name]
        folder = self._folder(peer)
        trained = None if name == OURS else sealed(folder)
        settings = (trained.settings if trained else {}) | peer.serving
        if name == OURS:
            settings |= {"bundle": str(self.bundle.absolute())}
        opens = {"folder": str((folder / "model").absolute()), "settings": settings}
        return Served(lambda: self._process(name), opens)

    def _ranks(self, name: str) -> tuple[NDArray[np.int32], Metrics]:
        """Of the test cases, asked once for a key."""
        scratch = self.out.absolute() / "ranked"
        scratch.mkdir(exist_ok=True)
        asked, answers = scratch / "test.npz", scratch / f"{name}-{self._key(name)[:16]}.npy"
        if not answers.is_file():
            np.savez(asked, offsets=self.data.split.test.offsets, rows=self.data.split.test.rows)
            with self._served(name).opened() as process:
                process.ask("rank", histories=str(asked), out=str(answers), depth=DEPTH, timeout_s=3600)
        top = np.load(answers, allow_pickle=False)
        if len(top) != len(self.data.targets) or top.ndim != 2:
            raise PeerError(f"rank: {len(self.data.targets)} cases were asked (got an answer of shape {top.shape})")
        ranks = ranks_of(top, self.data.targets)
        return ranks, Metrics.model_validate(summarise(ranks, top, self.data.split.n_items))

    def _accuracy(self, name: str) -> dict[str, Any]:
        if name != OURS and self.limits.batches:
            raise PeerError(TIMED_ALONE)
        ranks, metrics = self._ranks(name)
        if name == OURS:
            return {"test": metrics}
        ours, _ = self._ranks(OURS)
        (found,) = compared([(OURS, ndcg(ours), name, ndcg(ranks))])
        return {"test": metrics, "comparison": found.model_copy(update={"p": None, "p_holm": None})}

    def _latency(self, name: str) -> dict[str, Any]:
        asked = histories(self.data.split, self.conditions)
        return {"latency": side_by_side(self._served(name), self._served(OURS), asked, self.conditions)}

    def _fresh(self, name: str) -> dict[str, Any]:
        history = histories(self.data.split, self.conditions)[0]
        fresh, size = fresh_processes(self._served(name), history, self.conditions)
        return {"fresh": fresh, "size_bytes": size}
