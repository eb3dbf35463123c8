"""The judge as the controller sees it: fed from the logs, its memory on the disk."""

import contextlib
import json
import time
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

from assay.records import write_atomically
from assay.release.asking import asked
from assay.release.judge.judge import Judge
from assay.release.layout import Layout
from assay.release.observations import Access, Outcome
from assay.release.ramp.drift_part import DriftPart
from assay.release.ramp.memory import DamagedMemory, remembered
from assay.release.ramp.parts import Decision, Look
from assay.release.ramp.processes import Supervised
from assay.release.ramp.room import without_room
from assay.release.ramp.state import State
from assay.release.routing.access import AccessReader
from assay.release.routing.split import in_candidate
from assay.release.schema import Release

METRICS_SECONDS = 1.0
_KEPT_SECONDS = 10.0
"""What was read after the last time is read again by whoever takes over, and comes to the same."""


@dataclass
class JudgePart:
    """Reads what was logged since the last look, whoever looked then."""

    release: Release
    layout: Layout
    services: Supervised
    drift: DriftPart
    clock: Any = time.monotonic
    _metrics: dict[str, float] | None = None
    _asked: float = field(default=-1e9)
    _kept: float = field(default=-1e9)

    def __post_init__(self) -> None:
        self._reader = AccessReader(self.layout.access)
        self._shadow = AccessReader(self.layout.shadow_log)
        self._outcomes = 0
        self._damaged: tuple[str, ...] = ()
        """What was wrong with the memory that was found."""
        self._judge = self._restored()

    def look(self, state: State) -> Look:
        self._judge.feed(self._accesses(), self._new_outcomes(), position=self._position())
        now = time.time()
        metrics = self._candidate_metrics()
        # Whether it is ready the controller sees itself, by a clock that nobody sets.
        self._judge.health(now, None, None if metrics is None else int(metrics.get("non_finite", 0)))
        step = None if state.step is None else self.release.ramp.steps[state.step]
        decision = self._judge.decide(now, step)
        actions: dict[str, Decision] = {"rollback": "rollback", "promote": "go_on", "hold": "wait"}
        copies = None if metrics is None else int(sum(metrics.values()))
        self._keep()
        action, why = self.drift.look(state) or ("", "")
        drifts = action == "rollback" and decision.action != "rollback"
        return Look(
            "rollback" if drifts else actions[decision.action],
            (f"drift: {why}",) if drifts else (decision.reason,),
            users=_users(decision.evidence),
            requests=copies,
            seconds_to_decide=decision.seconds,
            warnings=(*self._damaged, *self.drift.warnings),
            pause=f"drift: {why}" if action == "pause" else None,
            evidence=decision.evidence,
        )

    def _accesses(self) -> list[Access]:
        """Copies too: guards count what the candidate made of them."""
        return self._reader.read() + self._shadow.read()

    def _new_outcomes(self) -> list[Outcome]:
        """Whole lines since the last look; what is none is left out."""
        try:
            with self.layout.outcomes.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(self._outcomes if self._outcomes <= size else 0)
                begin = file.tell()
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content.rfind(b"\n") + 1
        self._outcomes = begin + whole
        found = []
        for line in content[:whole].splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = orjson.loads(line)
                found.append(Outcome(float(said["timestamp"]), str(said["user"]), float(said["value"])))
        return found

    def _position(self) -> dict[str, Any]:
        access, shadow = (
            {str(inode): at for inode, at in reader.positions.items()}
            for reader in (self._reader, self._shadow)
        )
        return {"access": access, "shadow": shadow, "outcomes": self._outcomes}

    def _restored(self) -> Judge:
        salt = self.layout.salt.read_text().strip()
        given = (self.release.judge, self.release.ramp.steps, partial(in_candidate, salt))
        try:
            content = remembered(self.layout.judge)
        except DamagedMemory as error:
            content, self._damaged = None, (str(error),)
        if content is None:
            return Judge(*given)
        judge = Judge.restored(*given, content)
        position = judge.position or {"access": {}, "shadow": {}, "outcomes": 0}
        for name, reader in (("access", self._reader), ("shadow", self._shadow)):
            reader.positions = {int(inode): at for inode, at in position[name].items()}
        self._outcomes = position["outcomes"]
        return judge

    def _keep(self) -> None:
        if self.clock() - self._kept >= _KEPT_SECONDS:
            self._kept = self.clock()
            with without_room():
                write_atomically(self.layout.judge, json.dumps(self._judge.state()).encode() + b"\n")

    def _candidate_metrics(self) -> dict[str, float] | None:
        """The candidate's requests by outcome; null: it does not say."""
        if self.clock() - self._asked < METRICS_SECONDS:
            return self._metrics
        self._asked = self.clock()
        address = self.services.address("candidate")
        self._metrics = None if address is None else requests_by_code(address)
        return self._metrics


def requests_by_code(address: str) -> dict[str, float] | None:
    """From a version's /metrics; None: it does not answer."""
    try:
        text = asked(f"http://{address}/metrics", 1.0).decode()
    except (OSError, ValueError, HTTPException):
        return None
    return {
        sample.labels["code"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "assay_serving_requests_total"
    }


def _users(evidence: dict[str, Any]) -> int | None:
    step = evidence.get("step")
    return None if step is None else int(step["users"]["candidate"])
