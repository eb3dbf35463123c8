"""Starting, ending and looking after the programs that `assay monitor` runs, by their own process ids, without root."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from assay.monitoring.programs import NEEDS, READY, WITHOUT_PROMETHEUS, Plan, command, find, render
from assay.records import write_atomically

STATE = "state.json"
READY_SECONDS = 120.0
STOP_SECONDS = 15.0
KILL_SECONDS = 60.0
"""For a process that waits for a core to end by SIGKILL."""
_LOG_LINES = 5


class MonitorError(ValueError):
    """What keeps the monitoring from starting or ending."""


class StartError(RuntimeError):
    """A program that was started and did not come up; all have been ended again."""


@dataclass(frozen=True)
class Service:
    """A program that was started. `born` tells its process from a later one of the same number."""

    name: str
    process: int
    born: int
    url: str
    log: str
    results: str = ""

    @property
    def runs(self) -> bool:
        return _born(self.process) == self.born


def start(plan: Plan) -> tuple[list[Service], list[str]]:
    """Start what is installed and wait until it answers.

    Returns what runs, and what does not for want of a program, with what that means.
    Raises: MonitorError before anything was started; StartError.
    """
    with _locked(plan.state):
        running = [service for service in read(plan.state) if service.runs]
        if running:
            names = ", ".join(service.name for service in running)
            raise MonitorError(f"{plan.state}: {names} run already; first: assay monitor stop")
        services, missing = _choose(plan)
        _refuse_taken_ports(plan, services)
        render(plan, services)
        _clear_old_logs(plan)
        started: list[Service] = []
        try:
            for name in services:
                started.append(_spawn(plan, name))
                _save(plan.state, started)
            for service in started:
                _wait_until_ready(service)
        except BaseException:
            _end(started)
            _save(plan.state, [])
            raise
        return started, missing


def stop(state: Path) -> list[Service]:
    """End what runs; returns that. Data and logs stay. Raises: MonitorError on another machine than that of the start."""
    if not state.is_dir():
        return []
    with _locked(state):
        running = [service for service in read(state) if service.runs]
        _end(running)
        _save(state, [])
        return running


def read(state: Path) -> list[Service]:
    """What was started and not yet stopped, running or not. Raises: MonitorError."""
    path = state / STATE
    try:
        content = json.loads(path.read_bytes())
        services = [Service(**one) for one in content["services"]]
        host = content["host"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MonitorError(
            f"{path}: cannot be read ({error}); end what it started by hand, then remove it"
        ) from None
    if services and host != socket.gethostname():
        raise MonitorError(
            f"{path}: was started on {host}, and this is {socket.gethostname()}: go there, "
            "or give --state a folder of this machine"
        )
    return services


def _choose(plan: Plan) -> tuple[list[str], list[str]]:
    """The services to start, in order, and what cannot be."""
    chosen: list[str] = []
    missing = []
    for name, (programs, without) in NEEDS.items():
        if name == "releases" and plan.releases is None:
            continue
        if programs and find(name) is None:
            missing.append(f"{name} is not installed: {without}")
        elif name in WITHOUT_PROMETHEUS and "prometheus" not in chosen:
            missing.append(f"{name} is not started: it needs prometheus")
        else:
            chosen.append(name)
    return chosen, missing


def _refuse_taken_ports(plan: Plan, services: list[str]) -> None:
    for name in services:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                plan.address, plan.ports[name], type=socket.SOCK_STREAM
            )[0]
        except OSError as error:
            raise MonitorError(f"--address {plan.address}: {error.strerror}; write an IP address") from None
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise MonitorError(
                    f"{plan.at(name)}: {error.strerror}; choose another with --{name}-port"
                ) from None


def _spawn(plan: Plan, name: str) -> Service:
    words, environment = command(plan, name)
    log = plan.log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    (plan.state / "data" / name).mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
            preexec_fn=_step_back,
        )
    born = _born(process.pid)
    if born is None:
        raise StartError(f"{name} ended at once\n{_tail(log)}")
    return Service(name, process.pid, born, plan.url(name), str(log), str(plan.results))


def _step_back() -> None:
    """Watching must not disturb what is measured."""
    os.nice(10)


def _wait_until_ready(service: Service) -> None:
    end = time.monotonic() + READY_SECONDS
    while True:
        if not service.runs:
            raise StartError(f"{service.name} ended while it started\n{_tail(Path(service.log))}")
        with contextlib.suppress(urllib.error.URLError, OSError):
            if _get(service.url + READY[service.name]) == 200:
                return
        if time.monotonic() > end:
            raise StartError(
                f"{service.name} did not answer within {READY_SECONDS:.0f} s\n{_tail(Path(service.log))}"
            )
        time.sleep(0.1)


def _get(url: str) -> int:
    """Not through the proxy that a site may have set."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return int(answer.status)


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([f"the end of {log}:", *(f"  {line}" for line in lines[-_LOG_LINES:])])


def _clear_old_logs(plan: Plan) -> None:
    shutil.rmtree(plan.state / "logs", ignore_errors=True)


def _end(services: list[Service]) -> None:
    """Ask to end, wait, and kill what does not."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        for service in reversed(services):
            if service.runs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(service.process, number)
        end = time.monotonic() + seconds
        while any(service.runs for service in services) and time.monotonic() < end:
            time.sleep(0.05)


def _born(process: int) -> int | None:
    """When a process began, in the kernel's ticks since boot; None where it is gone, with all of its threads."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(process, os.WNOHANG)  # one of this process's own that ended would stay a zombie
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" and int(fields[17]) <= 1 else int(fields[19])


def _save(state: Path, services: list[Service]) -> None:
    if not services:
        (state / STATE).unlink(missing_ok=True)
        return
    content = {"host": socket.gethostname(), "services": [asdict(service) for service in services]}
    write_atomically(state / STATE, json.dumps(content, indent=1).encode() + b"\n")


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One start or stop at a time."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = (state / ".lock").open("a")
    except OSError as error:
        raise MonitorError(
            f"{state}: {error.strerror}; give --state a folder that this user can write to"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MonitorError(f"{state}: another assay monitor is at work here; wait for it") from None
        yield
