"""CPU cores and GPUs that one job on this machine has to itself among the jobs of all experiments and users.

A core or GPU is taken by its name (`names`), which one process on the machine has at a time. Where a container does not
see the host's network, and where nothing says that jobs run on the machine of their Snakemake process, no place is
taken. A job that finds no core free goes on without; one that finds no GPU free waits for one (`gpu_places`).
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterable, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assay.isolation.gpu_places import Shared, alone, beside_others, every
from assay.isolation.machine import GPU, owns_cores
from assay.isolation.names import bind

SHARED = "ASSAY_PLACES"
"""Variable that names the network in which jobs on this machine see each other's names."""
TAKEN = "ASSAY_PLACE"
"""Variable that tells a job, and what it starts, which place it has."""
SHARDS = "SLURM_SHARDS_ON_NODE"
"""Variable by which Slurm tells a job that it has shares of a GPU, and others may have the rest."""
_TOPOLOGY = Path("/sys/devices/system/cpu")
_NETWORK = Path("/proc/self/ns/net")


@dataclass
class Place:
    """What a job has to itself; None where it shares with whoever is there."""

    cores: list[int] | None = None
    gpus: list[str] | None = None
    warnings: list[str] = field(default_factory=list)
    bounds: dict[str, str] | None = None
    """Who holds the job's bounds on processes and memory."""
    shared: Shared | None = None
    """Its place on a GPU that it shares with other runs; None: it has its GPUs to itself."""
    names: list[socket.socket] = field(default_factory=list)
    """Held as long as they are open."""

    def leave(self) -> None:
        """Give it back, or leave it to the process that this one was forked from."""
        for name in self.names:
            name.close()

    def enter(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Bind this process, and what it starts, to the place."""
        if self.cores is not None:
            os.sched_setaffinity(0, self.cores)
        if self.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        told = {"cores": self.cores, "gpus": self.gpus, "warnings": self.warnings, "bounds": self.bounds}
        told["shared"] = None if self.shared is None else asdict(self.shared)
        environment[TAKEN] = json.dumps(told)


def current(environment: MutableMapping[str, str] = os.environ) -> Place:
    """The place that this process was given; without cores where it is not bound to them any more."""
    told: dict[str, Any] = json.loads(environment.get(TAKEN, "{}"))
    place = Place(told.get("cores"), told.get("gpus"), list(told.get("warnings", [])), told.get("bounds"))
    place.shared = None if told.get("shared") is None else Shared(**told["shared"])
    if place.cores is not None and not os.sched_getaffinity(0) <= set(place.cores):
        place.cores = None
        place.warnings.append("cores: others computed on this job's; it was let off them")
    return place


def share(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell the jobs of this process that they run on this machine and are to take places there."""
    with contextlib.suppress(OSError):
        environment[SHARED] = str(_NETWORK.readlink())


def take(*, threads: int, device: str, devices: int = 1, runs: int = 1) -> Place:
    """The first free cores, or none, saying so, where there are not enough; and GPUs, for which it waits.

    threads: cores; device: `cpu`, `cuda` or `auto`, which is a GPU where there is one; devices: GPUs; runs: as many as
    may share one GPU; 1: none does.
    """
    place = Place()
    unseen = SHARED in os.environ and not _visible() and runs > 1
    if device != "cpu" and (unseen or SHARDS in os.environ):
        place.shared = Shared(gpu=None, place=None, runs=runs if runs > 1 else None, others=None)
    if not _visible():
        return place
    if device != "cpu" and (visible := gpus()):
        _take_gpus(place, visible, devices, runs)
    if owns_cores():
        names = _take((f"core/{core}" for core in ordered_cores()), threads)
        if names is None:
            place.warnings.append(f"cores: fewer than {threads} were free; this job shared cores with others")
        else:
            place.cores = sorted(int(name.rpartition("/")[2]) for name in names)
            place.names += names.values()
    return place


def _take_gpus(place: Place, visible: list[str], devices: int, runs: int) -> None:
    if len(visible) < devices:
        place.warnings.append(f"GPUs: {devices} asked for, and {len(visible)} there; none is this job's own")
    elif runs > 1:
        place.shared, held = beside_others(visible, runs)
        assert place.shared.gpu is not None
        place.gpus = [place.shared.gpu]
        place.names.append(held)
    else:
        doors = alone(visible, devices)
        place.gpus = [gpu for gpu in visible if gpu in doors]
        place.names += doors.values()


def take_all(device: str) -> Place:
    """Every core and GPU that is free, for a job that is to be alone; says how many others held.

    It waits for one GPU at least, where there is any.
    """
    place = Place()
    if not _visible():
        return place
    visible = gpus() if device != "cpu" else []
    doors = every(visible) if visible else {}
    cores = ordered_cores() if owns_cores() else []
    held = {core: bind(f"core/{core}") for core in cores}
    place.names = [name for name in (*held.values(), *doors.values()) if name is not None]
    own = [core for core in cores if held[core] is not None]
    if own:
        place.cores = sorted(own)
    if len(own) < len(cores):
        place.warnings.append(f"cores: other jobs had {len(cores) - len(own)} of {len(cores)} meanwhile")
    if len(doors) < len(visible):
        place.gpus = [gpu for gpu in visible if gpu in doors]
    taken = [gpu for gpu in visible if gpu not in doors]
    if taken:
        place.warnings.append(f"GPUs: other jobs had {', '.join(taken)} meanwhile")
    return place


def ordered_cores() -> list[int]:
    """The logical CPUs of this process: one of each physical core first, then their siblings."""
    allowed = os.sched_getaffinity(0)
    return sorted(allowed, key=lambda core: (sum(other < core for other in _siblings(core) & allowed), core))


def _siblings(core: int) -> set[int]:
    """Logical CPUs of the same physical core; itself alone where the kernel does not tell."""
    try:
        return parse_list((_TOPOLOGY / f"cpu{core}/topology/thread_siblings_list").read_text())
    except (OSError, ValueError):
        return {core}


def parse_list(text: str) -> set[int]:
    """CPUs in the kernel's way of writing them: `0-3,8`."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def gpus() -> list[str]:
    """UUIDs of the GPUs that this process may use; none where CUDA_VISIBLE_DEVICES cannot be told apart."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not GPU.exists() or chosen == "":
        return []
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
            found = [(pynvml.nvmlDeviceGetUUID(one), pynvml.nvmlDeviceGetName(one)) for one in handles]
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no library, no driver, no permission: all mean that nothing can be told
        return []
    return visible_gpus(found, chosen, os.environ.get("CUDA_DEVICE_ORDER"))


def visible_gpus(found: list[tuple[str, str]], chosen: str | None, order: str | None) -> list[str]:
    """UUIDs among `found`, (UUID, name) by PCI bus, that CUDA_VISIBLE_DEVICES chooses.

    CUDA stops at the first entry that it does not know. Numbers count by PCI bus where CUDA_DEVICE_ORDER says so or all
    GPUs are alike; else the fastest comes first, and none can be told from here.
    """
    uuids = [uuid for uuid, _ in found]
    if chosen is None:
        return uuids
    alike = order == "PCI_BUS_ID" or len({name for _, name in found}) == 1
    visible: list[str] = []
    for entry in map(str.strip, chosen.split(",")):
        if entry.isdigit():
            matches = uuids[int(entry) : int(entry) + 1] if alike else []
        else:
            matches = [uuid for uuid in uuids if entry and uuid.startswith(entry)]
        if len(matches) != 1:
            break
        visible += matches
    return visible


def _visible() -> bool:
    """Whether this process sees the names of the other jobs on its machine."""
    try:
        return os.environ.get(SHARED) == str(_NETWORK.readlink())
    except OSError:
        return False


def _take(names: Iterable[str], count: int) -> dict[str, socket.socket] | None:
    """The first `count` that are free, or none of them."""
    held: dict[str, socket.socket] = {}
    for name in names:
        if len(held) == count:
            break
        bound = bind(name)
        if bound is not None:
            held[name] = bound
    if len(held) == count:
        return held
    for bound in held.values():
        bound.close()
    return None
