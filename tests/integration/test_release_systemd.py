"""The units run by a systemd of their own, in namespaces of its own: what it restarts, and what it leaves alone.

What they start is a stand-in for `assay`, that ends as it is told: what is tried here are the units.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMD = next((p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(p).exists()), None)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(SYSTEMD is None or shutil.which("systemctl") is None, reason="install systemd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give it namespaces of its own"),
]
PATIENCE = 180.0
NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup")
MOUNTS = "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mount -t cgroup2 none /run"
BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys
for folder in /run /opt /var/lib /etc/systemd /usr/lib/systemd/system /usr/lib/systemd/system-generators; do
    mount -t tmpfs tmpfs $folder
done
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
for name in passwd group machine-id; do mount --bind "$WORK/$name" /etc/$name; done
mkdir -p /etc/systemd/system /opt/assay/.venv/bin
mount --bind "$WORK/state" /mnt
mkdir /var/lib/assay && mount --bind "$WORK/state" /var/lib/assay && umount /mnt
cp "$WORK/assay" /opt/assay/.venv/bin/assay
cp "$UNITS"/*.service /etc/systemd/system/
for name in sysinit basic shutdown network-online multi-user tiny; do
    printf '[Unit]\\nDefaultDependencies=no\\n' > /usr/lib/systemd/system/$name.target
done
export container=assay
exec "$SYSTEMD" --system --unit=tiny.target --log-target=console --show-status=0
"""
ASSAY = """#!/bin/sh
cd /var/lib/assay
case "$2" in stop) kill $(cat served); echo stop >> started; exit 0;; esac
test -e served || { sleep 100000 & echo $! > served; }
echo "$*" >> started
test -e code && exit $(cat code)
exec sleep 100000
"""


class Machine:
    def __init__(self, work: Path) -> None:
        self.state = work / "state"
        self.state.mkdir()
        self.state.chmod(0o777)
        (work / "assay").write_text(ASSAY)
        (work / "assay").chmod(0o755)
        (work / "machine-id").write_text("0123456789abcdef" * 2 + "\n")
        for name, line in (("passwd", "assay:x:64999:64999::/:/bin/sh"), ("group", "assay:x:64999:")):
            (work / name).write_text(Path("/etc", name).read_text().rstrip("\n") + f"\n{line}\n")
        self.cgroup = cgroup_root() / f"assay-test-{os.getpid()}"
        self.cgroup.mkdir()
        joined = (
            f'echo $$ > "{self.cgroup}/cgroup.procs" && exec unshare {" ".join(NAMESPACES)} sh -c "$BOOT"'
        )
        variables = {"WORK": str(work), "UNITS": str(ROOT / "release/systemd"), "SYSTEMD": str(SYSTEMD)}
        self.log = work / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", joined],
                env=os.environ | variables | {"BOOT": BOOT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(lambda: self.control("is-system-running") in ("running", "degraded"), self.log)

    def inside(self, *command: str) -> str:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            assert self.process.poll() is None, self.log.read_text()
            return ""
        words = ["nsenter", "-t", children[0], "-m", "-p", "-u", "-i", *command]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()

    def control(self, *words: str) -> str:
        return self.inside("systemctl", *words)

    def shown(self, what: str, unit: str = "assay-release@digits") -> str:
        return self.control("show", "-p", what, "--value", unit)

    def started(self) -> list[str]:
        path = self.state / "started"
        return path.read_text().splitlines() if path.exists() else []

    def serves(self) -> bool:
        """Whether what was started first, and not by systemd, goes on."""
        served = (self.state / "served").read_text().strip()
        return "sleep" in self.inside("cat", f"/proc/{served}/comm")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

        def gone() -> bool:
            folders = sorted(path for path in self.cgroup.rglob("*") if path.is_dir())
            try:
                for folder in (*reversed(folders), self.cgroup):
                    folder.rmdir()
            except OSError:
                return False
            return True

        eventually(gone, self.log)


def cgroup_root() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            inside = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
            return Path(where + (inside[1] if inside else "")).resolve()
    pytest.skip("there are no control groups of the second version")


def eventually(condition: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def check_namespaces() -> None:
    """Skips where root may not have what systemd wants, as in many containers."""
    folder = cgroup_root() / f"assay-test-probe-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        joined = f'echo $$ > "{folder}/cgroup.procs" && exec unshare {" ".join(NAMESPACES)} sh -c "{MOUNTS}"'
        tried = subprocess.run(["sh", "-c", joined], capture_output=True, text=True)
    finally:
        folder.rmdir()
    if tried.returncode:
        pytest.skip(f"no namespaces for a systemd of its own: {tried.stderr.strip()}")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    check_namespaces()
    built = Machine(tmp_path)
    yield built
    built.end()


def test_the_controller_is_restarted_and_what_it_started_is_left_alone(machine: Machine) -> None:
    machine.control("start", "assay-release@digits")
    eventually(lambda: len(machine.started()) == 1, machine.log)
    assert machine.started() == ["release start --stay /etc/assay/digits.yaml"]
    machine.inside("kill", "-KILL", machine.shown("MainPID"))
    eventually(lambda: len(machine.started()) == 2, machine.log)
    assert machine.serves() and machine.shown("NRestarts") == "1"
    machine.control("restart", "assay-release@digits")
    eventually(lambda: len(machine.started()) == 3, machine.log)
    assert machine.serves()
    machine.control("stop", "assay-release@digits")
    assert machine.shown("ActiveState") == "inactive" and machine.serves()
    for code, state in (("2", "failed"), ("3", "inactive"), ("4", "inactive"), ("5", "failed")):
        (machine.state / "code").write_text(code)
        machine.control("reset-failed")
        before = len(machine.started())
        machine.control("start", "assay-release@digits")
        # While a restart is due it is `activating`.
        eventually(lambda state=state: machine.shown("ActiveState") == state, machine.log)
        assert len(machine.started()) == before + 1 and machine.shown("ExecMainStatus") == code
    (machine.state / "code").write_text("1")
    machine.control("reset-failed")
    before = len(machine.started())
    machine.control("start", "assay-release@digits")
    eventually(lambda: len(machine.started()) >= before + 3, machine.log)
    (machine.state / "code").unlink()
    machine.control("reset-failed")
    machine.control("start", "assay-release@digits")
    eventually(lambda: machine.shown("ActiveState") == "active", machine.log)
    machine.control("start", "assay-release-stop@digits")
    eventually(lambda: machine.started()[-1] == "stop", machine.log)
    eventually(lambda: not machine.serves(), machine.log)
    assert machine.shown("ActiveState") == "inactive"
