"""Jobs in processes of their own: nothing here may make the test's process a supervisor."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from tempfile import gettempdir

import pytest

SOURCE = Path(__file__).parents[3] / "src"
SUPERVISED = """
import ctypes, json, os, signal, sys, time
from argparse import Namespace
from pathlib import Path
from assay.isolation import containment
from assay.isolation.supervisor import supervise

HERE = sum(name.isdigit() for name in os.listdir("/proc"))
BEGAN = time.monotonic()

def hogging():
    "Whether a hog may take more: whatever fails to stop it, there is an end. Hogs of other tests count too."
    here = sum(name.isdigit() for name in os.listdir("/proc"))
    return here < HERE + 600 and time.monotonic() - BEGAN < 60

def forks():
    while hogging():
        if os.fork() == 0:
            os.setsid()
    time.sleep(300)  # a supervisor that was stopped meanwhile finds it there
    os._exit(9)

user, bounds = json.loads(sys.argv[1]), json.loads(sys.argv[2])
if user["nobody"]:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after any exec, /proc/self is this process's own
if not user["groups"]:
    containment.control_groups = lambda controller: iter(())
folder = Path(sys.argv[3])
crossing = supervise(Namespace(**bounds), folder, {"threads": 1, "device": "cpu"})
if crossing is not None:
    print("crossed", crossing.ended, crossing.message, flush=True)
    sys.exit(0)
"""

Supervised = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def supervised(tmp_path: Path) -> Supervised:
    """Starts a supervisor, which runs `before` first, whose job runs `body`."""
    tmp_path.chmod(0o777)
    for folder in takewhile(lambda folder: folder != Path(gettempdir()), tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o111)  # pytest's own, which nobody else may enter

    def start(
        body: str,
        *,
        memory_mb: float | None = 300,
        processes: int | None = 100,
        at_memory_bound: str = "result",
        groups: bool = True,
        nobody: bool = False,
        before: str = "",
        **environment: str,
    ) -> "subprocess.Popen[str]":
        bounds = {"memory_mb": memory_mb, "processes": processes, "at_memory_bound": at_memory_bound}
        user = {"groups": groups, "nobody": nobody}
        script = SUPERVISED.replace("crossing =", before + "crossing =", 1)
        return subprocess.Popen(
            [sys.executable, "-c", script + body, json.dumps(user), json.dumps(bounds), str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for_end(process: int) -> None:
    end = time.monotonic() + 120
    while is_alive(process):
        assert time.monotonic() < end
        time.sleep(0.01)
