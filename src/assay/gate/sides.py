"""The two sides of a gate: read as a comparison reads them, and joined as two arms of one experiment."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from assay.archive.reading import extracted
from assay.comparison.collect import Collected, Evidence, collect
from assay.comparison.run import read_experiment
from assay.config.schema import Experiment

BASELINE, CANDIDATE = "baseline", "candidate"


class GateError(ValueError):
    """What the user asks the gate cannot be asked."""


class Unfinished(ValueError):
    """A side whose jobs did not all run: there is nothing to judge yet."""


@dataclass(frozen=True)
class Side:
    """One arm in one folder of results."""

    path: Path
    """As it was named: the folder, or an archive of it."""
    folder: Path
    experiment: Experiment
    arm: str
    collected: Collected

    @property
    def label(self) -> str:
        return f"{self.path} ({self.arm})"

    @property
    def commits(self) -> list[str]:
        found = {record.code.commit for record in self.collected.evidence}
        return sorted(commit for commit in found if commit is not None)

    def spans(self) -> set[tuple[str, int, tuple[str, str]]]:
        """What tells one job's record from every other's."""
        return {(one.stage, one.replicate, one.span) for one in self.collected.evidence}


@dataclass(frozen=True)
class Pair:
    """Baseline and candidate as the two arms of one experiment."""

    experiment: Experiment
    """Metrics, margins and level are the baseline's: a candidate does not loosen its own gate."""
    collected: Collected
    baseline: Side
    candidate: Side
    one_session: bool
    """Whether both were visited in the same profile blocks."""
    sessions: list[Side] = field(default_factory=list)
    """Further measurements of the baseline, for what differs from session to session."""

    @property
    def arms(self) -> tuple[str, str]:
        baseline, candidate = self.experiment.arms
        return baseline, candidate


def read_side(path: Path, opened: ExitStack, arm: str | None) -> Side:
    """A folder of results, or an archive of it, which is taken out for as long as `opened` is.

    Raises: GateError, ArchiveError, and RecordError for a damaged record.
    """
    folder = opened.enter_context(extracted(path))
    experiment = read_experiment(folder / "experiment.yaml")
    arm = arm or gated_arm(experiment, path)
    if arm not in experiment.arms:
        raise GateError(
            f"assay gate: --arm {arm}: {path} has no such arm; write one of {', '.join(experiment.arms)}"
        )
    return read_arm(path, folder, experiment, arm)


def read_arm(path: Path, folder: Path, experiment: Experiment, arm: str) -> Side:
    alone = experiment.model_copy(update={"arms": {arm: experiment.arms[arm]}, "baseline": arm})
    return Side(path, folder, experiment, arm, collect(alone, folder))


def gated_arm(experiment: Experiment, path: Path) -> str:
    """The one arm that is not the experiment's baseline. Raises: GateError where there are several."""
    others = [arm for arm in experiment.arms if arm != experiment.baseline]
    if len(others) != 1:
        raise GateError(
            f"assay gate: {path} has {len(others)} arms beside its baseline; write --arm with one of "
            f"{', '.join(experiment.arms)}"
        )
    return others[0]


def within(candidate: Side) -> Pair:
    """An arm against its own experiment's baseline: same seeds, same profile blocks."""
    experiment, folder = candidate.experiment, candidate.folder
    if candidate.arm == experiment.baseline:
        raise GateError(
            f"assay gate: --arm {candidate.arm}: is the baseline of {candidate.path}; name another arm, or another "
            "folder with --baseline"
        )
    baseline = read_arm(candidate.path, folder, experiment, experiment.baseline)
    arms = {side.arm: experiment.arms[side.arm] for side in (baseline, candidate)}
    joined = experiment.model_copy(update={"arms": arms})
    refuse_unfinished(baseline, candidate)
    return Pair(joined, collect(joined, folder), baseline, candidate, one_session=True)


def across(candidate: Side, baseline: Side, sessions: list[Side], factors: list[str]) -> Pair:
    """An arm against the same arm of another folder of results."""
    _refuse_copies([baseline, candidate, *sessions])
    refuse_unfinished(baseline, candidate, *sessions)
    arms = {
        BASELINE: baseline.experiment.arms[baseline.arm],
        CANDIDATE: candidate.experiment.arms[candidate.arm],
    }
    joined = baseline.experiment.model_copy(update={"arms": arms, "baseline": BASELINE, "factors": factors})
    return Pair(
        joined, _joined(baseline, candidate), baseline, candidate, one_session=False, sessions=sessions
    )


def _joined(baseline: Side, candidate: Side) -> Collected:
    """Both sides' replicates under the names of the joined experiment's arms."""
    found = Collected({}, {}, [], [])
    for name, side in ((BASELINE, baseline), (CANDIDATE, candidate)):
        for kind in ("seed", "block"):
            own, into = side.collected.replicates(kind), found.replicates(kind)
            for (_, number), replicate in own.items():
                into[name, number] = replace(replicate, arm=name)
        found.evidence.extend(renamed(side.collected.evidence, name))
        found.warnings.extend(f"{name}: {text}" for text in side.collected.warnings)
    return found


def renamed(evidence: Iterable[Evidence], arm: str) -> list[Evidence]:
    return [replace(one, arm=arm) for one in evidence]


def _refuse_copies(sides: list[Side]) -> None:
    """Records of one run in two folders would be compared with themselves, and always found equal."""
    for index, side in enumerate(sides):
        for other in sides[:index]:
            if side.spans() & other.spans():
                raise GateError(
                    f"assay gate: {side.label} holds the same runs as {other.label}: nothing was run anew. Run the "
                    "candidate's experiment in a folder without the baseline's results"
                )


def refuse_unfinished(*sides: Side) -> None:
    """Raises: Unfinished where jobs did not run, or were ended from outside: that says nothing of a model."""
    for side in sides:
        for replicate in (*side.collected.runs.values(), *side.collected.visits.values()):
            if replicate.outcome in {"missing", "interrupted"}:
                raise Unfinished(
                    f"{side.label}: {replicate.kind} {replicate.number} is {replicate.outcome}"
                    f"{f' ({replicate.message})' if replicate.message else ''}; run the experiment to its end first"
                )
