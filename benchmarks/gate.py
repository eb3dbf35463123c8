"""`assay gate` on candidates whose truth is known, many times: false alarms, misses, and what stays undecided.

Prints the table of docs/gate.md. Each repetition writes the records of a baseline and of a candidate as the stages write them, and
gates them with the command's own function: same reader, same contract, same judge.

    PYTHONPATH=src python benchmarks/gate.py [--repetitions 400] [--seed 1]
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from assay.config.arm import spec_of
from assay.config.schema import Experiment
from assay.evaluation import summary, table
from assay.gate.model import Gate
from assay.gate.run import gate
from assay.records import Code, Device, Environment, Measurement, Record

ARM = "model"
EXAMPLES = 2000
MARGIN, COST_MARGIN = 0.01, 0.05
UNITS = {"loss": "nats", "latency_ms": "ms", "parameters": "count"}
BY_BLOCK = ("latency_ms", "parameters")
Numbers = Mapping[str, list[float | None]]


@dataclass
class Results:
    """A folder of results, as the stages leave it, of one arm with the numbers that it is given."""

    folder: Path
    metrics: list[dict[str, Any]]
    seeds: int = 6
    blocks: int = 0
    started: str = "2026-01-01T00:00:00Z"
    change: dict[str, Any] = field(default_factory=dict)
    """Fields of the environment, and `user_sources`, `batches`, `data`, `commit` of records, that are not the usual ones."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the experiment."""
    name: str = "gated"

    def experiment(self) -> Experiment:
        arms = {
            name: {"model": {"source": "builtin:mlp", "options": {"width": width}}}
            for name, width in (("reference", 8), (ARM, 16))
        }
        content = {
            "name": self.name,
            "baseline": "reference",
            "factors": ["model"],
            "arms": arms,
            "data": {"source": "digits"},
            "seeds": list(range(self.seeds)),
            "metrics": self.metrics,
            "profile": {"enabled": self.blocks > 0, "blocks": max(1, self.blocks)},
            "comparison": {"resamples": 1000},
        }
        return Experiment.model_validate(content | self.settings)

    def write(self, numbers: Numbers, arms: tuple[str, ...] = (ARM,)) -> Path:
        """numbers: by metric a value for each seed or block; null: the run diverged."""
        experiment = self.experiment()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "experiment.yaml").write_text(_yaml(experiment.model_dump_json()))
        for arm in arms:
            for seed in experiment.seeds:
                found = {name: values[seed] for name, values in numbers.items() if name not in BY_BLOCK}
                for stage in ("train", "evaluate"):
                    metrics = found if stage == "evaluate" else {}
                    self._write(experiment, arm, stage, seed, metrics, lost=None in found.values())
            for block in range(self.blocks):
                found = {name: values[block] for name, values in numbers.items() if name in BY_BLOCK}
                self._write(experiment, arm, "profile", block, found, lost=None in found.values())
        return self.folder

    def _write(
        self,
        experiment: Experiment,
        arm: str,
        stage: str,
        number: int,
        metrics: Mapping[str, float | None],
        *,
        lost: bool,
    ) -> None:
        place = f"profile/block-{number}/{arm}" if stage == "profile" else f"runs/{arm}/seed-{number}/{stage}"
        path = self.folder / place / "record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = self._record(experiment, arm, stage, number, metrics, lost)
        if stage == "evaluate" and record.outcome == "completed":
            # Compare computes numbers again from predictions: there are such as give these.
            predictions = predicted(metrics)
            record.predictions_sha256 = table.write(predictions, path.with_name(table.FILE), threads=1)
            record.metrics |= {
                name: one for name, one in summary.measurements(predictions).items() if name in metrics
            }
        path.write_text(record.model_dump_json())

    def _record(
        self,
        experiment: Experiment,
        arm: str,
        stage: str,
        number: int,
        metrics: Mapping[str, float | None],
        lost: bool,
    ) -> Record:
        usual: dict[str, Any] = {
            "host": "node1",
            "platform": "Linux",
            "python": "3.12",
            "packages": {"torch": "2.9.1"},
            "cpu": "a CPU",
            "cpu_count": 4,
            "threads": 1,
            "device": Device(type="cuda", name="H100", uuid="GPU-1", driver="570", cuda="12.8"),
        }
        change = dict(self.change)
        code = Code(
            version="1",
            sources_sha256=change.pop("sources", "0" * 64),
            commit=change.pop("commit", "1" * 40),
            user_sources=change.pop("user_sources", {}),
        )
        batches, data = change.pop("batches", f"{number:064d}"), change.pop("data", "0" * 64)
        weights, profile = change.pop("weights", None), change.pop("profile", {"batch_sizes": [1]})
        outcome = change.pop("outcome", "diverged" if lost else "completed")
        return Record(
            stage=stage,
            experiment=experiment.name,
            arm=arm,
            seed=None if stage == "profile" else number,
            block=number if stage == "profile" else None,
            outcome=outcome,
            started=self.started,
            finished=self.started,
            spec=spec_of(experiment.arms[arm]),
            data_sha256=data,
            batches_sha256=batches if stage == "train" else None,
            weights_sha256=weights if stage != "profile" else None,
            code=code,
            environment=Environment(**(usual | change)),
            metrics={
                name: Measurement(unit=UNITS.get(name, "fraction"), value=value)
                for name, value in metrics.items()
            },
            details={"profile": profile} if stage == "profile" else {},
        )


