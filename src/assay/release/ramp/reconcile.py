"""From what is to what is wanted, from anywhere, in an order that never exposes more users than is wanted."""

from assay.release.observations import Role
from assay.release.ramp.parts import PartError, Parts, Real, Running
from assay.release.ramp.state import State, Version, Wanted

ROLES: tuple[Role, Role] = ("stable", "candidate")


def reconcile(state: State, parts: Parts, number: int) -> tuple[list[str], Real | None]:
    """One try; asked again until nothing is left. number: of the journal's line that wants it.

    Returns: what is not as wanted yet, and what the front does.
    """
    trouble: list[str] = []
    wanted = state.wanted
    real = parts.front.real()
    if real is not None and _exposes_more(real, wanted):
        real = _apply(parts, wanted, number, trouble)
    for role in ROLES:
        version = _version(state, wanted.of(role))
        if version is not None:
            _serve(parts, role, version, trouble)
    ready = {role: parts.services.running(role) for role in ROLES}
    needs = [role for role in ROLES if wanted.of(role) is not None]
    lacking = {role: lack for role in needs if (lack := _lacks(ready[role], wanted.of(role))) is not None}
    # A front that died is started while a version is being swapped, too.
    missed = real is None and all(ready[role].ready for role in needs)
    if missed or (not lacking and (real is None or not _same(real, wanted))):
        real = _apply(parts, wanted, number, trouble)
    trouble += [f"{role}: {lack}" for role, lack in lacking.items()]
    if real is None:
        trouble.append("front: does not answer")
    elif not _same(real, wanted):
        trouble.append(f"front: does {real}, wanted is {wanted}")
    else:
        if real.waits:
            trouble.append(f"front: {real.waits}")
        if wanted.candidate is None:
            _end_old(parts, ready["candidate"].version is not None, trouble)
    if real is not None and real.lacks and wanted.candidate is not None:
        trouble.append(real.lacks)
    _name(parts, wanted, trouble)
    return list(dict.fromkeys(trouble)), real


def _lacks(running: Running, version: str | None) -> str | None:
    """What a role lacks to serve a version; None: nothing."""
    if running.version is not None and running.version != version:
        return f"serves {running.version} still" + (f" ({running.detail})" if running.detail else "")
    return None if running.ready else running.detail or "not ready"


def _exposes_more(real: Real, wanted: Wanted) -> bool:
    return (
        real.share > wanted.share or real.shadow > wanted.shadow or (real.early is True and not wanted.early)
    )


def _same(real: Real, wanted: Wanted) -> bool:
    """nginx counts shares in hundredths of a percent."""
    close = abs(real.share - wanted.share) < 1e-4 and abs(real.shadow - wanted.shadow) < 1e-4
    return close and real.current and real.early in (None, wanted.early)


def _version(state: State, version: str | None) -> Version | None:
    return next((known for known in (state.stable, state.candidate) if known.version == version), None)


def _apply(parts: Parts, wanted: Wanted, number: int, trouble: list[str]) -> Real | None:
    try:
        parts.front.apply(wanted, number)
    except PartError as error:
        trouble.append(f"front: {error}")
    return parts.front.real()


def _serve(parts: Parts, role: Role, version: Version, trouble: list[str]) -> None:
    """What already serves it is left alone, unless it is about to serve another."""
    running = parts.services.running(role)
    if running.version == version.version and running.coming in (None, version.version):
        return
    try:
        parts.services.serve(role, version)
    except PartError as error:
        trouble.append(f"{role}: {error}")


def _end_old(parts: Parts, candidate_runs: bool, trouble: list[str]) -> None:
    """What nobody is sent to any more."""
    try:
        if candidate_runs:
            parts.services.stop("candidate")
        parts.services.retire()
    except PartError as error:
        trouble.append(str(error))


def _name(parts: Parts, wanted: Wanted, trouble: list[str]) -> None:
    """The alias is moved last: it is for what is served, not for what is to be."""
    if wanted.champion is None or trouble:
        return
    try:
        parts.registry.make_champion(wanted.champion)
    except PartError as error:
        trouble.append(f"registry: {error}")
