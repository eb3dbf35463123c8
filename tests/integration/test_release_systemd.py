"""The units run by a systemd of their own, in namespaces of its own: what it restarts, and what it leaves alone.

One test has the real `assay`, as docs/release.md sets it up, and reboots. The other has a stand-in, which ends with whatever exit
code is asked of it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_port
from test_release_ramp import FRONT, made

from assay.release.demo.__main__ import release_file, users
from assay.release.demo.users import make_keys
from assay.release.layout import Layout
from assay.release.load import from_mapping
from assay.release.ramp.journal import Journal
from assay.release.security.salt import make_salt
from assay.release.server.files import Process, Service, read_file

__all__ = ["made"]
ROOT = Path(__file__).parents[2]
SYSTEMD = next((p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(p).exists()), None)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(SYSTEMD is None or shutil.which("systemctl") is None, reason="install systemd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give it namespaces of its own"),
]
PATIENCE = 600.0
USER = 64999
NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup")
MOUNTS = "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mount -t cgroup2 none /run"
BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys
mount -t tmpfs tmpfs /mnt
for name in work checkout python packages etc opt between-etc between-opt; do mkdir /mnt/$name; done
mount --bind "$WORK" /mnt/work
mount --bind "$CHECKOUT" /mnt/checkout
mount --bind "$PYTHON" /mnt/python
mount --bind "$PACKAGES" /mnt/packages
for name in etc opt; do
    mount -t overlay overlay -o lowerdir=/$name,upperdir=/mnt/$name,workdir=/mnt/between-$name /$name
done
for folder in /run /var/lib /etc/systemd /usr/lib/systemd/system /usr/lib/systemd/system-generators; do
    mount -t tmpfs tmpfs $folder
done
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
cp /mnt/work/passwd /mnt/work/group /mnt/work/machine-id /etc/
mkdir -p /etc/systemd/system /etc/assay /opt/assay /var/lib/assay
mount --bind /mnt/work/state /var/lib/assay
ln -s /mnt/checkout/* /opt/assay/
if [ -e /mnt/work/assay ]; then
    mkdir -p /opt/assay/.venv/bin
    cp /mnt/work/assay /opt/assay/.venv/bin/assay
else
    install -o assay -g assay -m 0600 /mnt/work/digits.yaml /etc/assay/
    /mnt/python/bin/python3 -m venv --without-pip /opt/assay/.venv
    printf '%s\\n' /opt/assay/src /mnt/packages > "$(echo /opt/assay/.venv/lib/python3*/site-packages)/assay.pth"
    cp /mnt/work/installed /opt/assay/.venv/bin/assay
    chmod 755 /opt/assay/.venv/bin/assay
fi
cp /opt/assay/release/systemd/*.service /etc/systemd/system/
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


INSTALLED = """#!/bin/sh
export LD_LIBRARY_PATH=/mnt/python/lib
exec /opt/assay/.venv/bin/python -P -m assay "$@" >> /var/lib/assay/said 2>&1
"""
STATUS = "/opt/assay/.venv/bin/python -P -m assay release status --json /var/lib/assay/releases/demo-good"


class Machine:
    """work: has `assay`, a stand-in, or `digits.yaml` for the real one; and `state`, its /var/lib/assay, which stays."""

    def __init__(self, work: Path) -> None:
        self.state = work / "state"
        (work / "machine-id").write_text("0123456789abcdef" * 2 + "\n")
        for name, line in (
            ("passwd", f"assay:x:{USER}:{USER}::/var/lib/assay:/bin/sh"),
            ("group", f"assay:x:{USER}:"),
        ):
            (work / name).write_text(Path("/etc", name).read_text().rstrip("\n") + f"\n{line}\n")
        self.cgroup = cgroup_root() / f"assay-test-{os.getpid()}"
        self.cgroup.mkdir()
        joined = (
            f'echo $$ > "{self.cgroup}/cgroup.procs" && exec unshare {" ".join(NAMESPACES)} sh -c "$BOOT"'
        )
        variables = {
            "WORK": str(work),
            "CHECKOUT": str(ROOT),
            "PYTHON": sys.base_prefix,
            "PACKAGES": sysconfig.get_path("purelib"),
            "SYSTEMD": str(SYSTEMD),
        }
        self.log = work / "log"
        with self.log.open("a") as log:
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
    said = log.parent / "state/said"
    while not condition():
        assert time.monotonic() < deadline, log.read_text() + (said.read_text() if said.exists() else "")
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


@contextmanager
def booted(work: Path) -> Iterator[Machine]:
    built = Machine(work)
    try:
        yield built
    finally:
        built.end()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    check_namespaces()
    (tmp_path / "assay").write_text(ASSAY)
    (tmp_path / "assay").chmod(0o755)
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with booted(tmp_path) as machine:
        yield machine


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


def test_a_release_goes_on_through_kills_restarts_and_a_reboot(
    tmp_path: Path, made: tuple[Path, Path]
) -> None:
    check_namespaces()
    port = free_port()
    content, layout = installed(tmp_path, made, port)
    apart = Layout(tmp_path / "users")
    make_salt(apart.salt)  # the release's is its user's alone
    with users(from_mapping(content, file="made"), apart, tmp_path, 20.0) as seen:
        with booted(tmp_path) as machine:
            machine.control("start", "assay-release@digits")
            eventually(lambda: at(layout, "step"), machine.log)
            machine.inside("kill", "-KILL", machine.shown("MainPID"))
            eventually(lambda: at(layout, "promoted"), machine.log)
            assert machine.shown("NRestarts") == "1" and machine.shown("ActiveState") == "active"
            before = served_by(layout)
            machine.control("restart", "assay-release@digits")
            assert machine.shown("ActiveState") == "active" and served_by(layout) == before
            saw = seen()
            assert saw["errors"] == 0 and len(saw["versions"]) == 2, saw
        assert not answers(port), "the power is off"
        with booted(tmp_path) as machine:
            machine.control("start", "assay-release@digits")
            eventually(lambda: answers(port), machine.log)
            status = json.loads(machine.inside(*STATUS.split()))
            assert status["phase"] == "promoted", status
            machine.control("start", "assay-release-stop@digits")
            assert machine.shown("ActiveState") == "inactive"
            eventually(lambda: not answers(port), machine.log)


def at(layout: Layout, phase: str) -> bool:
    last = Journal(layout).last()
    assert last is None or last.state.phase not in ("rolling_back", "rolled_back"), last
    return last is not None and last.state.phase == phase


def served_by(layout: Layout) -> tuple[Process, int | None]:
    """Who supervises the stable version, and which of its groups answers."""
    service = read_file(layout.service("stable") / "service.json", Service)
    assert service is not None
    return service.process, service.active


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def installed(work: Path, made: tuple[Path, Path], port: int) -> tuple[dict[str, Any], Layout]:
    """What docs/release.md has an administrator put there. Returns the release as seen from outside, and its folder."""
    state = work / "state"
    state.mkdir()
    _, public = make_keys(work / "keys")
    (state / "keys").mkdir()
    shutil.copy2(public, state / "keys")
    for name, bundle in zip(("stable", "candidate"), made, strict=True):
        shutil.copytree(bundle, state / "bundles" / name)
    content = release_file("", state, FRONT, public, made[1])
    content["routing"]["port"] = port
    # What a busy machine does to times is not looked at here.
    content["judge"] |= {"latency": None, "business": None, "guards": {"unready_seconds": 30}}
    for phase in (content["ramp"]["shadow"], *content["ramp"]["steps"]):
        phase["most_seconds"] = 3000
    written = content | {
        "folder": "releases",
        "registry": {"model": "digits", "uri": "registry"},
        "versions": {"stable": "bundles/stable", "candidate": "bundles/candidate"},
        "serving": content["serving"]
        | {"workers": 1, "jwt": content["serving"]["jwt"] | {"jwks": "keys/jwks.json"}},
    }
    (work / "installed").write_text(INSTALLED)
    (work / "digits.yaml").write_text(yaml.safe_dump(written))
    layout = Layout(state / "releases" / content["name"])
    for path in (state, *state.rglob("*")):
        os.chown(path, USER, USER)
    return content, layout
