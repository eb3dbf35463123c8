"""nginx as the front, run by an ordinary user in the release's folder.

A generation is rendered from `release/nginx/front.conf.j2`, checked by `nginx -t`, linked to as `active`, loaded by
SIGHUP, and asked for over new connections. Workers of older generations end when their connections do.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path

from assay.release.layout import Layout
from assay.release.routing.front import Front, listen, port_is_free
from assay.release.routing.plan import FrontError, Plan, check_folder
from assay.release.routing.processes import (
    HARDER_SECONDS,
    children,
    command_line,
    end,
    holders,
    holding,
    send,
    wait_for,
)
from assay.release.routing.rotation import cut, shift
from assay.release.routing.split import units
from assay.release.schema import Limits, Routing

TEMPLATES = Path(__file__).parents[4] / "release" / "nginx"
OLDEST = (1, 27, 4)
"""The first that has `keepalive_min_timeout`."""
STANDING_SECONDS = 15.0
"""Longest that a change waits for old workers to see that there are new ones; ordinarily hundredths of a second."""
ERRORS = {
    # Not 400: what nginx could not even parse has no location to go to.
    404: "there is nothing here; POST to /predict",
    413: "the body is too large",
    429: "too many requests from this address; wait",
    500: "the front failed",
    502: "no version answers; try again",
    503: "no version answers; try again",
    504: "no version answered in time; try again",
}


class NginxFront(Front):
    def __init__(
        self, layout: Layout, routing: Routing, limits: Limits, workers: int = 2, program: str | None = None
    ) -> None:
        super().__init__(layout, routing, limits)
        self.workers = workers
        self.program = program or find_nginx()
        self._pid = self.folder / "nginx.pid"
        self._replaced: list[int] = []

    def command(self) -> list[str]:
        return [*self._base(), "-c", str(self.folder / "active" / "nginx.conf"), "-g", "daemon off;"]

    def running(self) -> int | None:
        try:
            pid = int(self._pid.read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def stop(self, seconds: float = 30.0) -> None:
        pid = self.running()
        processes = [pid] if pid is not None else self._orphans()
        over = end(processes, (signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL), seconds)
        for orphan in self._orphans():
            send(orphan, signal.SIGTERM)
        if not over:
            raise FrontError(f"nginx (process {processes[0]}) does not end")
        self._pid.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "identity-cache", ignore_errors=True)

    def rotate(self, size: int, keep: int) -> bool:
        moved = shift(self.layout.access, size, keep)
        # Also where whoever moved it ended before it told nginx.
        if (pid := self.running()) is not None and not self.layout.access.exists():
            send(pid, signal.SIGUSR1)
        return cut(self.folder / "error.log", size, keep) or moved

    def lingers(self, before: Layout) -> bool:
        """By the log: a worker has that of its generation's release open until it ends, the master until it has reloaded."""
        log = str(before.access.resolve())
        return any(
            command_line(pid).startswith("nginx: ") for pid in holding(lambda name: name.startswith(log))
        )

    def _base(self) -> list[str]:
        return [self.program, "-p", str(self.folder), "-e", str(self.folder / "error.log")]

    def _files(self, plan: Plan) -> dict[str, str]:
        return {"nginx.conf": self.render(plan)}

    def render(self, plan: Plan) -> str:
        """The configuration of one generation; it holds the salt."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        tls = None
        if self.routing.tls is not None:
            tls = {
                name: str(Path(getattr(self.routing.tls, name)).absolute()) for name in ("certificate", "key")
            }
            for path in tls.values():
                check_folder(Path(path))
        templates = Environment(
            loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=False
        )
        early, testers = self.digests(plan.early), self.digests(self.routing.testers)
        return templates.get_template("front.conf.j2").render(
            release=self.layout.folder.name,
            generation=plan.generation,
            share=units(plan.share) / 10_000,
            units=units(plan.share),
            stable=plan.stable,
            candidate=plan.candidate,
            identity=plan.identity,
            early=early,
            testers=testers,
            any_tester="*" in self.routing.testers,
            map_size=max(2048, 64 * (len(early) + len(testers))),
            salt=self.salt(),
            token=self.token(),
            header=self.routing.header,
            listen=listen(self.routing.address, self.routing.port),
            tls=tls,
            trusted_proxies=self.routing.trusted_proxies,
            body_bytes=self.limits.body_bytes,
            timeout_ms=max(2, round(self.limits.timeout_seconds * 1000)),
            per_address=self.limits.per_address,
            workers=self.workers,
            user=pwd.getpwuid(0).pw_name if os.geteuid() == 0 else None,
            front=self.folder,
            access=self.layout.access.absolute(),
            errors=ERRORS,
        )

    def _check(self, generation: Path) -> None:
        (self.folder / "temp").mkdir(exist_ok=True)
        command = [*self._base(), "-t", "-q", "-c", str(generation / "nginx.conf")]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise FrontError(f"nginx -t refuses generation {generation.name}: {done.stderr.strip()}")

    def _launch(self) -> None:
        orphans = self._orphans()
        for orphan in orphans:
            send(orphan, signal.SIGQUIT)
        address, port = self.routing.address, self.routing.port
        if not wait_for(lambda: port_is_free(address, port), HARDER_SECONDS if orphans else 1.0):
            raise FrontError(
                f"{listen(address, port)} is taken; free it, or write another `routing: {{port: …}}`"
            )
        done = subprocess.run(
            [*self.command()[:-2]], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=self.folder
        )
        if done.returncode != 0:
            raise FrontError(f"nginx does not start: {done.stderr.strip()}; {self._evidence()}")

    def _reload(self) -> None:
        pid = self.running()
        if pid is None:
            raise FrontError(f"nginx ended; {self._evidence()}")
        self._replaced = [child for child in children(pid) if _takes_connections(child)]
        send(pid, signal.SIGHUP)

    def _await(self, generation: int) -> None:
        """Also until the workers before take no connection any more: one that stood still would take another or two.

        One that goes on standing still is not waited for: whatever it holds, a halt holds for it too.
        """
        super()._await(generation)
        wait_for(lambda: not any(map(_takes_connections, self._replaced)), STANDING_SECONDS)

    def _is_ours(self, pid: int) -> bool:
        """Whether a process is the master of this front: its title holds the command that it was started with."""
        title = command_line(pid)
        return (
            title.startswith("nginx: master process") and str(self.folder / "active" / "nginx.conf") in title
        )

    def _orphans(self) -> list[int]:
        """Workers whose master was killed: they go on serving, and hold the port."""
        if self.running() is not None:
            return []
        return [pid for pid in holders(self.folder / "error.log") if command_line(pid).startswith("nginx: ")]


def _takes_connections(pid: int) -> bool:
    """Whether a child of nginx's is a worker, or is going to be one, that listens."""
    title = command_line(pid)
    return title.startswith(("nginx: worker", "nginx: master")) and "shutting down" not in title


def find_nginx() -> str:
    """Raises: ValueError where there is none that can be used."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    otherwise = "or write `routing: {front: python}`"
    if program is None:
        raise ValueError(f"nginx is not installed: install 1.27.4 or newer, {otherwise}")
    try:
        said = subprocess.run([program, "-v"], capture_output=True, text=True).stderr
    except OSError as error:
        raise ValueError(
            f"{program} cannot be run ({error.strerror}): install 1.27.4 or newer, {otherwise}"
        ) from None
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        raise ValueError(
            f"{program} is {said.strip() or 'of an unknown version'}: before 1.27.4 nginx loses requests when it is "
            f"reloaded; install a newer one, {otherwise}"
        )
    return program
