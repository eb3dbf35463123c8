"""The judge: fed with what the front logged, asked at any moment whether to go on.

    judge = Judge(release.judge, release.ramp.steps, partial(in_candidate, salt))
    judge.feed(accesses, outcomes, position=reader.positions)    # in the order of the logs
    judge.health(now, ready=True, non_finite=0)
    decision = judge.decide(now, release.ramp.steps[0])          # .action, .reason, .seconds, .evidence
    content = judge.state()                                      # JSON; `position` is in it
    judge = Judge.restored(release.judge, release.ramp.steps, partial(in_candidate, salt), content)

State is a function of the lines fed, in their order, and of nothing else but health: a judge that is restored and fed
the lines after `position` again comes to the same numbers, bit for bit, however the lines were divided (business
events: where they are read within `step.GRACE` seconds of the log's time).
A reason to roll back stays once it is found. Time is the caller's: `least_seconds` and `most_seconds` are not judged.
"""

import hashlib
import math
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import Any

from assay.release.judge.decision import Decision
from assay.release.judge.guards import Guards
from assay.release.judge.metrics import worse
from assay.release.judge.step import Has, StepComparison
from assay.release.observations import Access, Outcome
from assay.release.schema import Judge as Settings
from assay.release.schema import Step

SCHEMA = 2
GUARDS = 0.1
"""Part of the level that is the guards'; the tests have the rest."""
_DECIMALS = 4
MOST_WAITING = 100_000


def as_split(share: float) -> float:
    """Fronts split by hundredths of a percent, and log what they do."""
    return round(share, _DECIMALS)


