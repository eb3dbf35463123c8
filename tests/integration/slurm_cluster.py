"""A real Slurm of two nodes on this one machine: munge, MariaDB, slurmdbd, slurmctld and two slurmd.

Nothing of the machine's own Slurm is used or changed: every configuration, port, socket, log and all data are
the cluster's own, and lie in one folder.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from ports import free_port

T = TypeVar("T")

NODES = ("n1", "n2")
GPUS_PER_NODE = 2
SHARDS_PER_NODE = 8
ACCOUNT = "assay"

# Daemons lie in sbin, which is not on every user's path.
SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
PACKAGES = {
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "slurmdbd": "slurmdbd",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "sacctmgr": "slurm-wlm",
}
MISSING: list[str] = sorted(
    {package for program, package in PACKAGES.items() if shutil.which(program, path=SEARCH) is None}
)
"""The Debian packages to install before a cluster can be started."""

START_SECONDS = 300.0
STOP_SECONDS = 60.0
UNIX_PATH_LIMIT = 107

SLURM_CONF = """\
ClusterName=assay
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start again when its old credential has expired.
AuthInfo=socket={munge_socket},cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
# The daemons of a job's steps write here; the others' output is in NAME.out.
SlurmdLogFile={folder}/%n.log
MailProg=/bin/true

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
MinJobAge=300
KillWait=2
UnkillableStepTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={munge_socket}
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1

