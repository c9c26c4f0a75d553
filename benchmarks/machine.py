"""The machine a number was measured on, and a stable name for it."""

import hashlib
import json
import math
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.result import Machine

# The instructions that decide how fast fp32 and INT8 kernels run.
FLAGS = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "slimrec", "tokenizers", "torch", "transformers")

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_STAT = Path("/proc/stat")
_PRESSURE = Path("/proc/pressure/cpu")
_FIRST_CORE = Path("/sys/devices/system/cpu/cpu0")
_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def describe_machine() -> Machine:
    """The machine as it is now, load included."""
    info = _cpu_info()
    return Machine(
        cpu=info.get("model name") or platform.processor() or platform.machine(),
        flags=_flags(info),
        cores=cores_allowed(),
        versions=versions(),
        system=f"{platform.system()} {platform.machine()}",
        governor=_text(_FIRST_CORE / "cpufreq" / "scaling_governor") or None,
        load_average=[round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        gpu=gpu_name(),
        cores_online=os.cpu_count(),
        threads_per_core=_threads_per_core(),
        cpu_quota=_cgroup_quota(),
        memory_mb=_memory_mb(),
        memory_limit_mb=_memory_limit_mb(),
        mhz=_number(_text(_FIRST_CORE / "cpufreq" / "cpuinfo_max_freq"), 1e-3),
        waiting=_waiting(),
    )


def fingerprint(device: str) -> str:
    """64 hex digits that change when the machine or its runtimes do, and not with its load.

    `device`: `cpu` or `cuda`; the GPU counts for the latter only.
    """
    now = describe_machine()
    facts = now.model_dump(include={"cpu", "flags", "cores", "versions", "system"})
    # Our own version is the stage's business: a release that measures alike need not measure again.
    facts["versions"].pop("slimrec", None)
    facts["device"] = [device, now.gpu if device == "cuda" else None]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def cores_allowed() -> int:
    """How many cores this process may use: affinity, and the cgroup's quota rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _cgroup_quota()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def versions() -> dict[str, str]:
    """Versions of Python and of what is installed of `PACKAGES`; imports none of them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The git commit this code runs from (`+` appended where the tree differs), or `slimrec <version>`."""
    root = Path(__file__).resolve().parents[1]
    # An installed copy may lie inside somebody else's repository.
    if (root / ".git").exists():
        head = _git(root, "rev-parse", "HEAD")
        if head:
            code = ("benchmarks", "compress", "deploy", ":!benchmarks/results")  # a study's rows are written one by one
            changed = _git(root, "status", "--porcelain", "--", *code)
            return head + ("+" if changed else "")
    return f"slimrec {versions().get('slimrec', 'unknown')}"


def gpu_name() -> str | None:
    """The first NVIDIA GPU's model, from the driver; None where there is no driver."""
    if not _NVIDIA.is_dir():
        return None
    for file in sorted(_NVIDIA.glob("*/information")):
        for line in _text(file).splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                return value.strip()
    return None


def _cpu_info() -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(_CPUINFO).splitlines())
    info: dict[str, str] = {}
    for key, _, value in pairs:
        info.setdefault(key.strip(), value.strip())
    return info


def _flags(info: dict[str, str]) -> list[str]:
    present = set(info.get("flags", info.get("Features", "")).split())
    return [flag for flag in FLAGS if flag in present]


def _cgroup_places() -> list[Path]:
    """The process's own cgroup and its parents: the limit of any of them counts."""
    # Version 2 has one hierarchy, named after "0::".
    own = next((line[3:] for line in _text(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")), "/")
    folder = _CGROUP / own.strip().lstrip("/")
    return [folder, *folder.parents]


def _cgroup_quota() -> float | None:
    quotas: list[float] = []
    for place in _cgroup_places():
        fields = _text(place / "cpu.max").split()
        if len(fields) == 2 and fields[0] != "max":
            quotas.append(int(fields[0]) / int(fields[1]))
    legacy = [_text(_CGROUP / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if all(legacy) and int(legacy[0]) > 0:
        quotas.append(int(legacy[0]) / int(legacy[1]))
    return min(quotas, default=None)


def _threads_per_core() -> int | None:
    """From a list such as `0,32` or `0-1`."""
    siblings = _text(_FIRST_CORE / "topology" / "thread_siblings_list")
    if not siblings:
        return None
    ends = [[int(end) for end in part.split("-")] for part in siblings.split(",")]
    return sum(part[-1] - part[0] + 1 for part in ends)


def _memory_mb() -> float | None:
    total = next((line.split()[1] for line in _text(_MEMINFO).splitlines() if line.startswith("MemTotal:")), "")
    return _number(total, 1024 / 1e6)


def _memory_limit_mb() -> float | None:
    """The tightest limit of the cgroup and its parents; one above the memory limits nothing."""
    limits = [_number(_text(place / "memory.max"), 1e-6) for place in _cgroup_places()]
    limits.append(_number(_text(_CGROUP / "memory" / "memory.limit_in_bytes"), 1e-6))
    lowest = min((limit for limit in limits if limit is not None), default=None)
    memory = _memory_mb()
    return lowest if lowest is not None and (memory is None or lowest < memory) else None


def _waiting() -> float | None:
    fields = next((line.split() for line in _text(_PRESSURE).splitlines() if line.startswith("some ")), [])
    share = next((field.removeprefix("avg60=") for field in fields if field.startswith("avg60=")), "")
    return _number(share, 0.01)


def _number(text: str, unit: float) -> float | None:
    """`text` times `unit`; None where it is no number, such as a cgroup's `max`."""
    try:
        return round(float(text) * unit, 4)
    except ValueError:
        return None


@dataclass(frozen=True)
class CpuTime:
    """Seconds of CPU since boot, over all cores, and this process's own with its finished children."""

    busy: float
    steal: float
    total: float
    own: float

    @classmethod
    def now(cls) -> "CpuTime | None":
        """None where the kernel does not tell."""
        fields = _text(_STAT).partition("\n")[0].split()
        if fields[:1] != ["cpu"] or len(fields) < 9:
            return None
        user, nice, system, idle, iowait, irq, softirq, steal = (int(f) / os.sysconf("SC_CLK_TCK") for f in fields[1:9])
        busy = user + nice + system + irq + softirq
        return cls(busy, steal, busy + idle + iowait + steal, sum(os.times()[:4]))

    def since(self, start: "CpuTime") -> tuple[float, float]:
        """(share of the time that other processes took, share that the hypervisor gave to others)."""
        total = max(self.total - start.total, 1e-9)
        elsewhere = (self.busy - start.busy) - (self.own - start.own)
        return max(0.0, elsewhere / total), max(0.0, (self.steal - start.steal) / total)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
