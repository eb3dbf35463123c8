"""The controller: looks, decides, writes it down, does it. Users are served without it, at the share last set."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from assay.release.layout import Layout
from assay.release.ramp import decide, orders
from assay.release.ramp.decide import Change
from assay.release.ramp.journal import Journal, Line, line
from assay.release.ramp.parts import Decision, Look, PartError, Parts
from assay.release.ramp.reconcile import reconcile
from assay.release.ramp.room import Room, is_full, without_room
from assay.release.ramp.state import Phase, Progress, State, Version
from assay.release.schema import Release

TICK_SECONDS = 0.25
LONGEST_TICK = 10.0
"""More between two looks was not watched, so it does not count as time in the step."""
BLIND_SECONDS = 60.0
"""A candidate on whom nobody can look for as long is turned back."""
START_SECONDS = 300.0
"""Longest that a candidate may take to be ready in preflight."""
WARN_SECONDS = 10.0
"""Trouble that lasts as long is told."""
WATCHED: tuple[Phase, ...] = ("shadow", "step", "bake", "retire")
_PROGRESS_SECONDS = 1.0
_FULL = "disk: it was full for {seconds:.0f} s; meanwhile the share was held, and log lines were lost"

Check = Callable[[State], list[str]]
"""What must be right before the first user: findings that speak against it, with both versions running."""


@dataclass
class Controller:
    """One release, from wherever it stands. Only the holder of its lock makes one.

    Args:
        served: asked once both versions run.
        told: called with every line of the journal, after it was written; must not block.
        clock: monotonic seconds.
    """

    release: Release
    layout: Layout
    parts: Parts
    served: Check
    told: Callable[[Line], None] = lambda line: None
    clock: Callable[[], float] = time.monotonic
    stopping: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.journal = Journal(self.layout)
        self._last: Line | None = None
        self._progress = Progress(line=0)
        self._written = -_PROGRESS_SECONDS
        self._looked: float | None = None
        self._recorded = 0
        self._warned: set[str] = set()
        self._since: dict[str, float] = {}
        self._room = Room(self.layout)
        self._owed: Change | None = None
        """A roll-back that is done and that there was no room to write down."""
        self._fresh = True

    @property
    def state(self) -> State:
        assert self._last is not None
        return self._last.state

    @property
    def number(self) -> int:
        """Of the journal's last line."""
        assert self._last is not None
        return self._last.number

    @property
    def progress(self) -> Progress:
        return self._progress

    def begin(self, stable: Version, candidate: Version, reason: str, predecessor: str | None = None) -> None:
        """Take up what the journal says; an empty one begins with its first line."""
        if not self.resume():
            self._room.found()
            self._commit(decide.begin(self.release, stable, candidate, reason, predecessor))

    def resume(self) -> bool:
        """Take up what the journal says. False: it says nothing."""
        self._last = self.journal.open()
        if self._last is None:
            return False
        self._warned = {_alike(old.reason) for old in self.journal.lines() if old.event == "warning"}
        self._progress = self.journal.progress(self.state.entered)
        with without_room():
            self.journal.write_state(self.state, self._progress)
        self.told(self._last)
        return True

    def run(self, *, until_held: bool = False, stay: bool = False) -> State:
        """Until the release is over and all is as wanted; until `stopping` is set; on request until it is held.

        stay: go on after its end, and keep running what is served.
        """
        while not (self.tick() and not stay) and not self.stopping.is_set():
            if until_held and (self.state.held is not None or self.state.paused):
                break
            self.stopping.wait(TICK_SECONDS)
        return self.state

    def tick(self) -> bool:
        """One round. True: the release is over, and nothing is left to do."""
        try:
            return self._round()
        except OSError as error:
            if not is_full(error):
                raise
            self._without_room(error)
            return False

    def _round(self) -> bool:
        if self._owed is not None:
            self._commit(self._owed)
        # Whoever halts has written an order before, so orders are looked for after.
        halted = self._fresh and self.parts.front.halted()
        self._take_orders()
        if halted and self.state.wanted.share > 0:
            why = "the front was halted, by whoever could not write it down"
            self._commit(decide.roll_back(self.state, self.number + 1, why))
        if not self._room.there:
            self._find_room()
        self._fresh = False
        state = self.state
        trouble, real = reconcile(state, self.parts, self.number)
        if real is not None or state.predecessor is None:  # until then its users are another release's
            self._record(trouble)
        look = self._guarded(self._look())
        self._count(look, trouble, real.share if real else None)
        if state.phase == "preflight" and not trouble:
            self._begin_or_refuse()
        else:
            self._go_on(look, as_wanted=not trouble)
        self._warn(look, trouble)
        self._write_progress()
        return state.over and not trouble and self.state is state and self._is_alone()

    def _find_room(self) -> None:
        """Nothing is begun before what it leads to can be written. Raises: OSError while there is no room."""
        self.journal.write_state(self.state, self._progress)
        seconds = self._room.found()
        told = _FULL.format(seconds=seconds or 0.0)
        if seconds is not None and _alike(told) not in self._warned:
            self._warned.add(_alike(told))
            self._commit(Change("warning", told, self.state))

    def _without_room(self, error: OSError) -> None:
        """The share is held; who must be turned back is."""
        self._room.lost(error)
        self._looked = None
        if self._owed is not None or self.state.phase == "rolling_back":
            self.parts.front.halt()
            return
        look = self._guarded(self._look())
        if look.decision == "rollback" and self.state.wanted.share > 0:
            why = "; ".join(look.reasons)
            with without_room():
                self._commit(decide.roll_back(self.state, self.number + 1, why))
            self.parts.front.halt()

    def _is_alone(self) -> bool:
        """Whether a candidate that nobody is sent to has ended; it answers what it has first."""
        wanted = self.state.wanted.candidate
        return wanted is not None or self.parts.services.running("candidate").version is None

    def _commit(self, change: Change) -> None:
        """On the disk first; what follows from it is done by the next `reconcile`."""
        number = 1 if self._last is None else self.number + 1
        new = line(number, change.event, change.reason, change.by, change.state)
        try:
            self.journal.append(new)
        except OSError as error:
            if is_full(error) and new.state.phase == "rolling_back":
                self._owed = change
                self.parts.front.halt()
            raise
        self._owed = None
        self._last = new
        if self._progress.line != new.state.entered:
            self._progress = Progress(line=new.state.entered)
            self._since.clear()
        self.journal.write_state(self.state, self._progress)
        self.told(new)

    def _take_orders(self) -> None:
        found, wrong = orders.waiting(self.layout)
        for file in wrong:
            self._commit(Change("warning", f"no order: {orders.put_aside(self.layout, file)}", self.state))
        for name, ordered in found.items():
            if name not in self.state.taken:
                change = decide.by_order(self.state, self.release, name, ordered, self.number + 1)
                self._commit(change or decide.ignored(self.state, name, ordered))
            orders.remove(self.layout, name)

    def _look(self) -> Look:
        if self.state.phase not in WATCHED:
            return Look("wait")
        try:
            look = self.parts.judge.look(self.state)
        except Exception as error:
            blind = self._lasts("judge")
            why = f"judge: {type(error).__name__}: {error}"
            decision: Decision = "rollback" if blind >= BLIND_SECONDS else "wait"
            return Look(decision, (f"{why}; nobody has looked for {blind:.0f} s",), warnings=(why,))
        self._since.pop("judge", None)
        return look

    def _guarded(self, look: Look) -> Look:
        """A candidate that is not there is turned back without the judge's word."""
        state = self.state
        if state.phase not in (*WATCHED, "preflight") or state.wanted.candidate is None:
            return look
        running = self.parts.services.running("candidate")
        if running.ready and running.version == state.wanted.candidate:
            self._since.pop("candidate", None)
            return look
        away = self._lasts("candidate")
        beginning = state.phase == "preflight"
        limit = START_SECONDS if beginning else self.release.judge.guards.unready_seconds
        if away < limit and not (beginning and running.refused):
            return look
        return Look(
            "rollback",
            (f"the candidate has been down or not ready for {away:.1f} s: {running.detail or 'down'}",),
        )

    def _lasts(self, what: str) -> float:
        """Seconds for which something has been so, this time included."""
        return self.clock() - self._since.setdefault(what, self.clock())

    def _count(self, look: Look, trouble: list[str], share: float | None) -> None:
        moment = self.clock()
        passed = 0.0 if self._looked is None else min(max(moment - self._looked, 0.0), LONGEST_TICK)
        self._looked = moment
        waiting = self.state.paused or self.state.held is not None or self.state.phase == "preflight"
        self._progress = Progress(
            line=self.state.entered,
            elapsed=self._progress.elapsed + (0.0 if trouble or waiting else passed),
            users=look.users,
            requests=look.requests,
            decision=look.decision,
            reasons=list(look.reasons),
            seconds_to_decide=look.seconds_to_decide,
            trouble=trouble,
            warnings=list(look.warnings),
            share=share,
        )

    def _begin_or_refuse(self) -> None:
        against = self.served(self.state)
        if against:
            self._commit(decide.roll_back(self.state, self.number + 1, f"preflight: {'; '.join(against)}"))
        else:
            self._commit(decide.forward(self.state, self.release, self.number + 1, "preflight passed"))

    def _go_on(self, look: Look, *, as_wanted: bool) -> None:
        change = decide.by_itself(
            self.state, self.release, look, self._progress, as_wanted=as_wanted, number=self.number + 1
        )
        if change is not None:
            self._commit(change)

    def _record(self, trouble: list[str]) -> None:
        """Every line since the last one that the registry has: it knows those that it has."""
        if self._recorded == self.number:
            return
        try:
            for old in self.journal.lines()[self._recorded :]:
                self.parts.registry.record(old.number, old.timestamp, old.event, old.reason, old.state)
                self._recorded = old.number
        except PartError as error:
            trouble.append(f"registry: {error}")

    def _warn(self, look: Look, trouble: list[str]) -> None:
        limit = START_SECONDS if self.state.phase in ("preflight", "retire") else WARN_SECONDS
        lasting = [what for what in trouble if self._lasts(what) >= limit]
        for what in set(self._since) - {"judge", "candidate", *trouble}:
            del self._since[what]
        for text in (*look.warnings, *lasting):
            if _alike(text) not in self._warned:
                self._warned.add(_alike(text))
                self._commit(Change("warning", text, self.state))

    def _write_progress(self) -> None:
        if self.clock() - self._written >= _PROGRESS_SECONDS:
            self._written = self.clock()
            self.journal.write_state(self.state, self._progress)


def _alike(warning: str) -> str:
    """The same warning with other numbers is told once."""
    return re.sub(r"[0-9][0-9.e+-]*", "#", warning)