GresTypes=gpu,shard
{nodes}
PartitionName=main Nodes={names} Default=YES PriorityTier=1 GraceTime=3 DefMemPerCPU=100
PartitionName=urgent Nodes={names} PriorityTier=10 PreemptMode=OFF DefMemPerCPU=100
"""

NODE_LINE = (
    "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port}"
    " CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus},shard:{shards}"
)

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={munge_socket}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting_port}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


class Cluster:
    """Two nodes, `n1` and `n2`, a default partition `main`, and `urgent`, whose jobs preempt those in `main`."""

    def __init__(self, folder: Path, cpus: int = 2, memory_mb: int = 4000) -> None:
        self.folder = folder.resolve()
        self.cpus = cpus
        self.memory_mb = memory_mb
        self.ports: dict[str, int] = {}
        self.munge_socket = self.folder / "munge.socket"
        self.database_socket = self.folder / "mariadb.socket"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        longest = max(len(str(path)) for path in (self.munge_socket, self.database_socket))
        if longest > UNIX_PATH_LIMIT:
            raise ValueError(f"{self.folder}: too long a path for a Unix socket in it; use a shorter one")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs, beside `os.environ`, to talk to this cluster and no other."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all daemons, and return when both nodes are idle and the accounting knows the cluster."""
        if MISSING:
            raise RuntimeError(f"Slurm cannot be started: apt-get install {' '.join(MISSING)}")
        if self._daemons:
            raise RuntimeError(f"{self.folder}: this cluster is started already")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all daemons, and kill all else that was started with this cluster's environment, as jobs are."""
        for name in reversed(list(self._daemons)):
            daemon = self._daemons.pop(name)
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._kill_processes()

    def run(self, *command: str) -> str:
        """What a command prints. One that fails is an error with all that it said."""
        done = subprocess.run(
            [found(command[0]), *command[1:]],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def wait_until(self, predicate: Callable[[], T], seconds: float) -> T:
        """What the predicate says once it is true. Too long a wait, or a daemon that ends, is an error."""
        deadline = time.monotonic() + seconds
        while not (answer := predicate()):
            for name, daemon in self._daemons.items():
                if daemon.poll() is not None:
                    raise RuntimeError(
                        f"{name} ended with exit {daemon.returncode}\n{self._last_lines(name)}"
                    )
            if time.monotonic() > deadline:
                logs = "\n".join(self._last_lines(name) for name in self._daemons)
                raise TimeoutError(f"not true within {seconds:g} s\n{logs}")
            time.sleep(0.1)
        return answer

    def kill_node(self, name: str) -> None:
        """Kill a node's slurmd and all that its jobs run, at once and unasked, as when a machine dies."""
        # What runs in a container does not tell the node's name; it is found by what started it, and dies with it.
        victims = family(self.processes(name))
        daemon = self._daemons.pop(name)
        daemon.kill()
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        daemon.wait()
        self._kill_processes(name)

    def revive_node(self, name: str) -> None:
        """Start a killed node's slurmd again, and wait until it can take jobs. What ran on it is requeued."""
        # A node that is down is up again when its slurmd has registered, and not before.
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=revived")
        self._start_node(name)
        self.wait_until(lambda: is_up(self.node_states()[name]), START_SECONDS)

    def node_states(self) -> dict[str, str]:
        """What Slurm says about each node; `*` stands behind the state of one that does not answer."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def processes(self, node: str | None = None) -> list[int]:
        """The processes of this cluster, or of one of its nodes: daemons, their helpers, and what jobs run."""
        marks = [f"SLURM_CONF={self.environment['SLURM_CONF']}"]
        if node is not None:
            marks.append(f"SLURMD_NODENAME={node}")
        return [pid for pid, variables in environments() if all(mark in variables for mark in marks)]

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise ValueError(f"{self.folder}: a cluster needs an empty folder of its own")
        services = ("database", "accounting", "controller", *NODES)
        self.ports = {service: free_port() for service in services}
        self._configure()
        self._start_munge()
        self._start_database()
        self._start_accounting()
        self._spawn("slurmctld", "slurmctld", "-D")
        # A slurmd that finds no controller tries again only seconds later.
        self.wait_until(lambda: listens(self.ports["controller"]), START_SECONDS)
        for name in NODES:
            self._start_node(name)
        idle = dict.fromkeys(NODES, "idle")
        self.wait_until(lambda: self._answers("sinfo") and self.node_states() == idle, START_SECONDS)

    def _configure(self) -> None:
        password = secrets.token_hex(16)
        common = {
            "folder": self.folder,
            "host": socket.gethostname().partition(".")[0],
            "user": getpass.getuser(),
            "munge_socket": self.munge_socket,
            "controller_port": self.ports["controller"],
            "accounting_port": self.ports["accounting"],
            "database_port": self.ports["database"],
            "password": password,
        }
        size = {"cpus": self.cpus, "memory_mb": self.memory_mb, "gpus": GPUS_PER_NODE}
        size["shards"] = SHARDS_PER_NODE
        nodes = "\n".join(NODE_LINE.format(name=name, port=self.ports[name], **size) for name in NODES)
        texts = {
            "slurm.conf": SLURM_CONF.format(nodes=nodes, names=",".join(NODES), **common),
            "slurmdbd.conf": SLURMDBD_CONF.format(**common),
            # Slurm counts no gpu without a device; a link to another device is enough, and its number is the gpu's.
            "gres.conf": f"Name=gpu File={self.folder}/gpu[0-{GPUS_PER_NODE - 1}]\nName=shard Count={SHARDS_PER_NODE}\n",
            "database.sql": f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';\n",
        }
        for name, text in texts.items():
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_text(text)
        (self.folder / "state").mkdir()
        for number in range(GPUS_PER_NODE):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))

    def _start_munge(self) -> None:
        # --force: munge would refuse a folder that other users cannot enter.
        self._spawn(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--socket={self.munge_socket}",
            f"--key-file={self.folder / 'munge.key'}",
            f"--pid-file={self.folder / 'munged.pid'}",
            f"--seed-file={self.folder / 'munged.seed'}",
        )
        self.wait_until(
            lambda: self._answers("munge", "--no-input", f"--socket={self.munge_socket}"), START_SECONDS
        )

    def _start_database(self) -> None:
        # MariaDB removes the temporary tables that it finds at its start, whose they may be.
        temporary = self.folder / "temporary"
        temporary.mkdir()
        common = [
            "--no-defaults",
            f"--datadir={self.folder / 'database'}",
            f"--tmpdir={temporary}",
            f"--user={getpass.getuser()}",
        ]
        self.run("mariadb-install-db", *common, "--skip-test-db", "--auth-root-authentication-method=normal")
        self._spawn(
            "mariadbd",
            "mariadbd",
            *common,
            "--bind-address=127.0.0.1",
            f"--port={self.ports['database']}",
            f"--socket={self.database_socket}",
            f"--pid-file={self.folder / 'mariadbd.pid'}",
            f"--init-file={self.folder / 'database.sql'}",
            "--skip-name-resolve",
            # Nobody needs these data after a crash.
            "--innodb-flush-log-at-trx-commit=0",
        )
        self.wait_until(lambda: listens(self.ports["database"]), START_SECONDS)

    def _start_accounting(self) -> None:
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self.wait_until(lambda: self._answers("sacctmgr", "list", "cluster"), START_SECONDS)
        add = ("sacctmgr", "--immediate", "add")
        self.run(*add, "cluster", "assay")
        self.run(*add, "account", ACCOUNT, "cluster=assay")
        self.run(
            *add,
            "user",
            getpass.getuser(),
            f"account={ACCOUNT}",
            "cluster=assay",
            f"defaultaccount={ACCOUNT}",
        )

    def _start_node(self, name: str) -> None:
        # The step daemons and the jobs that it starts are known by the same variable.
        self._spawn(name, "slurmd", "-D", "-N", name, SLURMD_NODENAME=name)
        self.wait_until(lambda: listens(self.ports[name]), START_SECONDS)

    def _spawn(self, name: str, *command: str, **variables: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [found(command[0]), *command[1:]],
                env={**os.environ, **self.environment, **variables},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self, *command: str) -> bool:
        try:
            self.run(*command)
        except RuntimeError:
            return False
        return True

    def _last_lines(self, name: str) -> str:
        lines = (self.folder / f"{name}.out").read_text(errors="replace").splitlines()
        return "\n".join([f"--- the end of {self.folder / name}.out", *lines[-10:]])

    def _kill_processes(self, node: str | None = None) -> None:
        """Kill until none is left: one may have started another meanwhile."""
        deadline = time.monotonic() + STOP_SECONDS
        while left := self.processes(node):
            if time.monotonic() > deadline:
                raise TimeoutError(f"these processes could not be killed: {left}")
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def found(program: str) -> str:
    return shutil.which(program, path=SEARCH) or program


def is_up(state: str) -> bool:
    return not state.startswith("down") and not state.endswith("*")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def family(processes: list[int]) -> set[int]:
    """These processes and all that descend from them."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                stat = (folder / "stat").read_text()
                parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = set(processes)
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def environments() -> Iterator[tuple[int, list[str]]]:
    """Each process that may be looked at, and the variables that it was started with."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                yield int(folder.name), (folder / "environ").read_text(errors="replace").split("\0")
