"""A release from its file to its end, or from wherever it stands."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import IO

import yaml

from assay.holding import hold
from assay.records import write_atomically
from assay.release.layout import Layout
from assay.release.ramp import preflight, takeover
from assay.release.ramp.controller import Controller
from assay.release.ramp.drift_part import DriftPart
from assay.release.ramp.find import resolved
from assay.release.ramp.front_part import FrontPart
from assay.release.ramp.identity import Identity
from assay.release.ramp.journal import Journal, Line
from assay.release.ramp.judge_part import JudgePart
from assay.release.ramp.parts import PartError, Parts
from assay.release.ramp.processes import Supervised
from assay.release.ramp.reconcile import ROLES
from assay.release.ramp.registry_part import RegistryPart
from assay.release.ramp.state import State
from assay.release.ramp.status import told
from assay.release.ramp.takeover import Earlier
from assay.release.ramp.webhook import Webhook
from assay.release.registry.store import open_registry
from assay.release.routing.front import Front, front_of, port_is_free
from assay.release.routing.shadower import Shadower
from assay.release.schema import Release
from assay.release.security.salt import make_salt

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """Of one call of `assay release start`."""

    until_held: bool = False
    stay: bool = False
    forced: str | None = None


def start(release: Release, options: Options, say: Say) -> State:
    """Begin, or go on. Only one controller at a time.

    Raises: InUse where there is another; Refused; ValueError for bundles, registries and fronts that cannot be had.
    """
    release = release.placed()
    layout = Layout(Path(release.folder) / release.name)
    with _held(layout):
        if Journal(layout).open() is None:
            return _begin(release, layout, options, say)
        before = resolved(layout).placed()
        if before != release:
            say(
                f"{release.name}: the release file was changed since the release began: it goes on as it began "
                f"({layout.resolved})"
            )
        if (state := takeover.gone(layout)) is not None:
            say(f"{release.name}: is over, and release {state.successor} has taken its front over")
            return state
        return _run(before, layout, options, say, None)


def _held(layout: Layout) -> IO[str]:
    """The release's lock. Raises: InUse; ValueError where the folder cannot be written to."""
    try:
        return hold(layout.lock)
    except OSError as error:
        raise ValueError(
            f"{layout.folder}: cannot be written to ({error.strerror}); write another `folder`"
        ) from None


def drive(layout: Layout, *, until_over: bool = False) -> State:
    """Take up a release that nobody drives. Raises: InUse; ValueError where another one has its front."""
    with hold(layout.lock):
        _refuse_gone(layout)
        return _run(resolved(layout), layout, Options(until_held=not until_over), print, None)


def _begin(release: Release, layout: Layout, options: Options, say: Say) -> State:
    registry = open_registry(release.registry)
    given = (registry.resolve(name) for name in (release.versions.stable, release.versions.candidate))
    # The registry's own copies are served: nobody builds there.
    kept = [registry.fetched(registry.register(folder, f"release {release.name}")) for folder in given]
    pair = preflight.pair_of(*kept)
    make_salt(layout.salt)
    runs = front_of(release, layout).running() is not None
    free = port_is_free(release.routing.address, release.routing.port)
    earlier = None if runs or free else takeover.on_port(release, layout)
    against = list(takeover.against(earlier, release, pair.stable)) if earlier is not None else None
    for text in preflight.check(release, layout, pair, forced=options.forced, front=[] if runs else against):
        say(f"{release.name}: {text}")
    content = yaml.safe_dump(release.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(layout.resolved, content.encode())
    reason = f"begun with {release.versions.stable} and {release.versions.candidate}"
    if options.forced is not None:
        reason += f"; forced: {options.forced}"
    name = None
    if earlier is not None:
        name = earlier.folder.name
        reason += f"; takes over the front of release {name}"
        takeover.share_nonces(earlier, layout)

    def begin(controller: Controller) -> None:
        controller.begin(pair.stable, pair.candidate, reason, name)

    return _run(release, layout, options, say, begin, earlier)


def _run(
    release: Release,
    layout: Layout,
    options: Options,
    say: Say,
    begin: Callable[[Controller], None] | None,
    earlier: Layout | None = None,
) -> State:
    parts, services = parts_of(release, layout, earlier or takeover.predecessor(layout))
    webhook = Webhook(release.webhook, layout, release) if release.webhook else None

    def tell(line: Line) -> None:
        say(told(line, release))
        if webhook is not None:
            webhook.tell(line)

    controller = Controller(release, layout, parts, lambda state: _served(state, services), tell)
    with _ended_by_signals(controller.stopping):
        if begin is not None:
            begin(controller)
        elif not controller.resume():
            raise AssertionError("there is a journal")
        if webhook is not None:
            webhook.start()
        try:
            return controller.run(until_held=options.until_held, stay=options.stay)
        finally:
            if webhook is not None:
                webhook.stop()


def _served(state: State, services: Supervised) -> list[str]:
    """What speaks against the versions as they run."""
    findings = []
    for role in ROLES:
        address, version = services.address(role), state.wanted.of(role)
        if address is None or version is None:
            findings.append(f"{role}: does not run")
        else:
            findings += preflight.health(address, version)
    return findings


def parts_of(release: Release, layout: Layout, earlier: Layout | None = None) -> tuple[Parts, Supervised]:
    """The real ones. earlier: the release whose front is taken over.

    Raises: ValueError for a front that cannot be had here, or a judge whose memory is not its own.
    """
    services = Supervised(layout)
    front: Front = front_of(release, layout)
    identity = Identity(release, layout)
    return (
        Parts(
            FrontPart(
                release,
                front,
                services,
                identity,
                Shadower(layout),
                None if earlier is None else Earlier(earlier, layout),
            ),
            services,
            RegistryPart(open_registry(release.registry), release.name),
            JudgePart(release, layout, services, DriftPart(release, layout)),
        ),
        services,
    )


def stop(layout: Layout) -> None:
    """End front, versions and identity service: nobody is served any more.

    Raises: InUse while a controller runs; ValueError where another release has its front.
    """
    with hold(layout.lock):
        _refuse_gone(layout)
        release = resolved(layout)
        earlier = takeover.claimed(layout)
        if earlier is not None:
            # The front may still be the other's, though its journal says that it is this one's.
            _taken(earlier)
        front_of(release, layout).stop()
        Shadower(layout).stop()
        services = Supervised(layout)
        services.stop("candidate")
        services.stop("stable")
        Identity(release, layout).stop()
        if earlier is not None:
            earlier.end()


def _taken(earlier: Earlier) -> None:
    """Raises: ValueError."""
    try:
        earlier.take()
    except PartError as error:
        raise ValueError(str(error)) from None


def _refuse_gone(layout: Layout) -> None:
    """Raises: ValueError."""
    if (state := takeover.gone(layout)) is not None:
        raise ValueError(
            f"{state.release}: is over, and release {state.successor} has taken its front over and serves its users: "
            f"name {state.successor}"
        )


@contextmanager
def _ended_by_signals(stopping: Event) -> Iterator[None]:
    """SIGTERM and SIGINT end the controller between two rounds; users go on being served."""

    def end(_: int, __: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
