"""Where and with which code a record came to be: machine, packages, device, image, checkout."""

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import assay
from assay.isolation import places
from assay.records import Code, Device, Environment, sha256_file
from assay.sources import PACKAGE, stage_sha256

if TYPE_CHECKING:
    import torch

DISTRIBUTIONS = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scikit-learn",
    "scipy",
    "polars",
    "pydantic",
    "safetensors",
)
IMAGE_LOCK = "ASSAY_IMAGE_LOCK"
"""Variable that names the lock of the image that jobs run in."""
IN_IMAGE = Path("/.singularity.d")
"""Is there inside an image of Apptainer's, and nowhere else."""
CODE_PATHS = ("src", "workflow", "Snakefile", "containers")
"""What of the checkout is code: results and the user's own files beside it do not make it modified."""

_GIT_SECONDS = 5.0


def capture(*, threads: int | None, device: "torch.device | str | None") -> Environment:
    """This machine as it is now.

    Args:
        threads: CPU threads of the run; None where it makes no difference.
        device: where the run computes; None if it computes nothing.
    """
    place = places.current()
    return Environment(
        host=socket.gethostname(),
        platform=platform.platform(),
        python=platform.python_version(),
        packages=_packages(),
        cpu=_cpu_name(),
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=threads,
        cores=place.cores,
        gpus=place.gpus if place.shared is None else None,
        bounds_held_by=place.bounds,
        image=_image(),
        device=None if device is None else _device(str(device)),
    )


def code(stage: str, user_files: Sequence[Path] = ()) -> Code:
    """Which code runs: the stage's source files, the checkout that they are from, and the user's own files."""
    commit, modified = _checkout()
    return Code(
        version=assay.__version__,
        commit=commit,
        modified=modified,
        sources_sha256=stage_sha256(stage),
        user_sources={path.as_posix(): sha256_file(path) for path in user_files},
    )


def select_device(name: str) -> "torch.device":
    """The device of `execution.device`: `auto` is the GPU that PyTorch sees, or else the CPU.

    Raises: ValueError if `cuda` is asked for and there is none, saying why as far as PyTorch tells.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"execution.device: no device '{name}'; write auto, cpu or cuda")
    if name == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if name == "auto":
        return torch.device("cpu")
    reason = (
        "it sees no GPU with a working driver"
        if torch.version.cuda
        else "it was built without CUDA"  # the CPU-only wheels
    )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = f" (CUDA_VISIBLE_DEVICES is '{hidden}')" if hidden is not None else ""
    raise ValueError(
        f"execution.device: cuda, but PyTorch {torch.__version__} has none: {reason}{seen}; "
        "write device: auto or device: cpu, or run where a GPU is"
    )


def gpu_uuids(device: "torch.device") -> list[str]:
    """The UUIDs of the GPUs that a run on this device uses, as PyTorch tells them; none on a CPU."""
    if device.type != "cuda":
        return []
    import torch

    return [str(torch.cuda.get_device_properties(device).uuid)]


def shared_gpu(device_type: str) -> dict[str, Any] | None:
    """The run's place on a GPU that others may share, as records tell it; None: on a CPU, or alone. device_type: `cuda` …"""
    shared = places.current().shared if device_type == "cuda" else None
    return None if shared is None else asdict(shared)


def _packages() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = (line.partition(":") for line in lines)
    names = {key.strip(): value.strip() for key, _, value in fields}
    return names.get("model name") or names.get("Model") or platform.machine()


def _image() -> dict[str, str] | None:
    """What the lock says of the image that this process runs in; None on the host.

    Raises: ValueError in an image that is not the lock's, by the base that its labels name.
    """
    if not IN_IMAGE.exists():
        return None
    labels = json.loads((IN_IMAGE / "labels.json").read_bytes())
    base = labels.get("org.assay.base.digest", "unknown")
    path = os.environ.get(IMAGE_LOCK)
    if path is None:
        return {"base_digest": base}
    lock = json.loads(Path(path).read_bytes())
    if lock["base_digest"] != base:
        raise ValueError(f"{path}: is the lock of base {lock['base_digest']}, this image is from {base}")
    return {name: lock[name] for name in ("base_digest", "sif_sha256", "content_sha256")}


def _device(name: str) -> Device:
    if name.partition(":")[0] == "cpu":
        return Device(type="cpu", name=_cpu_name())
    import torch

    properties = torch.cuda.get_device_properties(torch.device(name))
    uuid = f"GPU-{properties.uuid}"
    driver, memory = _from_driver(uuid)
    return Device(
        type="cuda",
        name=properties.name,
        uuid=uuid,
        memory_mb=(properties.total_memory if memory is None else memory) / 2**20,
        driver=driver,
        cuda=torch.version.cuda,
    )


def _from_driver(uuid: str) -> tuple[str | None, int | None]:
    """The driver's version and the GPU's memory in bytes, each None where NVML does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None, None
    driver: Any = None
    memory: Any = None
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid)).total
    except pynvml.NVMLError:
        pass
    finally:
        pynvml.nvmlShutdown()
    return driver, memory


@cache
def _checkout() -> tuple[str | None, bool | None]:
    """(commit, whether its code was changed) of the checkout that holds the package; None outside one."""
    root = PACKAGE.parents[1]
    if not (root / ".git").exists():
        return None, None
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=normal"]
    try:
        output = subprocess.run(
            [*command, "--", *CODE_PATHS],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
            env=_git_environment(),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None
    lines = output.splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None, None
    return commits[0], any(not line.startswith("#") for line in lines)


def _git_environment() -> dict[str, str]:
    """Without what a surrounding git command (a hook) points elsewhere; the index is not locked."""
    foreign = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    kept = {key: value for key, value in os.environ.items() if key not in foreign}
    return kept | {"GIT_OPTIONAL_LOCKS": "0"}
