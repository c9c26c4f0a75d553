"""The artifact store: each stage's output under the hash of what it was made from, whole or not there at all."""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compress.stage import RunOptions, Stage, StageConfig
from deploy.errors import UsageError

SEAL = "seal.json"
DEFAULT = "~/.cache/slimrec/store"


@dataclass(frozen=True)
class Artifact:
    """A sealed folder. `digest` names its content; `cached` says that this run found it."""

    path: Path
    digest: str
    seconds: float
    cached: bool = True
    peak_rss_mb: float = 0.0
    sealed_at: float = field(default=0.0, compare=False)  # seconds since the epoch


def artifact_key(stage: Stage, config: StageConfig, inputs: Mapping[str, str]) -> str:
    """SHA-256 of stage, version, config and the content digests of the inputs, as 64 hex digits."""
    return _sha256_json(_spec(stage, config, inputs))


def _spec(stage: Stage, config: StageConfig, inputs: Mapping[str, str]) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "version": stage.version,
        "config": config.model_dump(mode="json"),
        "inputs": dict(inputs),
        "fingerprint": dict(stage.fingerprint(config)),
    }


class Store:
    """`root/<stage>/<key>/`, each with its `seal.json`. Safe for several processes: one lock per key."""

    def __init__(self, root: Path | None = None) -> None:
        chosen = root or Path(os.environ.get("SLIMREC_STORE", DEFAULT))
        self.root = chosen.expanduser().absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"store: cannot make this folder: {error.strerror} (got {self.root})") from error

    def find(self, stage: Stage, key: str) -> Artifact | None:
        """The sealed artifact, or None where it is absent or files of it are missing or of another size."""
        folder = self.root / stage.name / key
        try:
            seal, sealed_at = json.loads((folder / SEAL).read_text()), (folder / SEAL).stat().st_mtime
            intact = all((folder / name).stat().st_size == f["size"] for name, f in seal["files"].items())
        except (OSError, ValueError, KeyError, TypeError):  # no seal, or not one that this code wrote
            return None
        if not intact:
            return None
        return Artifact(folder, seal["digest"], seal["seconds"], True, seal["peak_rss_mb"], sealed_at)

    def get_or_build(
        self, stage: Stage, config: StageConfig, inputs: Mapping[str, Artifact], options: RunOptions
    ) -> Artifact:
        """`build_unless_locked`, after waiting for whoever is building."""
        while (found := self.build_unless_locked(stage, config, inputs, options)) is None:
            time.sleep(0.1)
        return found

    def build_unless_locked(
        self, stage: Stage, config: StageConfig, inputs: Mapping[str, Artifact], options: RunOptions
    ) -> Artifact | None:
        """Find the artifact or build it once, whoever asks; None while somebody else builds it. A build that was killed
        starts over, its scratch kept."""
        digests = {name: artifact.digest for name, artifact in inputs.items()}
        key = artifact_key(stage, config, digests)
        parent = self.root / stage.name
        if found := self.find(stage, key):
            return found
        self._check_writable(parent)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(FileLock(parent / f"{key}.lock", blocking=False))
            except Timeout:
                return None
            if found := self.find(stage, key):
                return found
            partial = parent / f"{key}.partial"
            building, scratch = partial / "out", partial / "scratch"
            for stale in (building, parent / key):  # a killed build, or a seal whose files were damaged
                shutil.rmtree(stale, ignore_errors=True)
            building.mkdir(parents=True)
            scratch.mkdir(exist_ok=True)
            start = time.monotonic()
            stage.run(config, {n: a.path for n, a in inputs.items()}, building, replace(options, scratch=scratch))
            seconds = round(time.monotonic() - start, 3)
            seal = write_seal(building, stage, config, digests, seconds, peak_rss_mb())
            shutil.rmtree(scratch)
            building.rename(parent / key)
            _sync(parent)
            partial.rmdir()
        return Artifact(parent / key, seal["digest"], seal["seconds"], False, seal["peak_rss_mb"], time.time())

    def _check_writable(self, folder: Path) -> None:
        try:
            folder.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UsageError(f"store: cannot write here: {error.strerror} (got {self.root})") from error

    def entries(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """All sealed artifacts with their seals, oldest use first."""
        seals = sorted(self.root.glob(f"*/*/{SEAL}"), key=lambda path: path.stat().st_mtime)
        for path in seals:
            with contextlib.suppress(OSError, ValueError):
                yield path.parent, json.loads(path.read_text())

    def past(self) -> dict[str, dict[str, tuple[float, float]]]:
        """stage -> config digest (or "" for the newest of any config) -> (seconds, peak MB) of an earlier build."""
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for _, seal in self.entries():
            cost = (seal["seconds"], seal["peak_rss_mb"])
            found.setdefault(seal["stage"], {}).update({_sha256_json(seal["config"]): cost, "": cost})
        return found

    def remove(self, folder: Path) -> None:
        """Unseal first, so that a kill half-way leaves an artifact that is absent, not damaged."""
        (folder / SEAL).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def write_seal(
    folder: Path, stage: Stage, config: StageConfig, inputs: Mapping[str, str], seconds: float, peak_mb: float
) -> dict[str, Any]:
    """Seal a finished folder: what it was made from (`inputs` by digest), what it holds, what it cost."""
    made = {**_spec(stage, config, inputs), **_contents(folder)}
    seal = {**made, "seconds": seconds, "peak_rss_mb": peak_mb}
    _write_durably(folder / SEAL, json.dumps(seal, indent=1, sort_keys=True) + "\n")
    return seal


def config_digest(config: StageConfig) -> str:
    return _sha256_json(config.model_dump(mode="json"))


def sealed_config(folder: Path) -> dict[str, Any]:
    """The config that a sealed folder was built with; empty where there is no seal."""
    try:
        config: dict[str, Any] = json.loads((folder / SEAL).read_text())["config"]
    except FileNotFoundError:
        return {}
    return config


def link_tree(source: Path, target: Path) -> None:
    """Hand a sealed folder on under another name, without its seal and without a copy of its bytes where links work."""
    for path in sorted(p for p in source.rglob("*") if p.is_file() and p.name != SEAL):
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, to)
        except OSError:
            shutil.copyfile(path, to)


def peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contents(folder: Path) -> dict[str, Any]:
    files = {
        path.relative_to(folder).as_posix(): {"sha256": file_sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {"files": files, "digest": "sha256:" + _sha256_json({n: f["sha256"] for n, f in files.items()})}


def _sha256_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