class Judge:
    """settings, steps: of the release file. has: whether the split gives a user the candidate at a share."""

    def __init__(self, settings: Settings, steps: Sequence[Step], has: Has) -> None:
        self.settings, self.has = settings, has
        self.shares = [as_split(step.share) for step in steps]
        self.compared = sum(share < 1 for share in self.shares)
        """Steps among which the level is divided."""
        self.guards = Guards(settings.guards, GUARDS * settings.level)
        self.steps: dict[float, StepComparison] = {}
        self.clock = -math.inf
        """Latest time in the logs."""
        self.position: Any = None
        """Of the reader, whatever it is; kept beside what was read up to there."""
        self.worse: str | None = None
        self.waiting: list[Outcome] = []
        self.unusable = 0
        """Outcomes that are no number between 0 and 1, have no time, or are more than can be kept."""

    @property
    def metrics(self) -> int:
        return 1 + (self.settings.latency is not None) + (self.settings.business is not None)

    @property
    def level(self) -> float:
        """Of each metric's test in each step."""
        return (1 - GUARDS) * self.settings.level / (self.metrics * max(1, self.compared))

    def feed(
        self, accesses: Iterable[Access], outcomes: Iterable[Outcome] = (), position: Any = None
    ) -> None:
        """New lines of the logs, each once. position: JSON value of the reader behind them."""
        for outcome in outcomes:
            usable = 0 <= outcome.value <= 1 and math.isfinite(outcome.timestamp)
            if usable and len(self.waiting) < MOST_WAITING:
                insort(self.waiting, outcome)
            else:
                self.unusable += 1
        for access in accesses:
            self._see(access)
        self._take_outcomes()
        self.position = self.position if position is None else position

    def _take_outcomes(self) -> None:
        """Those whose time has come in the log of requests, which may be read later than they."""
        count = bisect_right(self.waiting, self.clock, key=lambda outcome: outcome.timestamp)
        for outcome in self.waiting[:count]:
            # In the newest step in which its user has come: before that, another version may have answered.
            for step in reversed(self.steps.values()):
                if step.value(outcome):
                    break
        del self.waiting[:count]

    def _see(self, access: Access) -> None:
        if not math.isfinite(access.timestamp):
            return
        self.clock = max(self.clock, access.timestamp)
        self.guards.see(access)
        if self.waiting:
            self._take_outcomes()
        for step in self.steps.values():
            step.close(self.clock)
        share = as_split(access.share)
        if access.route == "split" and access.user and share in self.shares:
            step = self.steps.get(share) or self._begin(share)
            step.see(access, self.has)
        if self.worse is None:
            self._look()

    def _begin(self, share: float) -> StepComparison:
        low = max((other for other in self.steps if other < share), default=0.0)
        high = min((other for other in self.steps if other > share), default=1.0)
        self.steps[share] = StepComparison(self.settings, share, low, high, self.level)
        return self.steps[share]

    def _look(self) -> None:
        """Evidence counts at every event, whether anyone asks then or not."""
        for share, step in self.steps.items():
            if not step.changed:
                continue
            step.changed = False
            for name, metric in step.metrics.items():
                if worse(metric):
                    self.worse = f"{name}, at share {share:g}: {metric.reason()}"

    def health(self, now: float, ready: bool | None, non_finite: int | None = None) -> None:
        """What the candidate says of itself; null: not known. non_finite: outputs since it started."""
        self.guards.health(now, ready, non_finite)

    def decide(self, now: float, step: Step | None) -> Decision:
        """step: in which the ramp is; None: before the first or after the last, where guards alone speak."""
        evidence = self.evidence(step)
        if reason := self.guards.tripped or self.worse:
            return Decision("rollback", reason, None, evidence)
        if step is None:
            return Decision("promote", "no guard has tripped", None, evidence)
        comparison = self.steps.get(as_split(step.share))
        if comparison is None:
            return Decision("hold", "no user has come by the split at this share yet", None, evidence)
        if wrong := comparison.split_is_wrong(self.settings.ratio_level / max(1, self.compared)):
            return Decision("hold", wrong, None, evidence)
        if few := self._too_few(comparison, step):
            return Decision("hold", few, self._seconds_to_users(comparison, step), evidence)
        if not comparison.compares:
            return Decision("promote", "no guard has tripped; nobody is left to compare with", None, evidence)
        return self._within_margins(comparison, evidence)

    @staticmethod
    def _within_margins(comparison: StepComparison, evidence: dict[str, Any]) -> Decision:
        missing = [name for name, metric in comparison.metrics.items() if not metric.harmless]
        if not missing:
            return Decision("promote", "no worse within the margins", None, evidence)
        waits = [comparison.seconds(comparison.metrics[name].more_needed()) for name in missing]
        seconds = None if None in waits else max(wait for wait in waits if wait is not None)
        ended = "; no new users come" if comparison.nobody_new else ""
        return Decision("hold", f"inconclusive: {', '.join(missing)}{ended}", seconds, evidence)

    @staticmethod
    def _too_few(comparison: StepComparison, step: Step) -> str | None:
        users = comparison.users.count(True)
        return f"{users} of {step.users} users of the candidate" if users < step.users else None

    @staticmethod
    def _seconds_to_users(comparison: StepComparison, step: Step) -> float | None:
        users = comparison.users.count(True)
        if users == 0 or comparison.first is None or comparison.last is None or comparison.nobody_new:
            return None
        elapsed = comparison.last - comparison.first
        return elapsed * (step.users / users - 1) if elapsed > 0 else None

    def evidence(self, step: Step | None) -> dict[str, Any]:
        comparison = None if step is None else self.steps.get(as_split(step.share))
        return {
            "guards": self.guards.evidence(),
            "unusable_outcomes": self.unusable,
            "step": None if comparison is None else comparison.evidence(),
        }

    def state(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "settings": self._digest(),
            "guards": self.guards.state(),
            "steps": [step.state() for step in self.steps.values()],
            "clock": None if self.clock == -math.inf else self.clock,
            "position": self.position,
            "worse": self.worse,
            "unusable": self.unusable,
            "waiting": [list(outcome) for outcome in self.waiting],
        }

    @classmethod
    def restored(cls, settings: Settings, steps: Sequence[Step], has: Has, state: dict[str, Any]) -> "Judge":
        """Raises: ValueError for the state of a judge with other settings."""
        judge = cls(settings, steps, has)
        if (state.get("schema"), state.get("settings")) != (SCHEMA, judge._digest()):
            raise ValueError(
                "the judge's state was written with other settings or another version of Assay: end this release "
                "(`assay release rollback`) and start another"
            )
        judge.guards.restore(state["guards"])
        for kept in state["steps"]:
            step = StepComparison(settings, kept["share"], kept["low"], kept["high"], judge.level)
            step.restore(kept)
            judge.steps[kept["share"]] = step
        judge.clock = -math.inf if state["clock"] is None else state["clock"]
        judge.position, judge.worse, judge.unusable = state["position"], state["worse"], state["unusable"]
        judge.waiting = [Outcome(*outcome) for outcome in state["waiting"]]
        return judge

    def _digest(self) -> str:
        said = f"{self.settings.model_dump_json()}{self.shares}"
        return hashlib.sha256(said.encode()).hexdigest()[:16]