def predicted(metrics: Mapping[str, float | None]) -> table.Predictions:
    """Of three classes, with this accuracy, to 1/2,000, and this loss; the first examples are the right ones."""
    accuracy, loss = metrics.get("accuracy", 0.9), metrics.get("loss", 0.5)
    assert accuracy is not None and loss is not None
    count = round(EXAMPLES * accuracy)
    wrong = EXAMPLES - count
    easy = min(0.6, max(0.01, (loss * EXAMPLES - 0.7 * wrong) / max(1, count)))
    hard = (loss * EXAMPLES - easy * count) / max(1, wrong)
    places = np.arange(EXAMPLES)
    own = np.exp(-np.where(places < count, easy, hard))
    labels = places % 3
    probabilities = np.zeros((EXAMPLES, 3))
    probabilities[places, labels] = own
    probabilities[places, (labels + 1) % 3] = 1 - own
    return table.Predictions(labels, probabilities, -np.log(own))


@cache
def _yaml(experiment: str) -> str:
    return yaml.safe_dump(json.loads(experiment), sort_keys=False)


@dataclass(frozen=True)
class Candidate:
    """The truth of one: by how much it is worse, in margins, and how it scatters, in what the baseline does."""

    title: str
    worse: float
    scatter: float = 1.0


CANDIDATES = (
    Candidate("better by a margin", -1.0),
    Candidate("the same", 0.0),
    Candidate("the same, five times as noisy", 0.0, 5.0),
    Candidate("worse by exactly the margin", 1.0),
    Candidate("worse by exactly the margin, five times as noisy", 1.0, 5.0),
    Candidate("worse by two margins", 2.0),
    Candidate("worse by four margins", 4.0),
)
SPREAD = 0.004
"""Standard deviation of a run's accuracy at its seed."""
BETWEEN, WITHIN = 0.01, 0.02
"""Of the logarithm of a latency, from session to session and from block to block."""
SESSIONS = (3, 5)


def paired(folder: Path, candidate: Candidate, seeds: int, rng: np.random.Generator) -> Gate:
    """Accuracy and loss, by seed; both worse by as many margins."""
    metrics = [{"name": name, "margin": MARGIN} for name in ("accuracy", "loss")]
    luck = rng.normal(0, 0.006, seeds)
    sides = {}
    for who, worse, scatter in (("baseline", 0.0, 1.0), ("candidate", candidate.worse, candidate.scatter)):
        noise = rng.normal(0, SPREAD * scatter, (2, seeds))
        numbers: Numbers = {
            "accuracy": (0.9 + luck - worse * MARGIN + noise[0]).tolist(),
            "loss": (0.4 - luck + worse * MARGIN + noise[1]).tolist(),
        }
        sides[who] = Results(folder / who, metrics, seeds, started=_day(who, 0)).write(numbers)
    return gate(candidate=sides["candidate"], baseline=sides["baseline"])


def between(folder: Path, candidate: Candidate, sessions: int, rng: np.random.Generator) -> Gate:
    """Latency, of so many sessions of the baseline and one of the candidate."""
    metrics = [{"name": "latency_ms", "margin": COST_MARGIN}]
    shift = candidate.worse * np.log1p(COST_MARGIN)
    folders = []
    for session in range(sessions + 1):
        own = session == sessions
        level = rng.normal(shift if own else 0.0, BETWEEN * (candidate.scatter if own else 1.0))
        latency = np.exp(level + rng.normal(0, WITHIN, 6)).tolist()
        made = Results(folder / f"session-{session}", metrics, 1, 6, started=_day("session", session))
        folders.append(made.write({"latency_ms": latency}))
    baseline, *further, own_folder = folders
    return gate(candidate=own_folder, baseline=baseline, sessions=further)


def _day(who: str, number: int) -> str:
    return f"2026-01-{1 + number + 10 * (who == 'candidate'):02d}T00:00:00Z"


def count(kind: str, candidate: Candidate, n: int, *, repetitions: int, seed: int) -> Counter[str]:
    """Decisions: `pass`, `worse`, `inconclusive`."""
    rng = np.random.default_rng((seed, n, CANDIDATES.index(candidate), kind == "seeds"))
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="assay-gate-") as folder:
        for _ in range(repetitions):
            one = (paired if kind == "seeds" else between)(Path(folder), candidate, n, rng)
            found[one.decision] += 1
    assert not found.keys() - {"pass", "worse", "inconclusive"}, found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| compared by | candidate | passed | called worse | undecided |")
    print("|---|---|--:|--:|--:|")
    for kind, sizes in (("seeds", (6, 12)), ("sessions", SESSIONS)):
        for n in sizes:
            for candidate in CANDIDATES:
                found = count(kind, candidate, n, repetitions=arguments.repetitions, seed=arguments.seed)
                shares = (
                    f"{100 * found[word] / arguments.repetitions:.1f}%"
                    for word in ("pass", "worse", "inconclusive")
                )
                print(f"| {n} {kind} | {candidate.title} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
