"""Assay's own front, for machines without nginx: the same split, rules, failover and log, under gunicorn."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from assay.release.layout import Layout
from assay.release.routing.front import Front, listen, port_is_free
from assay.release.routing.held import FILE, Held
from assay.release.routing.identities import forget
from assay.release.routing.plan import FrontError, Plan
from assay.release.routing.processes import (
    HARDER_SECONDS,
    command_line,
    end,
    ended,
    holders,
    holding,
    send,
    wait_for,
)
from assay.release.routing.rates import FILE as RATES
from assay.release.routing.rotation import cut, shift
from assay.release.routing.split import UNITS, units
from assay.release.schema import Limits, Routing
from assay.release.security import alone

FOLDER = "ASSAY_FRONT"
"""The variable that tells workers where the front is."""
START_SECONDS = 120.0


class PythonFront(Front):
    def __init__(self, layout: Layout, routing: Routing, limits: Limits, workers: int = 2) -> None:
        super().__init__(layout, routing, limits)
        self.workers = workers
        self._pid = self.folder / "gunicorn.pid"

    def command(self) -> list[str]:
        """Wants the variable ASSAY_FRONT, the front's folder."""
        half_minute = round(self.limits.timeout_seconds) + 30
        command = [sys.executable, "-m", "gunicorn", "assay.release.routing.application:application()"]
        command += [*alone.COMMAND, "--worker-class", "assay.release.security.worker.QuietWorker"]
        command += ["--workers", str(self.workers), "--pid", str(self._pid), "--no-control-socket"]
        command += ["--bind", listen(self.routing.address, self.routing.port), "--keep-alive", "65"]
        command += ["--graceful-timeout", str(half_minute), "--umask", "0o077"]
        if self.routing.tls is not None:
            for name, option in (("certificate", "--certfile"), ("key", "--keyfile")):
                command += [option, str(Path(getattr(self.routing.tls, name)).absolute())]
        return command

    def running(self) -> int | None:
        try:
            pid = int(self._pid.read_text())
        except (OSError, ValueError):
            return None
        return pid if not ended(pid) and str(self._pid) in command_line(pid) else None

    def stop(self, seconds: float = 30.0) -> None:
        pid = self.running()
        processes = [pid] if pid is not None else self._orphans()
        if not end(processes, (signal.SIGTERM, signal.SIGKILL), seconds):
            raise FrontError(f"the front (process {processes[0]}) does not end")
        for orphan in self._orphans():
            send(orphan, signal.SIGKILL)
        self._pid.unlink(missing_ok=True)
        self._forget()

    def rotate(self, size: int, keep: int) -> bool:
        moved = shift(self.layout.access, size, keep)
        return cut(self.folder / "error.log", size, keep) or moved

    def lingers(self, before: Layout) -> bool:
        """By the file of a generation: a worker has it open as long as a request is answered by it."""
        others = {
            str((folder / FILE).resolve())
            for folder in (self.folder / "generations").glob("*")
            if folder.name.isdigit() and not self.owns(int(folder.name))
        }
        return bool(holding(others.__contains__))

    def _files(self, plan: Plan) -> dict[str, str]:
        held = Held(
            generation=plan.generation,
            share=units(plan.share) / UNITS,
            salt=self.salt(),
            token=self.token(),
            stable=plan.stable,
            candidate=plan.candidate,
            identity=plan.identity,
            early=self.digests(plan.early),
            testers=self.digests(self.routing.testers),
            any_tester="*" in self.routing.testers,
            header=self.routing.header.lower(),
            body_bytes=self.limits.body_bytes,
            timeout_seconds=self.limits.timeout_seconds,
            per_address=self.limits.per_address,
            access=str(self.layout.access.absolute()),
            secure=self.routing.tls is not None,
            trusted_proxies=self.routing.trusted_proxies,
        )
        return {FILE: held.text()}

    def _check(self, generation: Path) -> None:
        """Nothing: it was made of what was checked, and is whole or absent."""

    def _launch(self) -> None:
        orphans = self._orphans()
        for orphan in orphans:
            send(orphan, signal.SIGKILL)
        self._forget()
        address, port = self.routing.address, self.routing.port
        if not wait_for(lambda: port_is_free(address, port), HARDER_SECONDS if orphans else 2.0):
            raise FrontError(
                f"{listen(address, port)} is taken; free it, or write another `routing: {{port: …}}`"
            )
        source = str(Path(__file__).parents[3])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {FOLDER: str(self.folder), "PYTHONPATH": os.pathsep.join(paths)}
        environment |= alone.VARIABLES
        with (self.folder / "error.log").open("a") as log:
            program = subprocess.Popen(
                self.command(),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        if not wait_for(lambda: self.confirm() is not None or program.poll() is not None, START_SECONDS):
            program.kill()
        if program.poll() is not None:
            raise FrontError(f"the front does not start; {self._evidence()}")

    def _reload(self) -> None:
        """Its workers look at each request."""
        if self.running() is None:
            raise FrontError(f"the front ended; {self._evidence()}")

    def _forget(self) -> None:
        """What workers that have ended shared."""
        forget(self.folder)
        (self.folder / RATES).unlink(missing_ok=True)

    def _orphans(self) -> list[int]:
        """Workers whose master was killed: they go on serving, and hold the port."""
        if self.running() is not None:
            return []
        return [pid for pid in holders(self.folder / "error.log") if str(self._pid) in command_line(pid)]
