"""How many CPUs this process may use: what it is bound to, what its container is granted, what the user allows."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
LOAD = Path("/proc/loadavg")
# Rounds that a thread of GNU's OpenMP spins before it sleeps. Without any, a decomposition on two threads is slower
# than on one; with its own default of 300,000 it stands still beside busy processes (docs/performance.md).
SPINS_QUIET, SPINS_BUSY = 1000, 300


def usable_cpus() -> int:
    """The least of the affinity mask, the quota of ``cpu.max`` (cgroup v2) and ``OMP_NUM_THREADS``; at least 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": the second is of nested loops
    limits = [bound, _quota(), int(allowed) if allowed.isdecimal() and int(allowed) else None]
    return min(limit for limit in limits if limit is not None)


def set_threads() -> None:
    """Tell OpenMP, before torch loads it, to wait with next to no spinning and to keep to the container's quota.

    Threads that spin slow all else on the machine, so they do less of it where other processes want its cores. What
    the user has set stays; child processes take it over.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        free = (os.cpu_count() or 1) - _others_running()
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = str(SPINS_QUIET if usable_cpus() <= free else SPINS_BUSY)
    if (quota := _quota()) is not None and quota <= usable_cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(quota))


def _others_running() -> int:
    """Threads of other processes that run or wait for a core at this moment; 0 where nobody says."""
    try:
        running, _ = LOAD.read_text().split()[3].split("/")
        return max(0, int(running) - 1)
    except (OSError, ValueError, IndexError):
        return 0


def _quota() -> int | None:
    """CPUs that the control groups above this process grant, rounded up; ``None`` where they are not limited."""
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return None
    granted = []
    for folder in (CGROUPS / own, *(CGROUPS / own).parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            granted.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError):  # no such file, or "max": no limit here
            continue
    return max(1, min(granted)) if granted else None
