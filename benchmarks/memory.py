"""The memory of this process. Standard library only: it is read in other projects' environments too."""

import sys
from pathlib import Path


def peak_rss_mb() -> float:
    """Peak resident set of this process in MB (10^6 bytes).

    Linux: VmHWM, because `ru_maxrss` outlives exec and would report a large parent's peak.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kib) * 1024 / 1e6
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes on macOS, KiB elsewhere
