"""The machine's description, read from files that stand in for the kernel's."""

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import machine


def test_describes_this_machine() -> None:
    now = machine.describe_machine()
    assert now.cpu
    assert now.cores >= 1
    assert {"python", "numpy", "onnxruntime"} <= now.versions.keys()


def test_fingerprint_ignores_load_and_sees_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine.fingerprint("cpu")
    assert re.fullmatch("[0-9a-f]{64}", before)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (99.0, 98.0, 97.0))
    assert machine.fingerprint("cpu") == before
    assert machine.fingerprint("cuda") != before
    monkeypatch.setattr(machine, "versions", lambda: {"onnxruntime": "0.0"})
    assert machine.fingerprint("cpu") != before


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("model name : Some CPU\nflags : fpu avx2 sse avx512_vnni\n", ["avx2", "avx512_vnni"]),
        ("Features : fp asimd asimddp crc32\n", ["asimd", "asimddp"]),
        ("", []),
    ],
)
def test_flags(text: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine.describe_machine().flags == flags


@pytest.mark.parametrize(("limit", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8)])
def test_cores_under_a_cgroup(limit: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cores_allowed() == cores


def test_commit_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "benchmarks" / "machine.py"))
    assert machine.commit().startswith("slimrec ")


def test_a_commit_is_marked_where_code_differs_and_not_for_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    code = tmp_path / "benchmarks" / "machine.py"
    code.parent.mkdir()
    code.write_text("a = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    monkeypatch.setattr(machine, "__file__", str(code))
    assert re.fullmatch("[0-9a-f]{40}", machine.commit())
    (tmp_path / "benchmarks" / "results").mkdir()
    (tmp_path / "benchmarks" / "results" / "new.json").write_text("{}")
    assert re.fullmatch("[0-9a-f]{40}", machine.commit())
    code.write_text("a = 2\n")
    assert re.fullmatch("[0-9a-f]{40}[+]", machine.commit())


def test_gpu_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path)
    assert machine.gpu_name() is None
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA Example\nIRQ: 1\n")
    assert machine.gpu_name() == "NVIDIA Example"


def test_limits_and_frequency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cgroup of 1.5 CPUs and 2 GB on a machine with 8 GB and two threads a core."""
    core = tmp_path / "cpu0"
    (core / "cpufreq").mkdir(parents=True)
    (core / "topology").mkdir()
    (core / "cpufreq" / "scaling_governor").write_text("powersave\n")
    (core / "cpufreq" / "cpuinfo_max_freq").write_text("3400000\n")
    (core / "topology" / "thread_siblings_list").write_text("0,32\n")
    (tmp_path / "meminfo").write_text("MemTotal:        8000000 kB\nMemFree: 1 kB\n")
    (tmp_path / "pressure").write_text("some avg10=1.00 avg60=25.50 avg300=3.00 total=1\nfull avg10=0.00\n")
    (tmp_path / "cpu.max").write_text("150000 100000")
    (tmp_path / "memory.max").write_text("2000000000\n")
    monkeypatch.setattr(machine, "_FIRST_CORE", core)
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_PRESSURE", tmp_path / "pressure")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    now = machine.describe_machine()
    assert (now.governor, now.mhz, now.threads_per_core) == ("powersave", 3400, 2)
    assert (now.memory_mb, now.memory_limit_mb, now.cpu_quota) == (8192, 2000, 1.5)
    assert now.waiting == 0.255
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.describe_machine().memory_limit_mb is None
    (core / "topology" / "thread_siblings_list").write_text("0-3\n")
    assert machine.describe_machine().threads_per_core == 4


def test_a_machine_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_CORE", "_MEMINFO", "_PRESSURE", "_STAT", "_CGROUP"):
        monkeypatch.setattr(machine, name, tmp_path / "absent")
    now = machine.describe_machine()
    assert (now.governor, now.mhz, now.memory_mb, now.memory_limit_mb, now.waiting) == (None,) * 5
    assert machine.CpuTime.now() is None


def test_what_others_took_meanwhile() -> None:
    """Of 100 core-seconds 60 were busy and 5 stolen; 20 of the busy ones were our own."""
    start = machine.CpuTime(busy=10.0, steal=1.0, total=50.0, own=3.0)
    end = machine.CpuTime(busy=70.0, steal=6.0, total=150.0, own=23.0)
    assert end.since(start) == (pytest.approx(0.4), pytest.approx(0.05))
    assert start.since(start) == (0, 0)
    now = machine.CpuTime.now()
    assert now is None or now.total >= now.busy > 0
