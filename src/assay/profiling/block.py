"""A block: all arms on one machine, in one job, each visit in a fresh process, in counterbalanced order."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from assay.config.schema import Arm, Profile, spec_of
from assay.data.store import MANIFEST, open_store
from assay.environment import capture, code
from assay.models.sources import source_files
from assay.profiling.exchange import Result
from assay.profiling.order import visit_order
from assay.records import Code, Measurement, Record, Telemetry, canonical_json, now, sha256_file, sha256_text
from assay.sources import PACKAGE
from assay.telemetry.machine import Machine
from assay.telemetry.window import Window

_REPORTED_STEAL = 0.01
"""Share of a visit's time above which stolen time is worth a warning."""


@dataclass
class _Visit:
    """One visit as the block saw it."""

    position: int
    started: str
    finished: str
    pid: int
    before: dict[str, Any]
    after: dict[str, Any]
    seconds: float
    result: Result
    telemetry: Telemetry | None

    def evidence(self) -> dict[str, Any]:
        result = self.result
        return {
            "position": self.position,
            "pid": self.pid,
            "started": self.started,
            "finished": self.finished,
            "outcome": result.outcome,
            "message": result.message,
            "before": self.before,
            "after": self.after,
            "telemetry": None if self.telemetry is None else self.telemetry.model_dump(mode="json"),
            "cold_start_s": result.cold_start_s,
            "inference_peak_memory_mb": result.inference_peak_memory_mb,
            "peak_memory_mb": result.peak_memory_mb,
            "inference_ms": {
                str(size): one.summary.model_dump() for size, one in result.inference_ms.items()
            },
            "training_ms": None if result.training_ms is None else result.training_ms.summary.model_dump(),
        }


@dataclass
class _Arm:
    """One arm's visits so far."""

    started: str
    visits: list[_Visit] = field(default_factory=list)

    @property
    def failure(self) -> Result | None:
        """The result of the visit that did not complete, if any."""
        return next((one.result for one in self.visits if one.result.outcome != "completed"), None)


def profile_block(
    *,
    experiment: str,
    block: int,
    arms: dict[str, Arm],
    profile: Profile,
    data: Path,
    output: Path,
    module_roots: Sequence[Path] = (),
    telemetry: float | None = None,
) -> None:
    """Visit each arm twice and leave `output/ARM/record.json` and `output/ARM/telemetry.jsonl`.

    An arm whose visit fails, runs out of memory or gives scores that are not finite gets a record that says so
    and is not visited again; the others go on. telemetry: seconds between two samples of the machine; None: none.

    Raises: ValueError for data that cannot be read or a user's module that does not exist.
    """
    open_store(data)
    sources = {name: source_files(arm.model.source, module_roots) for name, arm in arms.items()}
    order = visit_order(list(arms), block)
    found = {name: _Arm(started=now()) for name in arms}
    for name in arms:
        (output / name).mkdir(parents=True, exist_ok=True)
        (output / name / "telemetry.jsonl").unlink(missing_ok=True)
    for position, name in enumerate(order):
        if found[name].failure is not None:
            continue
        print(f"visit {position + 1} of {len(order)}: {name}", flush=True)
        request = {
            "arm": spec_of(arms[name]),
            "profile": profile.model_dump(mode="json"),
            "data": str(data),
            "module_roots": [str(root) for root in module_roots],
            "visit": position,
            "flops": not found[name].visits,
            "telemetry": str(output / name / "telemetry.jsonl"),
            "telemetry_interval": telemetry,
        }
        found[name].visits.append(_visit(position, request))
    data_sha256 = sha256_file(data / MANIFEST)
    for name, arm in arms.items():
        record = _record(found[name], arm, profile, order, code("profile", sources[name]))
        identity = {"experiment": experiment, "arm": name, "block": block, "data_sha256": data_sha256}
        record.model_copy(update=identity).write(output / name / "record.json")


def _record(found: _Arm, arm: Arm, profile: Profile, order: list[str], origin: Code) -> Record:
    """The record of one arm but for what it shares with the others of its block."""
    # Settings that cost nothing may have been left out: their defaults are not what this arm is trained with.
    spec = arm.model_dump(mode="json", exclude_unset=True)
    visits, failure = found.visits, found.failure
    environment = next((visit.result.environment for visit in visits if visit.result.environment), None)
    return Record(
        stage="profile",
        experiment="",
        outcome="completed" if failure is None else failure.outcome,
        message=None if failure is None else failure.message,
        started=found.started,
        finished=now(),
        spec=spec,
        spec_sha256=sha256_text(canonical_json(spec)),
        code=origin,
        environment=environment or capture(threads=arm.execution.threads, device=None),
        metrics=_metrics([visit.result for visit in visits], arm, profile, completed=failure is None),
        details={
            "order": order,
            "profile": profile.model_dump(mode="json", exclude={"enabled", "blocks"}),
            "visits": [visit.evidence() for visit in visits],
        },
        warnings=_warnings(visits),
    )


