"""The next release on the same port: it takes over the front of one that is over, and no user waits.

The front goes on where it is. What is wanted stands first in the earlier release's journal; then `run/front` of the new one becomes a
link to that front, which is given the new release's generation as at any change; and when it is confirmed, and nothing can send a
request to what the earlier release served, that ends. Each step may be asked again.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from assay.holding import InUse, hold, holder
from assay.release.layout import Layout
from assay.release.ramp.find import begun, resolved
from assay.release.ramp.identity import Identity
from assay.release.ramp.journal import Journal, Line, line
from assay.release.ramp.parts import PartError
from assay.release.ramp.processes import Supervised
from assay.release.ramp.registry_part import HANDED_OVER, RegistryPart
from assay.release.ramp.state import State, Version, title
from assay.release.registry.store import open_registry
from assay.release.routing.front import Front, front_of
from assay.release.routing.shadower import Shadower
from assay.release.schema import Release

HANDING_OVER = "handing_over"
LOOK_SECONDS = 1.0
"""Between two looks at what the earlier release has left."""
NONCES = "nonces"


def on_port(release: Release, layout: Layout) -> Layout | None:
    """The release in the same folder whose front runs on this port; None: none of them has it."""
    for folder in begun(layout.folder.parent):
        other = Layout(folder)
        try:
            theirs, last = resolved(other), Journal(other).last()
            if folder == layout.folder or last is None or last.state.successor is not None:
                continue
            if theirs.routing.port == release.routing.port and front_of(theirs, other).running() is not None:
                return other
        except ValueError:  # damaged, or of a program that is not here: nothing that could be taken over
            continue
    return None


def against(earlier: Layout, release: Release, stable: Version) -> Iterator[str]:
    """What speaks against taking its front over, and what to write."""
    theirs, last = resolved(earlier).placed(), Journal(earlier).last()
    assert last is not None
    name, state, port = earlier.folder.name, last.state, release.routing.port
    served = f"routing.port: release {name} serves port {port}"
    if not state.over:
        yield (
            f"{served} and is not over ({title(state, theirs)}): wait until it is, end it (assay release rollback {name}), "
            "or write another port"
        )
        return
    if (owner := earlier.journal.stat().st_uid) != os.geteuid():
        yield f"{served} as the user with uid {owner}: begin this one as that user, or write another port"
    if (process := holder(earlier.lock)) is not None:
        yield f"{served}, and its controller (process {process}) runs: end that, which costs its users nothing"
    if state.wanted.stable != stable.version:
        folder = _served(state).folder
        yield (
            f"versions.stable: is {stable.version}, but users of port {port} have {state.wanted.stable} from release {name}: "
            f"write `stable: {folder}`, or another port"
        )
    for key in ("front", "address", "tls") if release.routing.front == "python" else ("front", "address"):
        had, wanted = getattr(theirs.routing, key), getattr(release.routing, key)
        if had != wanted:
            yield (
                f"routing.{key}: the front that release {name} left on port {port} cannot change it: write what "
                f"{earlier.resolved} has, or end it (assay release stop {name}; users are not answered until this one serves)"
            )


def share_nonces(earlier: Layout, layout: Layout) -> None:
    """A signed request that came to the earlier release is known to this one. Raises: ValueError."""
    theirs, own = earlier.shared / NONCES, layout.shared / NONCES
    try:
        layout.shared.mkdir(parents=True, exist_ok=True)
        if theirs.exists() and not own.exists():
            own.hardlink_to(theirs)
    except OSError as error:
        raise ValueError(f"{own}: cannot be linked to {theirs}: {error.strerror}") from None


def gone(layout: Layout) -> State | None:
    """The state of a release whose front another one has taken; None: it is its own."""
    last = Journal(layout).last()
    return last.state if last is not None and last.state.successor is not None else None


def predecessor(layout: Layout) -> Layout | None:
    """The release whose front this one takes over, or has taken; None: its front is its own."""
    last = Journal(layout).last()
    name = None if last is None else last.state.predecessor
    return None if name is None else Layout(layout.folder.parent / name)


@dataclass
class Earlier:
    """The release whose front `heir` takes over. `heir` has begun."""

    layout: Layout
    heir: Layout
    _services: Supervised | None = None
    _recorded: bool = False
    _done: bool = False
    _looked: float = -1e9

    @property
    def name(self) -> str:
        return self.layout.folder.name

    @property
    def taken(self) -> bool:
        """Whether its front is the heir's."""
        return self.heir.front.is_symlink()

    def take(self) -> None:
        """Have the heir's front be this one, which goes on as it is. Raises: PartError where it may not."""
        if self.taken:
            return
        self._claim()
        try:
            target = front_of(resolved(self.layout), self.layout).folder
            temporary = self.heir.front.with_name(f".front.{os.getpid()}")
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(self.heir.front)
        except (ValueError, OSError) as error:
            raise PartError(f"release {self.name}: its front cannot be taken over: {error}") from None

    def finish(self, front: Front) -> str:
        """End what it serves once nobody is sent there any more. front: the heir's, which does what the heir wants.

        Returns: what is still to end; empty: nothing. Asked again until then.
        """
        if self._done:
            return ""
        waits = f"release {self.name} still answers what it has"
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return waits
        self._looked = time.monotonic()
        if not self.layout.journal.exists():  # somebody has taken its folder away
            self._done = True
            return ""
        if front.lingers(self.layout):
            return waits
        try:
            self._hand_over()
            self._done = self.end()
        except (PartError, ValueError, OSError) as error:
            return f"release {self.name}: {error}"
        return "" if self._done else waits

    def end(self) -> bool:
        """Ask its versions and its identity service to end; whether they have. Raises: ValueError."""
        self._services = self._services or Supervised(self.layout)
        roles = [self._services.end("candidate"), self._services.end("stable")]
        Shadower(self.layout).stop()
        identity = Identity(resolved(self.layout), self.layout)
        identity.stop()
        return all(roles) and not identity.alive

    def _claim(self) -> None:
        """From here on its own commands leave the front alone."""
        with self._held() as last:
            state, heir = last.state, self.heir.folder.name
            if state.successor == heir:
                return
            if state.successor is not None:
                raise PartError(
                    f"release {self.name}: release {state.successor} has taken its front over: end this release "
                    f"(assay release stop {heir}), and begin another when {state.successor} is over"
                )
            mine = Journal(self.heir).last()
            assert mine is not None
            if not state.over or state.wanted.stable != mine.state.stable.version:
                raise PartError(
                    f"release {self.name} is {state.phase.replace('_', ' ')} and serves {state.wanted.stable}, not "
                    f"{mine.state.stable.version} any more: end this release (assay release stop {heir}) and begin another"
                )
            port = resolved(self.layout).routing.port
            reason = f"release {heir} takes over the front on port {port}"
            handing = state.model_copy(update={"successor": heir})
            self._append(last, HANDING_OVER, f"{reason}, and serves the same version", handing)

    def _hand_over(self) -> None:
        """Journal and registry have it before anything ends."""
        with self._held() as last:
            if last.event != HANDED_OVER:
                reason = f"release {self.heir.folder.name} serves its users; what it served ends"
                self._append(last, HANDED_OVER, reason, last.state)
        if self._recorded:
            return
        registry = RegistryPart(open_registry(resolved(self.layout).registry), self.name)
        for old in Journal(self.layout).lines():
            registry.record(old.number, old.timestamp, old.event, old.reason, old.state)
        self._recorded = True

    def _append(self, last: Line, event: str, reason: str, state: State) -> None:
        journal = Journal(self.layout)
        journal.append(line(last.number + 1, event, reason, f"release {self.heir.folder.name}", state))
        journal.write_state(state, journal.progress(state.entered))

    @contextmanager
    def _held(self) -> Iterator[Line]:
        """Its last line, while nobody else can write one. Raises: PartError."""
        try:
            with hold(self.layout.lock):
                last = Journal(self.layout).open()
                if last is None:
                    raise PartError(f"{self.layout.journal} is gone")
                yield last
        except InUse as process:
            raise PartError(
                f"a controller (process {process}) drives release {self.name}: end that first"
            ) from None
        except (ValueError, OSError) as error:
            raise PartError(f"release {self.name}: {error}") from None


def claimed(layout: Layout) -> Earlier | None:
    """The release that has begun to hand its front over to this one; None: there is none, and others serve on."""
    earlier = predecessor(layout)
    state = None if earlier is None else gone(earlier)
    if earlier is None or state is None or state.successor != layout.folder.name:
        return None
    return Earlier(earlier, layout)


def _served(state: State) -> Version:
    return state.candidate if state.candidate.version == state.wanted.stable else state.stable
