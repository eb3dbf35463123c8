"""What of this machine is at hand: memory, and whether its cores are whole ones."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

CGROUP, PROC = Path("/sys/fs/cgroup"), Path("/proc")
GPU = Path("/dev/nvidiactl")
"""There where NVIDIA's driver is."""
LEFT_FREE = 0.1
"""Share of the memory that jobs leave to Snakemake and the system."""
LEAST_MB, LEAST_WITH_GPU_MB = 2048, 6144
"""For a job, however many cores the machine has: PyTorch, its CUDA context where there is one, and room to work."""


def share_of_memory_mb(threads: int, cores: int, *, least: int = 0) -> int:
    """MiB for a job of `threads` among jobs that fill `cores`; all of it where the job fills them alone.

    least: what it gets in any case, if the machine has so much; fewer jobs run side by side then.
    """
    there = machine_memory_mb() * (1 - LEFT_FREE)
    return max(1, int(min(there, max(least, there * threads / cores))))


def machine_memory_mb() -> int:
    """MiB of this machine, or of the control group if that may have less."""
    lines = (PROC / "meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    limits = [total]
    for folder in control_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min(limits) // 2**20


def owns_cores() -> bool:
    """Whether time on these cores is this process's to divide: not where a quota gives it a part of them only."""
    for folder in control_groups("cpu"):
        with contextlib.suppress(OSError, IndexError):
            if (folder / "cpu.max").read_text().split()[0] != "max":
                return False
        with contextlib.suppress(OSError, ValueError):
            if int((folder / "cpu.cfs_quota_us").read_text()) > 0:
                return False
    return True


def control_groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, from its own to the root, in either hierarchy."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUP / controllers if controllers else CGROUP
        folder = Path(path.lstrip("/"))
        yield from (root / part for part in (folder, *folder.parents))