def _visit(position: int, request: dict[str, Any]) -> _Visit:
    """Start a process for one visit and wait for its end; it dies with this one if that is interrupted."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    machine = Machine(os.getpid())
    with tempfile.TemporaryDirectory(prefix="assay-visit-") as folder:
        path = Path(folder) / "result.json"
        started, before, launched = now(), machine.read(), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "assay.profiling.visit"], stdin=subprocess.PIPE, env=environment
        )
        try:
            process.communicate(json.dumps(request | {"result": str(path), "launched": launched}).encode())
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        seconds = time.monotonic() - launched
        try:
            result = Result.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            result = Result(outcome="failed", message=_ending(process.returncode))
    window = Window(Path(request["telemetry"]), {"visit": position})
    return _Visit(
        position, started, now(), process.pid, before, machine.read(), seconds, result, window.summary()
    )


def _ending(status: int) -> str:
    if status >= 0:
        return f"the visit's process ended with status {status} and left no result; its log says why"
    name = signal.Signals(-status).name
    hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"the visit's process was ended by {name}{hint}"


def _metrics(
    results: Sequence[Result], arm: Arm, profile: Profile, *, completed: bool
) -> dict[str, Measurement]:
    """Medians of the visits' medians; raw samples in the order of the visits. All null unless all completed."""
    if not completed:
        results = ()
    sizes = profile.batch_sizes
    metrics: dict[str, Measurement] = {}
    for size in sizes:
        timings = [result.inference_ms[size] for result in results]
        medians = [one.summary.median for one in timings]
        metrics[f"latency_ms@{size}"] = Measurement(
            unit="ms",
            value=_median(medians),
            samples=[sample for one in timings for sample in one.samples] or None,
            count=sum(one.summary.count for one in timings) or None,
        )
        metrics[f"throughput@{size}"] = Measurement(
            unit="samples/s", value=_median(size / value * 1e3 for value in medians)
        )
    steps = [result.training_ms for result in results if result.training_ms is not None]
    trained = arm.training.batch_size * arm.training.accumulate
    metrics["training_throughput"] = Measurement(
        unit="samples/s",
        value=_median(trained / one.summary.median * 1e3 for one in steps),
        samples=[trained / sample * 1e3 for one in steps for sample in one.samples] or None,
        count=sum(one.summary.count for one in steps) or None,
    )
    first = results[0] if results else Result()
    return {
        "latency_ms": metrics[f"latency_ms@{sizes[0]}"],
        "throughput": metrics[f"throughput@{sizes[-1]}"],
        "training_throughput": metrics.pop("training_throughput"),
        "peak_memory_mb": _per_visit("MiB", [result.peak_memory_mb for result in results]),
        "parameters": Measurement(unit="count", value=first.parameters),
        "flops": Measurement(unit="FLOP", value=first.flops),
        "cold_start_s": _per_visit("s", [result.cold_start_s for result in results]),
        **metrics,
    }


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def _per_visit(unit: str, values: Sequence[float | None]) -> Measurement:
    known = [value for value in values if value is not None]
    return Measurement(unit=unit, value=_median(known), samples=known or None, count=len(known) or None)


def _warnings(visits: Sequence[_Visit]) -> list[str]:
    """What may have touched the timings from outside."""

    def growth(visit: _Visit, name: str) -> float:
        before, after = visit.before[name], visit.after[name]
        return 0.0 if before is None or after is None else after - before

    warnings = [
        text
        for visit in visits
        for text in (*visit.result.telemetry_notes, *(visit.telemetry.warnings if visit.telemetry else []))
    ]
    if any(growth(visit, "throttled_s") > 0 for visit in visits):
        warnings.append("the control group held CPU time back during a visit: timings may be too long")
    if any(growth(visit, "steal_s") > _REPORTED_STEAL * visit.seconds for visit in visits):
        warnings.append("other guests of the host took CPU time during a visit: timings may be too long")
    return warnings
