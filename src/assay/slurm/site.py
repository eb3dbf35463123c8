"""What a Slurm site offers to this user: asked of its own programs, and of a node by a job of a few seconds."""

import getpass
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

PROGRAMS = ("sinfo", "scontrol", "sbatch", "srun", "squeue")
CONTAINERS = ("apptainer", "singularity")
SECONDS = 60.0
"""For one of Slurm's programs to answer."""
INFINITE = ("UNLIMITED", "INFINITE", "infinite", "NONE", "n/a")


class SlurmError(ValueError):
    """There is no Slurm here, or it does not answer."""


@dataclass(frozen=True)
class Partition:
    """Limits are of one job on one node; None: no limit that Slurm tells."""

    name: str
    default: bool
    minutes: int | None
    cpus: int
    memory_mb: int
    gpus: int
    gpu_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """What a job found on a node of a partition; None: it could not tell."""

    partition: str
    name: str
    container: str | None
    module: str | None
    sees_folder: bool
    reaches: bool | None


@dataclass(frozen=True)
class Site:
    cluster: str
    version: str
    accounting: bool
    accounts: tuple[str, ...]
    most_jobs: int | None
    remembered_seconds: int
    """How long Slurm's controller, and so squeue, knows a job that has ended."""
    partitions: tuple[Partition, ...]
    container: str | None
    """Apptainer's program on this node."""
    module: str | None
    """A module of this node that has it."""
    nodes: tuple[Node, ...] = field(default=())

    @property
    def default_partition(self) -> Partition:
        return next((each for each in self.partitions if each.default), self.partitions[0])


def look() -> Site:
    """Raises: SlurmError where Slurm is missing, silent, or has no partition for this user."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise SlurmError(f"no Slurm here: {', '.join(missing)} not found; run this on a cluster's login node")
    config = settings(ask("scontrol", "show", "config"))
    accounts, most_jobs = associations()
    found = partitions(
        ask("scontrol", "show", "partition", "--oneliner"),
        ask("sinfo", "--noheader", "--Node", "--format=%R|%c|%m|%G"),
        accounts,
    )
    if not found:
        raise SlurmError(
            f"cluster {config.get('ClusterName')}: no partition is up that takes jobs of this user"
        )
    return Site(
        cluster=config.get("ClusterName") or "cluster",
        version=config.get("SLURM_VERSION") or "unknown",
        accounting=works("sacct", "--allocations", "--noheader", "--starttime=now"),
        accounts=accounts,
        most_jobs=most_jobs,
        remembered_seconds=number(config.get("MinJobAge", "0").split()[0]),
        partitions=tuple(found),
        container=next(filter(None, map(shutil.which, CONTAINERS)), None),
        module=container_module(),
    )


def probe(site: Site, folder: Path, reach: str | None, seconds: float) -> Site:
    """With what a job on one node of each partition sees. Jobs that do not start in time are withdrawn.

    folder: of which every node must see the same. reach: HOST:PORT to connect to; None: nothing is tried.
    """
    jobs = {each.name: _start_probe(each.name, folder, reach, seconds) for each in site.partitions}
    nodes = [_found(name, job, seconds) for name, job in jobs.items()]
    return replace(site, nodes=tuple(filter(None, nodes)))


def settings(text: str) -> dict[str, str]:
    """`Name = value` by line, as `scontrol show config` prints it."""
    return dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, flags=re.MULTILINE))


def associations() -> tuple[tuple[str, ...], int | None]:
    """This user's accounts, the default first, and how many jobs may be submitted; nothing where none are kept."""
    user = f"user={getpass.getuser()}"
    try:
        rows = ask(*_list("associations"), user, "format=Account,MaxSubmitJobs").splitlines()
        default = ask(*_list("user"), user, "format=DefaultAccount").strip()
    except SlurmError:
        return (), None
    accounts, limits = [], []
    for row in rows:
        account, limit = row.split("|")[:2]
        accounts.append(account)
        limits += [int(limit)] if limit.isdigit() else []
    ordered = sorted(dict.fromkeys(filter(None, accounts)), key=lambda account: account != default)
    return tuple(ordered), min(limits, default=None)


def _list(what: str) -> list[str]:
    return ["sacctmgr", "--noheader", "--parsable2", "show", what]


