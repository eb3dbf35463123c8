"""The two versions and the identity service as processes of their own, which live on when the controller does not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from assay.release.bundle.manifest import MANIFEST
from assay.release.layout import Layout
from assay.release.observations import Role
from assay.release.ramp.parts import PartError, Running
from assay.release.ramp.state import Version
from assay.release.server.files import Action, Service, Swap, read_file
from assay.release.server.groups import Group, numbers, open_group
from assay.release.server.swap_command import order

AGAIN_SECONDS = 5.0
"""Between two tries to start or to swap the same version."""
_LAST_LINES = 3


@dataclass
class Supervised:
    """`assay release serve` for each role, told by its files what to serve."""

    layout: Layout
    _tried: dict[Role, tuple[str, float]] = field(default_factory=dict)
    """Version that was asked for last, and when (monotonic)."""
    _retired: int | None = None
    """The group that was asked to end last."""
    _left: dict[tuple[Role, int], Group] = field(default_factory=dict)
    """Groups that are being ended from here."""
    _children: dict[Role, subprocess.Popen[bytes]] = field(default_factory=dict)

    def running(self, role: Role) -> Running:
        service = self.service(role)
        if service is None:
            return self._absent(role)
        group = self._active(role, service)
        last = service.swaps[-1] if service.swaps else None
        if group is None or not group.alive:
            detail = "is starting" if last is None else last.reason or f"is {last.state}"
            return Running(None, ready=False, detail=detail, starting=last is None or last.ended is None)
        failed = last is not None and last.state == "failed"
        detail = (
            f"{last.reason}" if last is not None and failed else "" if group.accepting else "does not accept"
        )
        coming = [version_of(Path(swap.bundle or "")) for swap in _preparing(service)]
        version = version_of(group.settings.bundle)
        return Running(version, ready=group.accepting > 0, detail=detail, coming=(*coming, None)[0])

    def serve(self, role: Role, version: Version) -> None:
        """A supervisor that lives is told to swap; where none does, one is started and takes over what still answers."""
        tried, when = self._tried.get(role, ("", 0.0))
        if tried == version.version and time.monotonic() - when < AGAIN_SECONDS:
            return
        service = self.service(role)
        going = service is not None and any(swap.ended is None for swap in service.swaps)
        others = [] if service is None else _preparing(service)
        if service is not None and (going or not service.swaps):
            if any(Path(other.bundle or "") != Path(version.folder).resolve() for other in others):
                self._tried[role] = (version.version, time.monotonic())
                self._order(role, "abandon")
            return
        self._tried[role] = (version.version, time.monotonic())
        if service is None:
            try:
                self._start(role, version)
            except OSError as error:
                raise PartError(str(error)) from None
        else:
            self._order(role, "swap", Path(version.folder))

    def stop(self, role: Role) -> None:
        """Asks; it answers what it has, and ends."""
        service = self.service(role)
        if service is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(service.process.pid, signal.SIGTERM)

    def end(self, role: Role) -> bool:
        """To be called until it is true: also ends what answers without a supervisor."""
        self.stop(role)
        if self.service(role) is not None:
            return False
        folder = self.layout.service(role) / "groups"
        for number in numbers(folder):
            group = self._left.get((role, number)) or open_group(folder / str(number))
            if group is None or not group.alive:
                continue
            if group.ending is None:
                group.begin_ending()
                self._left[role, number] = group
            group.ended(patience=group.settings.serving.limits.timeout_seconds)
        return not any(
            group.alive for number in numbers(folder) if (group := open_group(folder / str(number)))
        )

    def retire(self) -> None:
        """The version before is kept warm by its supervisor until it is told."""
        service = self.service("stable")
        if service is None or service.standby is None or service.standby == self._retired:
            return
        self._order("stable", "retire")
        self._retired = service.standby

    def _order(self, role: Role, action: Action, bundle: Path | None = None) -> None:
        try:
            order(self.layout.service(role).absolute(), action, bundle)
        except (ValueError, OSError) as error:
            raise PartError(str(error)) from None

    def address(self, role: Role) -> str | None:
        """`HOST:PORT`; None: no supervisor lives."""
        service = self.service(role)
        return None if service is None else f"{service.address}:{service.port}"

    def service(self, role: Role) -> Service | None:
        """What its supervisor says of itself; None: none lives."""
        service = read_file(self.layout.service(role) / "service.json", Service)
        return service if service is not None and service.process.alive else None

    def _active(self, role: Role, service: Service) -> Group | None:
        if service.active is None:
            return None
        return open_group(self.layout.service(role) / "groups" / str(service.active))

    def _absent(self, role: Role) -> Running:
        child = self._children.get(role)
        if child is None:
            return Running(None, ready=False, detail="does not run")
        status = child.poll()
        if status is None:
            return Running(None, ready=False, detail="is starting", starting=True)
        return Running(None, ready=False, detail=f"ended: {self._last_words(role)}", refused=status != 0)

    def _start(self, role: Role, version: Version) -> None:
        folder = self.layout.service(role)
        folder.mkdir(parents=True, exist_ok=True)
        # The port that the front knows is kept where it is still free.
        before = read_file(folder / "service.json", Service)
        failed = role in self._children and self._children[role].poll() not in (None, 0)
        port = 0 if before is None or failed else before.port
        command = [
            *(sys.executable, "-P", "-m", "assay.cli", "release", "serve", version.folder),
            *("--release", str(self.layout.folder), "--role", role, "--port", str(port)),
        ]
        with (folder / "output.log").open("ab") as output:
            self._children[role] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _last_words(self, role: Role) -> str:
        with contextlib.suppress(OSError):
            text = (self.layout.service(role) / "output.log").read_text(errors="replace")
            return " / ".join(text.strip().splitlines()[-_LAST_LINES:])
        return "it printed nothing"


def _preparing(service: Service) -> list[Swap]:
    """A version by order whose environment is being made, which takes minutes and can be given up."""
    return [swap for swap in service.swaps if swap.state == "preparing" and swap.action == "swap"]


def version_of(bundle: Path) -> str | None:
    """As its manifest says; it was compared with its content when it was loaded."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((bundle / MANIFEST).read_bytes())["version"])
    return None
