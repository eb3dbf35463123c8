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
from assay.release.ramp import preflight
from assay.release.ramp.controller import Controller
from assay.release.ramp.drift_part import DriftPart
from assay.release.ramp.find import resolved
from assay.release.ramp.front_part import FrontPart
from assay.release.ramp.identity import Identity
from assay.release.ramp.journal import Journal, Line
from assay.release.ramp.judge_part import JudgePart
from assay.release.ramp.parts import Parts
from assay.release.ramp.processes import Supervised
from assay.release.ramp.registry_part import RegistryPart
from assay.release.ramp.state import State
from assay.release.ramp.status import told
from assay.release.ramp.webhook import Webhook
from assay.release.registry.store import open_registry
from assay.release.routing.front import Front, front_of
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
    """Take up a release that nobody drives. Raises: InUse."""
    with hold(layout.lock):
        return _run(resolved(layout), layout, Options(until_held=not until_over), print, None)


def _begin(release: Release, layout: Layout, options: Options, say: Say) -> State:
    registry = open_registry(release.registry)
    given = (registry.resolve(name) for name in (release.versions.stable, release.versions.candidate))
    # The registry's own copies are served: nobody builds there.
    kept = [registry.fetched(registry.register(folder, f"release {release.name}")) for folder in given]
    pair = preflight.pair_of(*kept)
    make_salt(layout.salt)
    runs = front_of(release, layout).running() is not None
    for text in preflight.check(release, layout, pair, forced=options.forced, front_runs=runs):
        say(f"{release.name}: {text}")
    content = yaml.safe_dump(release.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(layout.resolved, content.encode())
    reason = f"begun with {release.versions.stable} and {release.versions.candidate}"
    if options.forced is not None:
        reason += f"; forced: {options.forced}"

    def begin(controller: Controller) -> None:
        controller.begin(pair.stable, pair.candidate, reason)

    return _run(release, layout, options, say, begin)


def _run(
    release: Release, layout: Layout, options: Options, say: Say, begin: Callable[[Controller], None] | None
) -> State:
    parts, services = parts_of(release, layout)
    webhook = Webhook(release.webhook, layout, release) if release.webhook else None

    def tell(line: Line) -> None:
        say(told(line, release))
        if webhook is not None:
            webhook.tell(line)

    def served(state: State) -> list[str]:
        wanted = {"stable": state.wanted.stable, "candidate": state.wanted.candidate}
        findings = []
        for role, version in wanted.items():
            address = services.address("stable" if role == "stable" else "candidate")
            if address is None or version is None:
                findings.append(f"{role}: does not run")
            else:
                findings += preflight.health(address, version)
        return findings

    controller = Controller(release, layout, parts, served, tell)
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


def parts_of(release: Release, layout: Layout) -> tuple[Parts, Supervised]:
    """The real ones. Raises: ValueError for a front that cannot be had here, or a judge whose memory is not its own."""
    services = Supervised(layout)
    front: Front = front_of(release, layout)
    identity = Identity(release, layout)
    return (
        Parts(
            FrontPart(release, front, services, identity, Shadower(layout)),
            services,
            RegistryPart(open_registry(release.registry), release.name),
            JudgePart(release, layout, services, DriftPart(release, layout)),
        ),
        services,
    )


def stop(layout: Layout) -> None:
    """End front, versions and identity service: nobody is served any more. Raises: InUse while a controller runs."""
    with hold(layout.lock):
        release = resolved(layout)
        front_of(release, layout).stop()
        Shadower(layout).stop()
        services = Supervised(layout)
        services.stop("candidate")
        services.stop("stable")
        Identity(release, layout).stop()


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
