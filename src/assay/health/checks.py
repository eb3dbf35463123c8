"""The checks, each of which says what it found and, where that will not do, what to do."""

import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.image.lock import ImageLock
from assay.image.verify import differences
from assay.isolation.machine import GPU

if TYPE_CHECKING:
    import torch

LEAST_MEMORY = 2**30
LEAST_DISK = 2**30
MOST_SKEW = 2.0
"""Seconds between this node's clock and the one that dates its files."""


@dataclass(frozen=True)
class Finding:
    """What one check found. `ok` is null where there was nothing to check."""

    check: str
    ok: bool | None
    found: str
    advice: str = ""

    def text(self) -> str:
        mark = {True: "ok", False: "FAILED", None: "-"}[self.ok]
        return f"{mark:6}  {self.check}: {self.found}" + (f"; {self.advice}" if self.ok is False else "")


@dataclass(frozen=True)
class Node:
    """Where the checks look."""

    device: "torch.device"
    results: Path
    image_lock: Path | None


def all_findings(node: Node) -> list[Finding]:
    """Every check in turn: one that fails does not hide the next."""
    return [check(node) for check in CHECKS]


def gpu(node: Node) -> Finding:
    """A machine that has a GPU can use it."""
    import torch

    if node.device.type == "cuda":
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("GPU", True, ", ".join(names))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if GPU.exists() and hidden not in {"", "-1"}:
        return Finding(
            "GPU",
            False,
            f"this machine has NVIDIA's driver, but PyTorch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU",
            "look at nvidia-smi and CUDA_VISIBLE_DEVICES; to run on the CPU on purpose, hide them: "
            "CUDA_VISIBLE_DEVICES=",
        )
    return Finding("GPU", None, "none" if hidden is None else f"none: CUDA_VISIBLE_DEVICES is '{hidden}'")


def driver(node: Node) -> Finding:
    """The driver is not older than the CUDA that PyTorch was built with."""
    import torch

    if node.device.type != "cuda" or torch.version.cuda is None:
        return Finding("driver", None, "not asked, there is no GPU to use")
    import pynvml

    pynvml.nvmlInit()
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
        supported = pynvml.nvmlSystemGetCudaDriverVersion_v2() // 1000
    finally:
        pynvml.nvmlShutdown()
    needed = int(torch.version.cuda.partition(".")[0])
    found = f"{version} for CUDA {supported}, PyTorch has CUDA {torch.version.cuda}"
    return Finding(
        "driver", supported >= needed, found, "update the driver or choose an image with an older CUDA"
    )


def arithmetic(node: Node) -> Finding:
    """A product of matrices on the device is the CPU's, within what float32 can tell."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(128, 128, generator=generator, dtype=torch.float64) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        computed = (left.float().to(node.device) @ right.float().to(node.device)).double().cpu()
    except RuntimeError as error:
        return Finding(
            "arithmetic", False, str(error).splitlines()[0], "look at nvidia-smi and the kernel's log"
        )
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    difference = float((computed - left @ right).abs().max())
    found = f"a product on {node.device.type} is the CPU's in float64 within {difference:.1e}"
    return Finding("arithmetic", difference < 1e-3, found, "do not trust this device")


def nccl(node: Node) -> Finding:
    """What GPUs talk to each other by."""
    import torch

    if node.device.type != "cuda":
        return Finding("NCCL", None, "not asked, there is no GPU to use")
    if not torch.distributed.is_nccl_available():
        return Finding("NCCL", False, "PyTorch was built without it", "choose another image or wheel")
    version = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return Finding("NCCL", True, version)


def packages(node: Node) -> Finding:
    """What can be imported here is what the image lock says."""
    if node.image_lock is None:
        return Finding("packages", None, "on the host, which has no image lock")
    locked = ImageLock.read(node.image_lock).packages
    installed = {
        found.metadata["Name"].lower().replace("_", "-"): found.version
        for found in importlib.metadata.distributions()
    }
    lines = differences(locked, installed)
    found = "; ".join(lines[:5]) if lines else f"{len(installed)} as locked"
    return Finding(
        "packages", not lines, found, "something from outside gets into the image, or it was changed"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def memory(_: Node) -> Finding:
    """There is memory to begin with."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return Finding("memory", None, "not told by this system")
    return Finding(
        "memory",
        free >= LEAST_MEMORY,
        f"{free / 2**30:.1f} GiB free",
        f"end what uses it, {_gib(LEAST_MEMORY)} must be free",
    )


def disk(node: Node) -> Finding:
    """There is room for results."""
    free = shutil.disk_usage(node.results).free
    found = f"{free / 2**30:.1f} GiB free at {node.results}"
    return Finding("disk", free >= LEAST_DISK, found, f"make room there, {_gib(LEAST_DISK)} at least")


def clock(node: Node) -> Finding:
    """Files are dated by the same clock: what reruns is decided by their times."""
    probe = node.results / f".clock-{os.getpid()}"
    try:
        probe.touch()
        skew = probe.stat().st_mtime - time.time()
    finally:
        probe.unlink(missing_ok=True)
    found = f"files at {node.results} are dated {round(skew, 1) + 0.0:+.1f} s off this node's clock"
    return Finding(
        "clock", abs(skew) <= MOST_SKEW, found, "let node and file server take their time from one source"
    )


CHECKS: tuple[Callable[[Node], Finding], ...] = (
    gpu,
    driver,
    arithmetic,
    nccl,
    packages,
    memory,
    disk,
    clock,
)