def partitions(described: str, nodes: str, accounts: Sequence[str]) -> list[Partition]:
    """Those that are up and take this user's jobs.

    described: by `scontrol show partition --oneliner`. nodes: partition|CPUs|MiB|GRES, a line each.
    """
    found = []
    for line in described.splitlines():
        one = dict(re.findall(r"(\w+)=(\S*)", line))
        mine = [
            row.split("|") for row in nodes.splitlines() if row.startswith(f"{one.get('PartitionName')}|")
        ]
        if (
            one.get("State") != "UP"
            or one.get("RootOnly") == "YES"
            or not mine
            or not _allowed(one, accounts)
        ):
            continue
        gpus = [parse_gres(row[3]) for row in mine]
        limit = one.get("MaxMemPerNode", "")
        memory = max(number(row[2]) for row in mine)
        found.append(
            Partition(
                name=one["PartitionName"],
                default=one.get("Default") == "YES",
                minutes=parse_minutes(one.get("MaxTime", "")),
                cpus=max(number(row[1]) for row in mine),
                memory_mb=min(memory, int(limit)) if limit.isdigit() else memory,
                gpus=max(sum(types.values()) for types in gpus),
                gpu_types=tuple(sorted({name for types in gpus for name in types if name})),
            )
        )
    return found


def _allowed(partition: dict[str, str], accounts: Sequence[str]) -> bool:
    allowed = partition.get("AllowAccounts", "ALL")
    denied = partition.get("DenyAccounts", "").split(",")
    if not accounts:
        return True
    return any((allowed == "ALL" or each in allowed.split(",")) and each not in denied for each in accounts)


def number(text: str) -> int:
    """`16` or `16+`, as Slurm writes the least of several."""
    return int(text.rstrip("+"))


def parse_gres(text: str) -> dict[str, int]:
    """GPUs by type, '' where no type is told: `gpu:a100:4(S:0-1),gpu:2` has four and two."""
    counts: dict[str, int] = {}
    for kind, how_many in re.findall(r"gpu(?::([A-Za-z][\w.-]*))?:(\d+)", text):
        counts[kind] = counts.get(kind, 0) + int(how_many)
    return counts


def parse_minutes(text: str) -> int | None:
    """`days-hours:minutes:seconds`, `hours:minutes:seconds` or `minutes:seconds`; None: without limit."""
    if not text or text in INFINITE:
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, minutes = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return int(days or 0) * 1440 + hours * 60 + minutes


def container_module() -> str | None:
    """The last of the modules named after Apptainer or Singularity that this node offers."""
    done = run(["bash", "-lc", f"module -t avail {' '.join(CONTAINERS)} 2>&1"])
    return _module_in(done.stdout)


def _module_in(text: str) -> str | None:
    names = re.findall(r"^\s*((?:\S*/)?(?:apptainer|singularity)\S*?)(?:\([^)]*\))?\s*$", text, re.M | re.I)
    return str(names[-1]) if names else None


_PROBE = """
for name in {containers}; do command -v $name && break; done | sed 's/^/container=/'
bash -lc 'module -t avail {containers} 2>&1' 2>/dev/null | sed 's/^/module=/'
[ -d {folder} ] && echo folder=yes
[ -z {reach} ] || {{ timeout 10 bash -c {connect} 2>/dev/null && echo reach=yes || echo reach=no; }}
echo node=$(hostname)
"""


def _start_probe(partition: str, folder: Path, reach: str | None, seconds: float) -> "subprocess.Popen[str]":
    host, _, port = (reach or "").rpartition(":")
    script = _PROBE.format(
        containers=" ".join(CONTAINERS),
        folder=shlex.quote(str(folder)),
        reach=shlex.quote(reach or ""),
        connect=shlex.quote(f"exec 3<>/dev/tcp/{host}/{port}"),
    )
    command = [
        *("srun", f"--partition={partition}", "--time=2", "--ntasks=1", "--nodes=1", "--mem=200"),
        *(
            "--job-name=assay-probe",
            "--quiet",
            f"--immediate={round(seconds)}",
            "--chdir=/",
            "bash",
            "-c",
            script,
        ),
    ]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _found(partition: str, job: "subprocess.Popen[str]", seconds: float) -> Node | None:
    try:
        output, _ = job.communicate(timeout=seconds + SECONDS)
    except subprocess.TimeoutExpired:
        job.terminate()
        job.communicate()
        return None
    values = dict(re.findall(r"^(container|folder|reach|node)=(.*)$", output, re.M))
    if "node" not in values:
        return None
    return Node(
        partition=partition,
        name=values["node"],
        container=values.get("container"),
        module=_module_in("\n".join(re.findall(r"^module=(.*)$", output, re.M))),
        sees_folder="folder" in values,
        reaches={"yes": True, "no": False}.get(values.get("reach", "")),
    )


def works(*command: str) -> bool:
    return run(command).returncode == 0


def ask(*command: str) -> str:
    """What one of Slurm's programs prints. Raises: SlurmError with what it complains of."""
    done = run(command)
    if done.returncode:
        raise SlurmError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def run(command: Iterable[str]) -> "subprocess.CompletedProcess[str]":
    words = list(command)
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 127, "", str(error))
