"""Keeps one version answering on one address, and replaces it by another without a request that fails.

It holds the listening socket and hands it to groups of workers. A new version is started beside the old, loads, is warmed and
compared; when all its workers are ready its gate is opened, and the old one's closed. What is wanted is read from a file, what
is so is written to one. Groups outlive the supervisor: one that comes anew has the socket from them, and goes on.
"""

import fcntl
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from assay.release.environments.making import Making
from assay.release.server.files import Service, Swap, Wanted, read_file, this_process, write_file
from assay.release.server.group import BACKLOG, HUNG_SECONDS
from assay.release.server.groups import Group, numbers, open_group, remove_ended, start
from assay.release.server.handover import take
from assay.release.server.settings import Settings
from assay.release.server.swaps import KEPT, begun, broken_off, done, failed

PORT = 8000
"""Where nothing else is said."""
TICK_SECONDS = 0.05
_SWITCH_SECONDS = 30.0
_LONGEST_PAUSE = 30.0
_ABANDONED = "abandoned, as it was asked for"


@dataclass(frozen=True)
class _Coming:
    """A version whose environment is being made."""

    swap: Swap
    settings: Settings
    making: Making


class Supervisor:
    """Of one service folder. settings: those of every group, but for the bundle."""

    def __init__(
        self, folder: Path, settings: Settings, address: str, port: int | None, say: Callable[[str], None]
    ) -> None:
        self._folder, self._settings, self._say = folder, settings, say
        self._groups = folder / "groups"
        try:
            self._groups.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("w")
        except OSError as error:
            raise ValueError(
                f"{folder}: cannot be written: {error.strerror}; name another --folder"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{folder}: another `assay release serve` runs there; "
                "to change its version: assay release swap BUNDLE --folder FOLDER; or name another --folder"
            ) from None
        self._ended = False
        self._coming: list[_Coming] = []
        """At most one by order and before it one that starts again what answered; what answered goes first."""
        self._abandoned: list[Making] = []
        self._ending: list[Group] = []
        self._active: Group | None = None
        self._standby: Group | None = None
        self._next: Group | None = None
        self._swap: Swap | None = None
        self._switched: float | None = None
        self._pause, self._again = 1.0, 0.0
        before = read_file(folder / "service.json", Service)
        self._listener = self._adopt(before, address, port) or _bound(address, PORT if port is None else port)
        host, found = self._listener.getsockname()[:2]
        wanted = read_file(folder / "wanted.json", Wanted)
        self._number = wanted.number if wanted is not None else 0
        self._service = Service(
            process=this_process(),
            address=host,
            port=found,
            role=settings.role,
            taken=self._number,
            swaps=[] if before is None else broken_off(before, wanted),
        )
        self._write()

    @property
    def port(self) -> int:
        return self._service.port

    def _adopt(self, before: Service | None, address: str, port: int | None) -> socket.socket | None:
        """Take over the groups that live, and the socket that they listen on; None where none does."""
        found = [open_group(self._groups / str(number)) for number in numbers(self._groups)]
        living = [group for group in found if group is not None and group.alive]
        if not living or before is None:
            return None
        listener = _taken_from(living)
        for group in living:
            if group.number == before.active and listener is not None:
                self._active = group
                group.files.set_gate("open")
            elif group.number == before.standby and listener is not None:
                self._standby = group
                group.files.set_gate("closed")
            else:
                group.begin_ending()
                self._ending.append(group)
        if listener is not None and port not in (None, 0, listener.getsockname()[1]):
            held = listener.getsockname()[1]
            raise ValueError(
                f"{self._folder}: what runs there listens on port {held}; write --port {held}, or end it first: "
                "start it again as it was, and send it SIGTERM"
            )
        return listener

    def run(self) -> int:
        """Until SIGTERM or SIGINT; 1: the first version cannot be served."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._active is None:
            self._begin("start", self._settings)
        elif self._active.settings != self._settings:
            self._begin("swap", self._settings)
        else:
            self._say(f"version of group {self._active.number} still runs; taken over")
        while not self._ended:
            self._take_order()
            self._start_when_made()
            self._follow()
            self._keep()
            self._end_groups()
            if self._active is None and not self._busy and not self._again:
                self._stop()
                return 1
            time.sleep(TICK_SECONDS)
        self._stop()
        return 0

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._ended = True

    def _take_order(self) -> None:
        wanted = read_file(self._folder / "wanted.json", Wanted)
        if wanted is None or wanted.number <= self._number or (self._busy and wanted.action != "abandon"):
            return
        self._number = wanted.number
        match wanted.action:
            case "swap":
                assert wanted.bundle is not None
                self._begin("swap", self._settings.model_copy(update={"bundle": Path(wanted.bundle)}), wanted)
            case "back":
                self._back(wanted)
            case "retire":
                swap = begun(wanted.number, "retire", None)
                if self._standby is None:
                    self._note(failed(swap, "there is no version that is kept warm"))
                else:
                    self._retire()
                    self._note(done(swap, None))
            case "abandon":
                self._abandon(begun(wanted.number, "abandon", None))

    @property
    def _busy(self) -> bool:
        """Whether a version is on its way."""
        return self._next is not None or bool(self._coming)

    def _begin(self, action: str, settings: Settings, wanted: Wanted | None = None) -> None:
        """Make the environment of a group that is to stand beside what runs: that can take minutes."""
        kind = settings.serving.environment
        swap = begun(0 if wanted is None else wanted.number, action, str(settings.bundle))
        if kind != "host":
            swap = swap.model_copy(update={"state": "preparing"})
        self._note(swap)
        try:
            making = Making(kind, settings.bundle, self._folder / f"environment.{action}.log")
        except (OSError, ValueError) as error:
            self._fail(swap, str(error))
            return
        self._coming.insert(0 if action == "restart" else len(self._coming), _Coming(swap, settings, making))

    def _start_when_made(self) -> None:
        """Start the group."""
        if not self._coming or self._next is not None:
            return
        coming = self._coming[0]
        swap = coming.swap.model_copy(update={"state": "loading"})
        try:
            environment = coming.making.poll()
            if environment is None:
                return
            remove_ended(self._groups)
            number = max(numbers(self._groups), default=0) + 1
            try:
                self._next = start(self._groups, number, coming.settings, self._listener, environment)
            finally:
                environment.close()
        except (OSError, ValueError) as error:
            self._coming.remove(coming)
            self._fail(swap, str(error))
            return
        self._coming.remove(coming)
        self._switched = None
        self._swap = swap.model_copy(update={"group": number})
        self._note(self._swap)

    def _fail(self, swap: Swap, reason: str) -> None:
        self._fail_again_later(swap)
        self._note(failed(swap, reason))

    def _abandon(self, own: Swap) -> None:
        """Give up the version that is on its way by order; one that is started again because it died is not given up."""
        for coming in self._coming:
            if coming.swap.action == "swap":
                self._coming.remove(coming)
                coming.making.abandon()
                self._abandoned.append(coming.making)
                self._note(failed(coming.swap, _ABANDONED))
                self._note(done(own, None))
                return
        if self._next is not None and self._swap is not None and self._swap.action in ("swap", "back"):
            self._give_up(self._next, self._swap, _ABANDONED)
            self._note(done(own, None))
            return
        self._note(failed(own, "no version is on its way"))

    def _fail_again_later(self, swap: Swap) -> None:
        """What answered and has to be started again is tried after a while."""
        if swap.action == "restart":
            self._again = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _back(self, wanted: Wanted) -> None:
        """The version that is warm takes over at once."""
        swap = begun(wanted.number, "back", None)
        standby = self._standby
        if standby is None or not standby.whole:
            why = (
                "there is no version that is kept warm"
                if standby is None
                else "its workers are not all ready"
            )
            self._note(failed(swap, why))
            return
        swap = swap.model_copy(update={"bundle": str(standby.settings.bundle), "group": standby.number})
        self._standby, self._next, self._switched, self._swap = None, standby, None, swap
        self._note(swap)

    def _follow(self) -> None:
        """Bring the new group from loading to answering."""
        group, swap = self._next, self._swap
        if group is None or swap is None:
            return
        if self._switched is None:
            # First: what was kept warm for longer than a start may take is ready all the same.
            if group.whole:
                group.files.was_ready.touch()
                group.files.set_gate("open")
                self._switched = time.monotonic()
                self._swap = swap.model_copy(update={"state": "switching"})
                self._note(self._swap)
            elif (reason := group.refusal()) is not None:
                self._give_up(group, swap, reason)
        elif group.whole and group.accepting >= group.settings.serving.workers:
            self._take_over(group, swap)
        elif time.monotonic() - self._switched > _SWITCH_SECONDS:
            self._give_up(group, swap, f"its workers did not accept connections within {_SWITCH_SECONDS:g} s")

    def _take_over(self, group: Group, swap: Swap) -> None:
        before, self._active, self._next = self._active, group, None
        self._pause, self._again = 1.0, 0.0
        self._settings = group.settings
        if swap.action == "restart" and before is not None:
            before.begin_ending()
            self._ending.append(before)
        elif before is not None:
            self._retire()
            self._standby = before
        self._write()  # from here on a supervisor that comes anew keeps this one
        if before is not None:
            before.files.set_gate("closed")
            self._wait(lambda: not before.accepting)
        self._note(done(swap, group.number))

    def _wait(self, condition: Callable[[], bool]) -> None:
        """For what takes workers a tenth of a second, and longer only where they hang."""
        until = time.monotonic() + _SWITCH_SECONDS
        while not condition() and time.monotonic() < until:
            time.sleep(TICK_SECONDS / 5)

    def _give_up(self, group: Group, swap: Swap, reason: str) -> None:
        """What answered before goes on."""
        self._next = None
        if swap.action == "back":
            group.files.set_gate("closed")
            self._standby = group
        else:
            group.begin_ending()
            self._ending.append(group)
        self._fail(swap, reason)

    def _keep(self) -> None:
        """A version whose master or last worker died is started again; workers that are left answer until then."""
        if self._active is None or self._next is not None or time.monotonic() < self._again:
            return
        if any(coming.swap.action == "restart" for coming in self._coming):
            return
        if not self._active.led:
            self._say(f"group {self._active.number} has lost its master; starting it again")
            self._begin("restart", self._active.settings)

    def _retire(self) -> None:
        if self._standby is not None:
            self._standby.begin_ending()
            self._ending.append(self._standby)
            self._standby = None

    def _end_groups(self) -> None:
        patience = self._settings.drain_seconds
        self._ending = [group for group in self._ending if not group.ended(patience=patience)]
        self._abandoned = [making for making in self._abandoned if not making.poll_end()]

    def _stop(self) -> None:
        """End everything: requests that are there are answered."""
        limits = self._settings.serving.limits
        for group in (self._active, self._standby, self._next):
            if group is not None:
                group.begin_ending()
                self._ending.append(group)
        for coming in self._coming:
            coming.making.abandon()
            self._abandoned.append(coming.making)
        self._listener.close()
        while self._ending or self._abandoned:
            patience = min(limits.timeout_seconds, self._settings.drain_seconds)
            self._ending = [group for group in self._ending if not group.ended(patience=patience)]
            self._abandoned = [making for making in self._abandoned if not making.poll_end()]
            time.sleep(TICK_SECONDS)
        (self._folder / "service.json").unlink(missing_ok=True)

    def _note(self, swap: Swap) -> None:
        """Write down and print how an order stands."""
        others = [one for one in self._service.swaps if one.began != swap.began]
        told = any((one.began, one.state) == (swap.began, swap.state) for one in self._service.swaps)
        self._service = self._service.model_copy(update={"swaps": [*others, swap][-KEPT:]})
        self._write()
        why = f": {swap.reason}" if swap.reason else ""
        if not told:
            self._say(f"{swap.action} {swap.bundle or ''}: {swap.state}{why}".replace(" :", ":"))

    def _write(self) -> None:
        found = {
            "active": None if self._active is None else self._active.number,
            "standby": None if self._standby is None else self._standby.number,
            "taken": self._number,
        }
        self._service = self._service.model_copy(update=found)
        try:
            write_file(self._folder / "service.json", self._service)
        except OSError as error:  # versions are not to suffer from a full disk
            self._say(f"{self._folder / 'service.json'}: cannot be written: {error.strerror}")


def _taken_from(groups: list[Group]) -> socket.socket | None:
    """The socket of whichever worker hands it over. Waited for while one is started in the place of one that died."""
    until = time.monotonic() + HUNG_SECONDS
    while time.monotonic() < until and any(group.alive for group in groups):
        for group in groups:
            for worker in group.workers:
                if listener := take(group.files.socket(worker.process.pid)):
                    return listener
        time.sleep(TICK_SECONDS)
    return None


def _bound(address: str, port: int) -> socket.socket:
    """A listening socket. Raises: ValueError naming what to write instead."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ValueError(
            f"assay release serve: cannot listen on {address} port {port}: {error.strerror}; "
            "write another --port (0: any that is free) or --address"
        ) from None
    return listener
