"""The front, whatever it is made of: told what to do, asked what it does."""

import fcntl
import hashlib
import hmac
import http.client
import ipaddress
import json
import os
import shutil
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from assay.release.layout import Layout
from assay.release.routing.plan import GO, FrontError, Plan, check_folder
from assay.release.schema import Limits, Release, Routing
from assay.release.security.salt import read_salt, user_digest

KEPT_GENERATIONS = 20
KEPT_SECONDS = 600.0
"""Generations that workers may still serve old connections by are kept as long."""
CONFIRM_SECONDS = 30.0
IN_A_ROW = 8
"""Answers on new connections, one after the other, that must all be of the new generation."""
OWNER = "release"
"""File beside a generation that names the release whose it is: a front may have had another's before."""


class Standing(NamedTuple):
    """What a front says that it does."""

    generation: int
    share: float
    """0 where it is halted."""
    early: bool
    """Whether early users have the candidate."""
    worker: int
    """Process that said so."""


class Front(ABC):
    """Splits users between versions. Its processes outlive whoever started them; any number may look at it.

    `layout.front` holds `generations/N/`, `active` (a link to the generation in use) and what the programs leave. A
    release that took over the front of another has a link there, to where that front lies.
    """

    def __init__(self, layout: Layout, routing: Routing, limits: Limits) -> None:
        """Raises: ValueError for settings that no front can hold."""
        self.layout, self.routing, self.limits = layout, routing, limits
        at = layout.front.absolute()
        self.folder = at.readlink() if at.is_symlink() else at
        check_folder(self.folder)

    @abstractmethod
    def command(self) -> list[str]:
        """The program in the foreground, as a service manager starts it after `prepare`."""

    @abstractmethod
    def running(self) -> int | None:
        """Process id of the front's first process; None: none runs."""

    @abstractmethod
    def stop(self, seconds: float = 30.0) -> None:
        """End it: requests under way are answered, what takes longer is cut off. Nothing where none runs."""

    @abstractmethod
    def rotate(self, size: int, keep: int) -> bool:
        """Begin new logs, of requests and of errors, where one has `size` bytes, and keep so many old ones; whether it did."""

    @abstractmethod
    def lingers(self, before: Layout) -> bool:
        """Whether any of its processes may still send requests to where a release did that had the front before."""

    @abstractmethod
    def _check(self, generation: Path) -> None:
        """Raises: FrontError where the front's program would not take a generation."""

    @abstractmethod
    def _launch(self) -> None:
        """Start the program; it takes the active generation."""

    @abstractmethod
    def _reload(self) -> None:
        """Have the running program take the active generation."""

    @abstractmethod
    def _files(self, plan: Plan) -> dict[str, str]:
        """Name and text of a generation's files."""

    def start(self, plan: Plan) -> None:
        """Have it run and hold the plan, whether it ran before or not.

        Raises: FrontError where it does not; ValueError for a plan that cannot be.
        """
        with self._alone():
            if self.running() is not None:
                try:
                    self._change(plan)
                    return
                except FrontError:
                    if self.running() is not None:
                        raise
            self._activate(self._written(plan))
            self._launch()
            self._await(plan.generation)

    def prepare(self, plan: Plan) -> None:
        """Write the plan as what `command` starts with."""
        with self._alone():
            self._activate(self._written(plan))

    def apply(self, plan: Plan) -> None:
        """Change what a running front does, and see that it does it. A share of 0 holds from the first instant on.

        Raises: FrontError where it does not; then what held before still holds, but for a share of 0, which then is
        a halt. ValueError for a plan that cannot be.
        """
        with self._alone():
            if self.running() is None:
                raise FrontError(f"the front in {self.folder} does not run; start it")
            self._change(plan)

    def halt(self) -> None:
        """Every new request goes to the stable version from now on, also on connections that were there before."""
        for folder in (self.folder / "generations").glob("*"):
            if not folder.name.startswith("."):
                (folder / GO).unlink(missing_ok=True)

    def halted(self) -> bool:
        """Whether the generation in use was halted; one that is to have a share never is otherwise."""
        return halted(self.layout)

    def confirm(self, seconds: float = 2.0) -> Standing | None:
        """What it really does, asked on a new connection; None: it does not answer."""
        try:
            return self._ask(seconds)
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return None

    def active(self) -> int | None:
        """The generation that the front is to have, by its files."""
        try:
            return int((self.folder / "active").readlink().name)
        except (OSError, ValueError):
            return None

    def owns(self, generation: int) -> bool:
        """Whether a generation is this release's."""
        try:
            name = (self.folder / "generations" / str(generation) / OWNER).read_text()
        except OSError:
            return not self.layout.front.is_symlink()
        return name == self.layout.folder.name

    def salt(self) -> str:
        """Raises: ValueError where there is none, or others may read it."""
        return read_salt(self.layout.salt).decode()

    def token(self) -> str:
        """What opens the front's own page: made of the salt, so that who may read that may ask."""
        return hmac.new(self.salt().encode(), b"front", hashlib.sha256).hexdigest()[:32]

    def digests(self, subjects: list[str] | tuple[str, ...]) -> list[str]:
        salt = self.salt().encode()
        return sorted({user_digest(salt, subject) for subject in subjects if subject != "*"})

    def _change(self, plan: Plan) -> None:
        before = self.active()
        if before is not None and plan.generation < before:
            raise ValueError(f"generation {plan.generation} is older than {before}, which the front has")
        if plan.share == 0:
            self._halt_before(plan.generation)
        folder = self._written(plan)
        try:
            self._activate(folder)
            self._reload()
            self._await(plan.generation)
        except FrontError:
            if before is not None and before != plan.generation:
                self._link(self.folder / "generations" / str(before))
                self._reload()
            raise
        self._sweep()

    def _halt_before(self, generation: int) -> None:
        for folder in (self.folder / "generations").glob("*"):
            if folder.name.isdigit() and int(folder.name) < generation:
                (folder / GO).unlink(missing_ok=True)

    def _written(self, plan: Plan) -> Path:
        """A generation's folder, whole or absent, readable by its owner alone."""
        folder = self.folder / "generations" / str(plan.generation)
        files = self._files(plan) | {"plan.json": json.dumps(asdict(plan)) + "\n"}
        if folder.exists():
            if all(_same(folder / name, text) for name, text in files.items()):
                if plan.share > 0:
                    (folder / GO).touch()
                return folder
            if plan.generation == self.active():
                raise ValueError(
                    f"generation {plan.generation} is another plan already; give this one a new number"
                )
            shutil.rmtree(folder)
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        self.layout.access.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        temporary.mkdir(parents=True, mode=0o700)
        for name, text in (files | {GO: "", OWNER: self.layout.folder.name}).items():
            with os.fdopen(os.open(temporary / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(folder)
        return folder

    def _activate(self, generation: Path) -> None:
        self._check(generation)
        self._link(generation)

    def _link(self, generation: Path) -> None:
        temporary = self.folder / f".active.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("generations") / generation.name)
        temporary.replace(self.folder / "active")

    def _await(self, generation: int) -> None:
        """Until new connections get the generation, every one; old workers may go on with old connections."""
        deadline = time.monotonic() + CONFIRM_SECONDS
        seen, in_a_row = None, 0
        while in_a_row < IN_A_ROW:
            seen = self.confirm(max(0.1, min(2.0, deadline - time.monotonic())))
            in_a_row = in_a_row + 1 if seen is not None and seen.generation == generation else 0
            if time.monotonic() > deadline:
                says = "does not answer" if seen is None else f"still has generation {seen.generation}"
                raise FrontError(f"generation {generation}: the front {says}; {self._evidence()}")
            if not in_a_row:
                time.sleep(0.02)

    def _evidence(self) -> str:
        return f"see {self.folder / 'error.log'}"

    def _ask(self, seconds: float) -> Standing:
        address = self.routing.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        context = ssl._create_unverified_context() if self.routing.tls else None
        made: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, self.routing.port, timeout=seconds, context=context)
            if context
            else http.client.HTTPConnection(host, self.routing.port, timeout=seconds)
        )
        try:
            made.request(
                "GET", "/_assay/front", headers={"X-Assay-Front": self.token(), "Connection": "close"}
            )
            answer: dict[str, Any] = json.loads(made.getresponse().read())
        finally:
            made.close()
        return Standing(
            int(answer["generation"]), float(answer["share"]), bool(answer["early"]), int(answer["worker"])
        )

    def _sweep(self) -> None:
        """Remove generations that nothing can be serving by any more."""
        folders = [f for f in (self.folder / "generations").glob("*") if f.name.isdigit()]
        for folder in sorted(folders, key=lambda f: int(f.name))[:-KEPT_GENERATIONS]:
            if time.time() - folder.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def halted(layout: Layout) -> bool:
    active = layout.front / "active"
    return active.exists() and not (active / GO).exists()


def front_of(release: Release, layout: Layout) -> Front:
    """The front that a release asks for. Raises: ValueError where it cannot be had here."""
    if release.routing.front == "nginx":
        from assay.release.routing.nginx import NginxFront

        return NginxFront(layout, release.routing, release.serving.limits)
    from assay.release.routing.gunicorn import PythonFront

    return PythonFront(layout, release.routing, release.serving.limits)


def listen(address: str, port: int) -> str:
    """`ADDRESS:PORT`, with brackets where it must have them. Raises: ValueError for no address of a machine."""
    try:
        return f"[{address}]:{port}" if ipaddress.ip_address(address).version == 6 else f"{address}:{port}"
    except ValueError:
        raise ValueError(
            f"routing.address: {address!r} is no address; write one of this machine's, 127.0.0.1 or 0.0.0.0"
        ) from None


def port_is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _same(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except OSError:
        return False
