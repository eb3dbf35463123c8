"""What there is to track: each run, each visit of a profile block and the comparison, as MLflow sees runs.

A function of the experiment's files alone. An entry's hash is over the files that it is made of, so that an entry of the same
key and hash is the same entry, wherever and whenever it was sent.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from assay.comparison.contract import flatten
from assay.comparison.model import Comparison
from assay.comparison.run import read_experiment
from assay.config.schema import Experiment
from assay.records import Record, RecordError, canonical_json, sha256_file, sha256_text

PREFIX = "assay."
"""Of all tags that are Assay's."""
VERDICT = "verdict"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. ]")
_LONGEST = 500
"""Letters of a parameter or a tag: what every MLflow since 1.0 takes."""


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Entry:
    """One MLflow run to be."""

    key: str
    """Where it came from in the results, e.g. `runs/cnn/seed-0`."""
    sha256: str
    started: int
    """Milliseconds since 1970, UTC; so is `ended`."""
    ended: int
    status: str
    params: Mapping[str, str]
    points: list[Point]
    tags: Mapping[str, str]
    files: list[tuple[Path, str]] = field(default_factory=list)
    """Artefacts: a file or a folder, and the folder that it goes to."""


def entries(results: Path) -> Iterator[Entry]:
    """Everything of a finished experiment. Raises: RecordError for what is missing or damaged."""
    experiment = read_experiment(results / "experiment.yaml")
    for arm in experiment.arms:
        for seed in experiment.seeds:
            key = f"runs/{arm}/seed-{seed}"
            found = [results / key / stage / "record.json" for stage in ("train", "evaluate")]
            yield from _of_records(experiment, results, key, [path for path in found if path.exists()])
    for block in range(experiment.profile.blocks if experiment.profile.enabled else 0):
        for arm in experiment.arms:
            key = f"profile/block-{block}/{arm}"
            path = results / key / "record.json"
            yield from _of_records(experiment, results, key, [path] if path.exists() else [])
    yield _of_comparison(experiment, results)


def _of_records(experiment: Experiment, results: Path, key: str, paths: list[Path]) -> Iterator[Entry]:
    if not paths:
        return
    records = [Record.read(path) for path in paths]
    last = records[-1]
    failed = next((record for record in records if record.outcome != "completed"), None)
    tags = {
        "outcome": (failed or last).outcome,
        "message": failed.message if failed else None,
        "arm": last.arm,
        "seed": last.seed,
        "block": last.block,
        "commit": last.code.commit,
        "data_sha256": last.data_sha256,
        "weights_sha256": records[0].weights_sha256,
        "image": canonical_json(last.environment.image) if last.environment.image else None,
        "device": last.environment.device.name if last.environment.device else None,
        "host": last.environment.host,
    }
    points = [point for record in records for point in _points(record)]
    yield _entry(
        experiment,
        key,
        _hash(results, paths),
        (records[0].started, last.finished),
        "FAILED" if failed else "FINISHED",
        params=flatten(last.spec),
        points=points,
        tags=tags,
        files=[
            (path, path.parent.name if len(path.relative_to(results).parts) == 5 else "") for path in paths
        ],
    )


def _points(record: Record) -> Iterator[Point]:
    """Metrics of a record and of each epoch; what was not measured has no point."""
    for name, measurement in record.metrics.items():
        if measurement.value is not None:
            yield Point(plain(name), measurement.value)
    for line in record.details.get("history") or []:
        for name, value in line.items():
            if name not in {"epoch", "step"} and isinstance(value, (int, float)):
                yield Point(f"epoch.{plain(name)}", float(value), int(line["epoch"]))


def plain(name: str) -> str:
    """As MLflow takes names of metrics: `latency_ms@16` is `latency_ms.batch_16`."""
    return _NOT_IN_NAMES.sub("_", name.replace("@", ".batch_"))


def _of_comparison(experiment: Experiment, results: Path) -> Entry:
    paths = [results / "comparison" / name for name in ("comparison.json", "contract.json", "metrics.csv")]
    found = Comparison.read(paths[0])
    points, tags = [], {"headline": found.headline, "valid": str(found.valid).lower()}
    for metric in found.metrics:
        for contrast in metric.contrasts:
            name = plain(f"{metric.name}.{contrast.arm}")
            tags[f"verdict.{name}"] = contrast.verdict if found.valid else "invalid"
            numbers = {
                "estimate": contrast.estimate,
                "low": contrast.interval.low if contrast.interval else None,
                "high": contrast.interval.high if contrast.interval else None,
                "p_adjusted": contrast.test.p_adjusted if contrast.test else None,
            }
            points += [Point(f"{name}.{what}", value) for what, value in numbers.items() if value is not None]
    moments = [
        (record.started, record.finished)
        for path in sorted(results.glob("runs/*/seed-*/*/record.json"))
        for record in [Record.read(path)]
    ]
    if not moments:
        raise RecordError(f"{results}/runs: no record of a run; run the experiment again")
    report = results / "report"
    return _entry(
        experiment,
        VERDICT,
        _hash(results, [*paths, results / "experiment.yaml"]),
        (min(start for start, _ in moments), max(end for _, end in moments)),
        "FINISHED",
        params={
            "question": found.question,
            "baseline": found.baseline,
            "arms": ", ".join(found.arms),
            "factors": ", ".join(experiment.factors),
            "seeds": canonical_json(experiment.seeds),
            "confidence": str(found.confidence),
        },
        points=points,
        tags=tags,
        files=[
            (results / "experiment.yaml", ""),
            *((path, "comparison") for path in paths if path.exists()),
            *((path, "report") for path in [report / "index.html"] if path.exists()),
            *((path, f"report/{path.name}") for path in [report / "tables"] if path.exists()),
        ],
    )


def _entry(
    experiment: Experiment,
    key: str,
    digest: str,
    span: tuple[str, str],
    status: str,
    *,
    params: Mapping[str, str],
    points: list[Point],
    tags: Mapping[str, Any],
    files: list[tuple[Path, str]],
) -> Entry:
    own = {"experiment": experiment.name, "key": key, "record_sha256": digest} | dict(tags)
    return Entry(
        key=key,
        sha256=digest,
        started=_milliseconds(span[0]),
        ended=_milliseconds(span[1]),
        status=status,
        params={plain(name): value[:_LONGEST] for name, value in params.items()},
        points=points,
        tags={f"{PREFIX}{name}": str(value)[:_LONGEST] for name, value in own.items() if value is not None},
        files=files,
    )


def _hash(results: Path, paths: list[Path]) -> str:
    found = {str(path.relative_to(results)): sha256_file(path) for path in paths if path.exists()}
    return sha256_text(canonical_json(found))


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() * 1000)
