"""Where the processes of one run meet: on one node by themselves, on several by what Slurm tells each of them.

Every node runs the same command once (`srun --ntasks-per-node=1 …`). No command of Slurm's is called, so that
this works inside an image too.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from assay.config.arm import Execution

FIRST_PORT, PORTS = 20_000, 12_000
"""Ports below those that systems hand out by themselves; which one is decided by the job's number."""
_START = (
    "start the same command once on each node: `srun --nodes={} --ntasks-per-node=1 …`, or write `nodes: 1`"
)


@dataclass(frozen=True)
class Meeting:
    """One node's view. `port` 0: any free one, which only a single node can choose."""

    nodes: int
    node: int
    host: str
    port: int


def meeting(settings: Execution, environment: Mapping[str, str]) -> Meeting:
    """Where this node meets the others. Raises: ValueError naming the variable that is missing or does not fit."""
    nodes = settings.nodes
    if nodes == 1:
        return Meeting(1, 0, "127.0.0.1", 0)

    def number(*names: str) -> int:
        found = next((environment[name] for name in names if name in environment), None)
        if found is None or not found.isdecimal():
            what = "is not set" if found is None else f"is {found!r}"
            raise ValueError(f"execution.nodes: {nodes}, but {names[-1]} {what}; {_START.format(nodes)}")
        return int(found)

    given = number("SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    if given != nodes:
        raise ValueError(
            f"execution.nodes: {nodes}, but this Slurm step has {given} nodes; {_START.format(nodes)}"
        )
    if environment.get("SLURM_LOCALID", "0") != "0":
        raise ValueError(
            f"execution.nodes: {nodes}, but Slurm started several tasks on this node; {_START.format(nodes)}"
        )
    node = number("SLURM_NODEID")
    if node >= nodes:
        raise ValueError(f"execution.nodes: {nodes}, but SLURM_NODEID is {node}; {_START.format(nodes)}")
    step = number("SLURM_STEP_ID") if "SLURM_STEP_ID" in environment else 0
    port = FIRST_PORT + (number("SLURM_JOB_ID") * 31 + step) % PORTS
    return Meeting(nodes, node, _host(nodes, environment), port)


def _host(nodes: int, environment: Mapping[str, str]) -> str:
    """The step's first node, by its name where that is an address too, else by that of srun's own node."""
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
    text = next((environment[name] for name in names if environment.get(name)), None)
    if text is None:
        raise ValueError(f"execution.nodes: {nodes}, but {names[0]} is not set; {_START.format(nodes)}")
    first = next(hosts(text))
    launcher = environment.get("SLURM_LAUNCH_NODE_IPADDR")
    if _resolves(first):
        return first
    if launcher:
        return launcher
    raise ValueError(
        f"execution.nodes: {nodes}, but the name of the first node, {first}, has no address here and "
        "SLURM_LAUNCH_NODE_IPADDR is not set; ask who runs the cluster how its nodes reach each other"
    )


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def hosts(text: str) -> Iterator[str]:
    """The names in a host list of Slurm's, in order: `rack[1-2]n[08-10],login` and the like.

    Raises: ValueError for text that is none.
    """
    if not text or not re.fullmatch(r"(?:[^\[\],\s]|\[[^\[\]\s]+\]|,(?=.))+", text):
        raise ValueError(f"'{text}' is not a host list of Slurm's")
    for word in re.split(r",(?![^\[]*\])", text):
        parts = [
            list(_numbers(part[1:-1])) if part.startswith("[") else [part]
            for part in re.findall(r"\[[^\]]+\]|[^\[]+", word)
        ]
        yield from map("".join, product(*parts))


def _numbers(text: str) -> Iterator[str]:
    """`08-10,12` is 08, 09, 10 and 12: leading zeros give the width."""
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if dash and low.isdecimal() and high.isdecimal():
            yield from (f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1))
        else:
            yield part
