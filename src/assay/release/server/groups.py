"""Groups of workers as a supervisor has them: started, looked at, ended."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import assay
from assay.release.environments.prepare import Environment
from assay.release.server.files import GroupFiles, Process, Worker, process_of, read_file, write_file
from assay.release.server.group import HUNG_SECONDS
from assay.release.server.settings import Settings

KEPT_FOLDERS = 5
"""Of groups that ended: what their processes printed."""
_KILL_SECONDS = 10.0
"""After the time that gunicorn gives its workers, when it is asked to end."""


@dataclass
class Group:
    """One group: its folder, its settings, and since when it is being ended (`monotonic`)."""

    number: int
    files: GroupFiles
    settings: Settings
    since: float = field(default_factory=time.monotonic)
    ending: float | None = None
    asked: float | None = None
    """When its processes were asked to end."""
    child: subprocess.Popen[bytes] | None = None
    """Its first process, where it is this one's child."""

    @property
    def workers(self) -> list[Worker]:
        return self.files.living_workers()

    @property
    def alive(self) -> bool:
        return bool(self.files.processes()) or (self.child is not None and self.child.poll() is None)

    @property
    def led(self) -> bool:
        """Whether its master lives: without one nobody replaces a worker."""
        master = read_file(self.files.group, Process)
        return master is not None and master.alive

    @property
    def whole(self) -> bool:
        """Whether as many workers as it has are ready."""
        return sum(worker.state == "ready" for worker in self.workers) >= self.settings.serving.workers

    @property
    def accepting(self) -> int:
        return sum(worker.accepting for worker in self.workers)

    def refusal(self) -> str | None:
        """Why this version cannot be served; None: it can, or that is not known yet."""
        found = (read_file(path, Worker) for path in sorted(self.files.workers.glob("*.json")))
        reasons = [worker.reason for worker in found if worker is not None and worker.state == "refused"]
        if reasons:
            return reasons[0]
        if not self.alive:
            return f"its processes ended; what they printed is in {self.files.output}"
        if time.monotonic() - self.since > HUNG_SECONDS:
            return f"it was not ready within {HUNG_SECONDS} s; what it printed is in {self.files.output}"
        return None

    def begin_ending(self) -> None:
        self.files.set_gate("closed")
        self.ending = time.monotonic()

    def ended(self, *, patience: float) -> bool:
        """To be called until it is true: asks its processes to end once no connection is left, or after `patience` seconds."""
        if not self.alive:
            return True
        processes = self.files.processes()
        if not processes and self.child is not None:
            processes = [process_of(self.child.pid)]  # it has not come to write its number down
        assert self.ending is not None
        now = time.monotonic()
        # What is seen is up to a second old.
        waited = now - self.ending
        idle = waited > 2 and not sum(worker.connections + worker.accepting for worker in self.workers)
        if self.asked is None and (idle or waited > patience):
            self.asked = now
            led = self.led
            send(processes[:1] if led else processes, signal.SIGTERM)
        grace = self.settings.serving.limits.timeout_seconds + _KILL_SECONDS
        if self.asked is not None and now - self.asked > grace:
            send(processes, signal.SIGKILL)
        return False


def send(processes: list[Process], number: signal.Signals) -> None:
    for process in processes:
        if process.alive:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def start(
    folder: Path, number: int, settings: Settings, listener: socket.socket, environment: Environment
) -> Group:
    """A group with its gate closed, in a session of its own: it outlives who started it. Raises: OSError, ValueError."""
    files = GroupFiles(folder / str(number))
    shutil.rmtree(files.folder, ignore_errors=True)
    files.workers.mkdir(parents=True)
    files.set_gate("closed")
    write_file(files.settings, settings)
    paths = os.pathsep.join(
        filter(None, [str(Path(assay.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    descriptor = listener.fileno()
    words = ["-m", "assay.release.server.group", str(files.folder), str(descriptor)]
    variables = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    command, variables = environment.command(settings.bundle, words, variables, _seen(folder, settings))
    leased = [] if environment.lease is None else [environment.lease]
    with files.output.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[descriptor, *leased],
            start_new_session=True,
            env=variables,
        )
    if environment.kind != "apptainer":  # there it is the number of apptainer, not of gunicorn
        try:
            write_file(files.group, process_of(child.pid))
        except OSError:  # nobody could find it
            child.kill()
            child.wait()
            raise
    return Group(number, files, settings, child=child)


def _seen(folder: Path, settings: Settings) -> list[Path]:
    """Folders that an image must show: those that a version's processes write to and read from."""
    places = [settings.predictions, settings.shared]
    for place in (folder, *places):
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
    files = [settings.salt, settings.copies]
    jwt, signatures = settings.serving.jwt, settings.serving.signatures
    sources = [jwt.jwks if jwt else "", signatures.secrets if signatures else ""]
    files += [Path(source).absolute() for source in sources if source and not source.startswith("env:")]
    return [folder, *filter(None, places), *(file.parent for file in files if file is not None)]


def open_group(folder: Path) -> Group | None:
    """One that somebody else started; None where its settings are not whole."""
    files = GroupFiles(folder)
    settings = read_file(files.settings, Settings)
    return None if settings is None else Group(int(folder.name), files, settings)


def numbers(folder: Path) -> list[int]:
    """Of all groups in a folder, in order."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def remove_ended(folder: Path) -> None:
    """All but the newest folders of groups without processes."""
    ended = [number for number in numbers(folder) if not GroupFiles(folder / str(number)).processes()]
    for number in ended[:-KEPT_FOLDERS]:
        shutil.rmtree(folder / str(number), ignore_errors=True)
