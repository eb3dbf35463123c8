"""Drift, watched from the prediction logs of both versions.

    drift = Drift(release.drift, reference of the candidate's bundle)
    drift.feed("stable", stable.read())
    drift.feed("candidate", candidate.read())
    drift.findings                          # all so far; drift.asks() is what should follow
    drift = Drift.restored(release.drift, reference, state)

Three things are compared, one prediction per user: inputs with the training reference; the candidate's predictions with
those of the stable version at the same time; every number with its own past.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from assay.release.bundle.reference import Reference
from assay.release.drift import measures
from assay.release.drift.changes import Stream
from assay.release.drift.sample import SUMMARIES, Lowest, Sample, Window, column, sample_of, unit_of
from assay.release.observations import Prediction, Role
from assay.release.schema import Drift as Settings

SCHEMA = 1
LEAST_USERS = 50
"""Of either side; fewer are not compared."""
MOST_FINDINGS = 1000
PREDICTIONS = ("class", "value")
_PARTS = 3
"""Inputs, predictions and changes share the level."""


@dataclass(frozen=True)
class Finding:
    """A drift that is both more than chance and large."""

    kind: Literal["inputs", "predictions", "change"]
    feature: str
    """Of the reference, `class`, `value`, or `ROLE.value`."""
    timestamp: float
    """Of the last prediction that went into it."""
    users: int | None
    """One prediction each; null: of a change, which has no window of its own."""
    psi: float | None
    ks: float | None
    wasserstein: float | None
    """In standard deviations of the reference."""
    p: float | None
    shift: float | None
    """Of the mean rank, for a change."""

    @property
    def text(self) -> str:
        if self.kind == "change":
            return f"{self.feature} has changed: its mean rank moved by {self.shift:+.2f}"
        sides = "the training data" if self.kind == "inputs" else "the stable version's at the same time"
        return f"{self.kind}: {self.feature} differs from {sides} (PSI {self.psi:.2f}, p {self.p:.1g})"


class Drift:
    """reference: of the candidate's bundle; None: inputs are compared with their own past alone."""

    def __init__(self, settings: Settings, reference: Reference | None) -> None:
        self.settings, self.reference = settings, reference
        self.findings: list[Finding] = []
        self.latest: dict[str, dict[str, float | None]] = {}
        """What was measured last, by feature, drift or not."""
        self.inputs, self.candidate = Window(settings.window), Window(settings.window)
        self.stable = Lowest(settings.window, "0")
        self.seen_stable = Window(settings.window)
        """So that a user of the stable version counts once in a while in what is followed over time."""
        self.looks = {"inputs": 0, "predictions": 0}
        self.streams = self._streams()

    def _streams(self) -> dict[str, Stream]:
        names = [*(f"inputs.{name}" for name in SUMMARIES), "stable.value", "candidate.value"]
        level = self.settings.level / _PARTS / len(names)
        return {name: Stream(level, self._expected(name)) for name in names}

    def _expected(self, name: str) -> list[float] | None:
        if self.reference is None or not name.startswith("inputs."):
            return None
        return self.reference.features[name.removeprefix("inputs.")].quantiles

    def feed(self, role: Role, lines: Iterable[Prediction]) -> None:
        """New lines of a version's logs, each once."""
        for line in lines:
            sample, unit = sample_of(line), unit_of(line)
            if not line["shadow"]:
                self._see_inputs(line["timestamp"], unit, sample)
            if line["route"] == "split" or line["shadow"]:
                self._see_prediction(role, line["timestamp"], unit, sample)

    def _see_inputs(self, timestamp: float, unit: str, sample: Sample) -> None:
        if self.inputs.add(unit, sample):
            for name, value in zip(SUMMARIES, sample.inputs, strict=True):
                self._follow(f"inputs.{name}", value, timestamp)
        if self.inputs.over:
            samples = list(self.inputs.samples.values())
            self.inputs = Window(self.settings.window)
            if self.reference is not None and len(samples) >= LEAST_USERS:
                self._compare_inputs(samples, self.reference, timestamp)

    def _see_prediction(self, role: Role, timestamp: float, unit: str, sample: Sample) -> None:
        if role == "stable":
            if self.seen_stable.add(unit, sample):
                self._follow("stable.value", sample.value, timestamp)
            if self.seen_stable.over:
                self.seen_stable = Window(self.settings.window)
            self.stable.add(unit, sample)
            return
        if self.candidate.add(unit, sample):
            self._follow("candidate.value", sample.value, timestamp)
        if self.candidate.over:
            candidate, stable = list(self.candidate.samples.values()), list(self.stable.samples.values())
            self.candidate = Window(self.settings.window)
            self._compare_predictions(candidate, stable, timestamp)
            self.stable = Lowest(self.settings.window, str(self.looks["predictions"]))

    def _follow(self, name: str, value: float | None, timestamp: float) -> None:
        if value is None or not math.isfinite(value):
            return
        shift = self.streams[name].add(value)
        if shift is not None:
            self._found(Finding("change", name, timestamp, None, None, None, None, None, shift))

    def _level(self, kind: str, features: int) -> float:
        """Of one test in the next window: all of all windows together stay within the level."""
        self.looks[kind] += 1
        look = self.looks[kind]
        return self.settings.level / _PARTS / features / (look * (look + 1))

    def _compare_inputs(self, samples: list[Sample], reference: Reference, timestamp: float) -> None:
        level = self._level("inputs", len(SUMMARIES))
        for place, name in enumerate(SUMMARIES):
            values, feature = column(samples, place), reference.features[name]
            if len(values) < LEAST_USERS:
                continue
            counts, expected = measures.counted(values, feature)
            distance, p = measures.ks_binned(counts, expected)
            size, moved = measures.psi(counts, expected), measures.wasserstein(values, feature)
            self._tell("inputs", name, timestamp, len(values), size, distance, moved, p, level)

    def _compare_predictions(self, candidate: list[Sample], stable: list[Sample], timestamp: float) -> None:
        sides = [[one.predicted for one in side if one.predicted is not None] for side in (candidate, stable)]
        values = [
            np.array([one.value for one in side if one.value is not None], dtype=np.float64)
            for side in (candidate, stable)
        ]
        if min(map(len, sides)) < LEAST_USERS or min(map(len, values)) < LEAST_USERS:
            return
        level = self._level("predictions", len(PREDICTIONS))
        size, p = measures.classes(*sides)
        self._tell("predictions", "class", timestamp, len(sides[0]), size, None, None, p, level)
        distance, p = measures.ks(*values)
        edges = measures.deciles(values[1])
        counts = [
            np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(edges) + 1)
            for side in values
        ]
        size = measures.psi(counts[0].astype(np.float64), counts[1].astype(np.float64))
        self._tell("predictions", "value", timestamp, len(values[0]), size, distance, None, p, level)

    def _tell(
        self,
        kind: Literal["inputs", "predictions"],
        feature: str,
        timestamp: float,
        users: int,
        size: float,
        distance: float | None,
        moved: float | None,
        p: float,
        level: float,
    ) -> None:
        self.latest[f"{kind}.{feature}"] = {"psi": size, "ks": distance, "wasserstein": moved, "p": p}
        if size >= self.settings.psi and p <= level:
            self._found(Finding(kind, feature, timestamp, users, size, distance, moved, p, None))

    def _found(self, finding: Finding) -> None:
        self.findings.append(finding)
        del self.findings[:-MOST_FINDINGS]

    def asks(self) -> tuple[Literal["warn", "pause", "rollback"], str] | None:
        """What should follow, and why; None: nothing was found.

        Inputs are not the candidate's doing: only its own predictions do more than warn.
        """
        own = [one for one in self.findings if one.kind == "predictions"]
        if own and self.settings.action != "warn":
            return self.settings.action, own[-1].text
        return ("warn", self.findings[-1].text) if self.findings else None

    def _windows(self) -> dict[str, Window]:
        return {"inputs": self.inputs, "candidate": self.candidate, "stable": self.seen_stable}

    def state(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "findings": [asdict(one) for one in self.findings],
            "latest": self.latest,
            "windows": {
                name: {
                    "lines": window.lines,
                    "samples": {unit: list(one) for unit, one in window.samples.items()},
                }
                for name, window in self._windows().items()
            },
            "stable": {str(key): list(one) for key, one in self.stable.samples.items()},
            "looks": self.looks,
            "streams": {name: stream.state() for name, stream in self.streams.items()},
        }

    @classmethod
    def restored(cls, settings: Settings, reference: Reference | None, state: dict[str, Any]) -> "Drift":
        """Raises: ValueError for the state of another version of Assay."""
        if state.get("schema") != SCHEMA:
            raise ValueError("the state of drift was written by another version of Assay: remove it")
        drift = cls(settings, reference)
        drift.findings = [Finding(**one) for one in state["findings"]]
        drift.latest, drift.looks = state["latest"], dict(state["looks"])
        for name, window in drift._windows().items():
            kept = state["windows"][name]
            window.lines = kept["lines"]
            window.samples = {unit: _sample(one) for unit, one in kept["samples"].items()}
        drift.stable.salt = str(drift.looks["predictions"])
        for key, one in state["stable"].items():
            drift.stable.keep(int(key), _sample(one))
        for name, stream in drift.streams.items():
            stream.restore(state["streams"][name])
        return drift


def _sample(kept: list[Any]) -> Sample:
    return Sample(tuple(kept[0]), kept[1], kept[2])
