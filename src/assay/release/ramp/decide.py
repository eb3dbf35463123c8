"""What comes next: a pure function of the state, what a person orders, and what is seen."""

from dataclasses import dataclass

from assay.release.ramp.orders import Ordered
from assay.release.ramp.parts import Look
from assay.release.ramp.state import Phase, Progress, State, Version, Wanted
from assay.release.schema import Release, Step

RAMP = "ramp"
_KEPT_ORDERS = 50


@dataclass(frozen=True)
class Change:
    """A line of the journal to be."""

    event: str
    reason: str
    state: State
    by: str = RAMP


def begin(
    release: Release, stable: Version, candidate: Version, reason: str, predecessor: str | None = None
) -> Change:
    """The first line: both versions run, and nobody has the candidate."""
    state = State(
        release=release.name,
        stable=stable,
        candidate=candidate,
        phase="preflight",
        entered=1,
        wanted=Wanted(stable=stable.version, candidate=candidate.version),
        reason=reason,
        predecessor=predecessor,
    )
    return Change("preflight", reason, state)


def by_order(state: State, release: Release, name: str, ordered: Ordered, number: int) -> Change | None:
    """What an order leads to; None: nothing, in this phase. number: of the line that it would be."""
    taken = state.model_copy(update={"taken": [*state.taken, name][-_KEPT_ORDERS:]})
    why = f"{ordered.by}: {ordered.reason}"
    if ordered.order == "rollback":
        if state.phase in ("rolling_back", "rolled_back"):
            return None
        change = roll_back(taken, number, why)
    elif state.phase in ("retire", "promoted", "rolling_back", "rolled_back"):
        return None
    elif ordered.order == "pause":
        change = Change("pause", why, taken.model_copy(update={"paused": True}))
    elif ordered.order == "resume":
        again = state.extended + (state.held is not None)
        update = {"paused": False, "held": None, "extended": again, "excused": state.held or state.excused}
        change = Change("resume", why, taken.model_copy(update=update))
    elif state.phase == "preflight" or (ordered.at is not None and ordered.at < state.entered):
        return None
    else:
        change = forward(taken, release, number, f"{why} (without waiting for the judge)")
    return Change(change.event, change.reason, change.state, by=ordered.by)


def ignored(state: State, name: str, ordered: Ordered) -> Change:
    """An order that means nothing in this phase is kept on record, and not asked for again."""
    taken = state.model_copy(update={"taken": [*state.taken, name][-_KEPT_ORDERS:]})
    why = f"{ordered.by}: {ordered.order}: nothing to do in phase {state.phase.replace('_', ' ')}"
    return Change("ignored", why, taken, by=ordered.by)


def by_itself(
    state: State, release: Release, look: Look, progress: Progress, *, as_wanted: bool, number: int
) -> Change | None:
    """What follows from what is seen; None: nothing yet. number: of the line that it would be."""
    if state.over:
        return None
    if state.phase == "rolling_back":
        return _next(state, number, "rolled_back", state.reason, state.wanted) if as_wanted else None
    if look.decision == "rollback":
        return roll_back(state, number, "; ".join(look.reasons) or "the judge says so")
    if state.phase == "retire":
        return _promoted(state, number) if as_wanted else None
    if state.paused or state.held is not None or not as_wanted or state.phase == "preflight":
        return None
    if look.pause is not None and look.pause != state.excused:
        return Change("hold", look.pause, state.model_copy(update={"held": look.pause}))
    missing = _missing(state, release, look, progress)
    if not missing:
        return forward(state, release, number, "; ".join(look.reasons) or "nothing speaks against it")
    most = _most_seconds(state, release)
    if most is not None and progress.elapsed >= most * (1 + state.extended):
        reason = f"undecided after {progress.elapsed:.0f} s: {'; '.join(missing)}"
        return Change("hold", reason, state.model_copy(update={"held": reason}))
    return None


def forward(state: State, release: Release, number: int, reason: str) -> Change:
    """One phase, or one step, on."""
    ramp, wanted = release.ramp, state.wanted
    if state.phase == "preflight" and ramp.shadow.share > 0 and ramp.shadow.requests > 0:
        share = {"shadow": ramp.shadow.share}
        return _next(state, number, "shadow", reason, wanted.model_copy(update=share))
    step = 0 if state.step is None else state.step + 1
    if state.phase in ("preflight", "shadow", "step") and step < len(ramp.steps):
        update = {"share": ramp.steps[step].share, "shadow": 0.0, "early": True}
        return _next(state, number, "step", reason, wanted.model_copy(update=update), step)
    if state.phase == "step":
        return _next(state, number, "bake", reason, wanted)
    new = state.candidate.version
    return _next(state, number, "retire", reason, wanted.model_copy(update={"stable": new, "champion": new}))


def roll_back(state: State, number: int, reason: str) -> Change:
    """Everyone has what they had; the alias too, where it had moved."""
    moved = state.phase in ("retire", "promoted")
    old = state.stable.version
    wanted = Wanted(stable=old, champion=old if moved else None)
    return _next(state, number, "rolling_back", reason, wanted, event="rollback")


def _promoted(state: State, number: int) -> Change:
    """The role `stable` serves what was the candidate, so the role `candidate` is free for the next one."""
    new = state.candidate.version
    return _next(state, number, "promoted", "the bake is over", Wanted(stable=new, champion=new))


def _next(
    state: State,
    number: int,
    phase: Phase,
    reason: str,
    wanted: Wanted,
    step: int | None = None,
    event: str | None = None,
) -> Change:
    update = {
        "phase": phase,
        "step": step,
        "entered": number,
        "wanted": wanted,
        "held": None,
        "excused": state.held or state.excused,
        "extended": 0,
        "reason": reason,
        "paused": state.paused and phase in ("shadow", "step", "bake"),
    }
    return Change(event or phase, reason, state.model_copy(update=update))


def _missing(state: State, release: Release, look: Look, progress: Progress) -> list[str]:
    """What a phase still lacks; empty: it may end."""
    if state.phase == "bake":
        left = release.ramp.bake_seconds - progress.elapsed
        return [f"the bake lasts {left:.0f} s more"] if left > 0 else []
    part = release.ramp.shadow if state.step is None else release.ramp.steps[state.step]
    if isinstance(part, Step):
        needed, have, what = part.users, look.users, "users of the candidate"
    else:
        needed, have, what = part.requests, look.requests, "copies answered"
    missing = []
    if (have or 0) < needed:
        missing.append(f"{'unknown' if have is None else have} of {needed} {what}")
    if progress.elapsed < part.least_seconds:
        missing.append(f"{progress.elapsed:.0f} of {part.least_seconds:.0f} s")
    if look.decision != "go_on":
        missing.append("; ".join(look.reasons) or "the judge has not decided")
    return missing


def _most_seconds(state: State, release: Release) -> float | None:
    if state.phase == "shadow":
        return release.ramp.shadow.most_seconds
    if state.phase == "step" and state.step is not None:
        return release.ramp.steps[state.step].most_seconds
    return None
