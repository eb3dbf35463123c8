"""What was found offline: the verdict on the arm, and what its inference costs. Null where nothing was."""

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from assay.comparison.model import Comparison, Contrast
from assay.config.schema import Experiment
from assay.records import Record
from assay.release.bundle.manifest import Claim, Estimate, Latency, Verdict


def verdict(results: Path, arm: str) -> Verdict | None:
    """Of all contrasts in which the arm is. Raises: ValueError for a damaged comparison."""
    path = results / "comparison" / "comparison.json"
    if not path.exists():
        return None
    comparison = Comparison.read(path)
    metrics = sorted(comparison.metrics, key=lambda metric: metric.position)
    claims = [
        _claim(metric.name, contrast)
        for metric in metrics
        for contrast in (*metric.contrasts, *metric.between)
        if arm in (contrast.arm, contrast.baseline)
    ]
    return Verdict(
        headline=comparison.headline,
        metric=metrics[0].name,
        contract_valid=comparison.valid,
        claims=claims,
    )


def _claim(metric: str, contrast: Contrast) -> Claim:
    return Claim(
        metric=metric,
        arm=contrast.arm,
        baseline=contrast.baseline,
        verdict=contrast.verdict,
        sentence=contrast.sentence,
        estimate=contrast.estimate,
        low=None if contrast.interval is None else contrast.interval.low,
        high=None if contrast.interval is None else contrast.interval.high,
    )


def estimate(experiment: Experiment, results: Path, arm: str) -> Estimate | None:
    """Over the profile's valid blocks. Raises: ValueError for a damaged record."""
    paths = [
        results / "profile" / f"block-{block}" / arm / "record.json"
        for block in range(experiment.profile.blocks)
    ]
    records = [Record.read(path) for path in paths if path.exists()]
    records = [record for record in records if record.outcome == "completed"]
    if not records:
        return None
    device = records[0].environment.device
    parameters = _middle(records, "parameters")
    return Estimate(
        device="unknown" if device is None else device.name,
        blocks=len(records),
        latency_ms={
            str(size): Latency(
                median_ms=_middle(records, f"latency_ms@{size}"),
                p95_ms=_middle(records, f"latency_p95_ms@{size}"),
            )
            for size in experiment.profile.batch_sizes
        },
        peak_memory_mb=_middle(records, "peak_memory_mb"),
        model_size_mb=_middle(records, "model_size_mb"),
        parameters=None if parameters is None else int(parameters),
    )


def _middle(records: Iterable[Record], name: str) -> float | None:
    """The median; null if any block has no value."""
    found = [record.metrics[name].value if name in record.metrics else None for record in records]
    known = [value for value in found if value is not None]
    return median(known) if known and len(known) == len(found) else None
