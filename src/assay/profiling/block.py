"""A block: all arms on one machine, in one job, each visit in a fresh process, in counterbalanced order."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assay.config.arm import Arm, spec_of
from assay.config.schema import Profile
from assay.data.store import MANIFEST, open_store
from assay.environment import capture, code
from assay.isolation import places
from assay.isolation.attempts import Evidence
from assay.isolation.containment import contain
from assay.isolation.places import take_all
from assay.isolation.processes import adopt_orphans, end_descendants
from assay.isolation.supervisor import Bounds, Crossing, Watch, make_first_to_go
from assay.models.sources import source_files
from assay.profiling.exchange import Result
from assay.profiling.gates import Gate, Visited, judge
from assay.profiling.measured import metrics, wide
from assay.profiling.order import visit_order
from assay.profiling.settle import Idle, idle, settle
from assay.records import Code, Record, Telemetry, canonical_json, now, sha256_file, sha256_text
from assay.sources import PACKAGE
from assay.telemetry.beside import visible_gpu
from assay.telemetry.machine import Machine
from assay.telemetry.window import Window, lines

_REPORTED_STEAL = 0.01
"""Share of a visit's time above which stolen time is worth a warning."""
_REPORTED_CONTENTION = 0.1
"""Share of a visit's time above which its wait for a CPU is worth a warning."""


_COMPILED = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Where PyTorch keeps what it compiled."""


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
    settled_s: float | None
    """How long it waited for the GPU to cool down; null: there is none."""

    @property
    def gpu_memory_mb(self) -> float | None:
        """Of its process at most, as the driver told it; null: it did not."""
        gpus = [] if self.telemetry is None else self.telemetry.gpus
        return max(
            (gpu.series["own_memory_mb"].maximum for gpu in gpus if "own_memory_mb" in gpu.series),
            default=None,
        )

    def evidence(self, profile: Profile) -> dict[str, Any]:
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
            "settled_s": self.settled_s,
            "telemetry": None if self.telemetry is None else self.telemetry.model_dump(mode="json"),
            "wide": wide(result, profile),
            **result.told(),
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


@dataclass
class _Attempt:
    """All visits of a block, once."""

    arms: dict[str, _Arm]
    idle: Idle | None
    gates: list[Gate] = field(default_factory=list)

    @property
    def tripped(self) -> list[Gate]:
        return [gate for gate in self.gates if gate.status == "tripped"]


def profile_block(
    *,
    experiment: str,
    block: int,
    arms: dict[str, Arm],
    profile: Profile,
    data: Path,
    output: Path,
    module_roots: Sequence[Path] = (),
    bounds: Bounds = Bounds(),  # noqa: B008, it never changes
    telemetry: float | None = None,
) -> None:
    """Visit each arm twice and leave `output/ARM/record.json` and `output/ARM/telemetry.jsonl`.

    An arm whose visit fails, runs out of memory or gives scores that are not finite gets a record that says so
    and is not visited again; the others go on. So does one whose visit crosses `bounds`, which hold for each visit.
    A block in which a gate trips is repeated; the last one that may be leaves records of outcome `invalid` for all
    arms, with no numbers. telemetry: seconds between two samples of the machine; None: none, and so no gates.

    Raises: ValueError for data that cannot be read or a user's module that does not exist; MemoryError where a visit
    crossed the bound on memory and is to be started again with more.
    """
    open_store(data)
    place = take_all("cpu" if all(arm.execution.device == "cpu" for arm in arms.values()) else "auto")
    place.enter()  # the GPU is asked about before the first visit
    adopt_orphans()
    make_first_to_go()
    sources = {name: source_files(arm.model.source, module_roots) for name, arm in arms.items()}
    order = visit_order(list(arms), block)
    for name in arms:
        (output / name).mkdir(parents=True, exist_ok=True)
        (output / name / "telemetry.jsonl").unlink(missing_ok=True)
    shared = {
        "profile": profile.model_dump(mode="json"),
        "data": str(data),
        "module_roots": [str(root) for root in module_roots],
        "telemetry_interval": telemetry,
        "memory_mb": bounds.memory_mb,
    }
    attempts: list[_Attempt] = []
    with Evidence(output, bounds.memory_mb) as evidence:

        def watch() -> Watch:
            visit = Watch(bounds, evidence, contain(bounds.memory_mb, bounds.processes))
            place.bounds = evidence.held_by(visit.containment.held_by)
            place.enter()
            return visit

        while not attempts or (attempts[-1].tripped and len(attempts) <= profile.gates.repeats):
            attempts.append(_attempt(len(attempts) + 1, order, arms, profile, output, shared, watch))
            for gate in attempts[-1].tripped:
                print(f"attempt {len(attempts)} is not valid: {gate.name}: {gate.message}", flush=True)
    data_sha256 = sha256_file(data / MANIFEST)
    for name, arm in arms.items():
        record = _record(attempts, name, arm, profile, order, code("profile", sources[name]))
        identity = {"experiment": experiment, "arm": name, "block": block, "data_sha256": data_sha256}
        record.model_copy(update=identity).write(output / name / "record.json")
    place.leave()


def _attempt(
    number: int,
    order: Sequence[str],
    arms: dict[str, Arm],
    profile: Profile,
    output: Path,
    shared: dict[str, Any],
    watch: Callable[[], Watch],
) -> _Attempt:
    """Visit all arms in order, each from a temperature close to the first one's and under a `watch` of its own; judge."""
    files = {name: output / name / "telemetry.jsonl" for name in arms}
    watched = shared["telemetry_interval"] is not None
    resting = None
    if watched and any(arm.execution.device != "cpu" for arm in arms.values()) and (uuid := visible_gpu()):
        resting = Idle(uuid)
        if profile.idle_seconds:
            resting = idle(files[order[0]], uuid, profile.idle_seconds, {"attempt": number})
    attempt = _Attempt({name: _Arm(started=now()) for name in arms}, resting)
    visited: list[Visited] = []
    for position, name in enumerate(order):
        found = attempt.arms[name]
        if found.failure is not None:
            continue
        print(f"visit {position + 1} of {len(order)}: {name}", flush=True)
        identity = {"visit": position, "attempt": number}
        settled = None
        if resting is not None and resting.temperature_c is not None and position:
            limit = resting.temperature_c + profile.gates.start_band / 2
            mine = {"attempt": number, "before": position}
            settled = settle(files[name], resting.uuid, limit, profile.gates.settle_seconds, mine)
        request = {"arm": spec_of(arms[name]), "flops": not found.visits, "telemetry": str(files[name])}
        request["largest"] = next(
            (one.result.largest.size for one in found.visits if one.result.largest), None
        )
        found.visits.append(_visit(shared | request | identity, watch(), resting, settled))
        visited.append(Visited(position, name, list(lines(files[name], identity))))
    attempt.gates = judge(visited, profile.gates) if watched else []
    return attempt


def _record(
    attempts: Sequence[_Attempt], name: str, arm: Arm, profile: Profile, order: list[str], origin: Code
) -> Record:
    """The record of one arm but for what it shares with the others of its block."""
    # Settings that cost nothing may have been left out: their defaults are not what this arm is trained with.
    spec = arm.model_dump(mode="json", exclude_unset=True)
    last = attempts[-1]
    visits, failure = last.arms[name].visits, last.arms[name].failure
    environment = next((visit.result.environment for visit in visits if visit.result.environment), None)
    outcome = "completed" if failure is None else failure.outcome
    message = None if failure is None else failure.message
    if last.tripped:
        outcome, message = "invalid", _why_invalid(attempts, message)
    return Record(
        stage="profile",
        experiment="",
        outcome=outcome,
        message=message,
        started=attempts[0].arms[name].started,
        finished=now(),
        spec=spec,
        spec_sha256=sha256_text(canonical_json(spec)),
        code=origin,
        environment=environment or capture(threads=arm.execution.threads, device=None),
        metrics=metrics(
            [visit.result for visit in visits],
            arm,
            profile,
            completed=outcome == "completed",
            gpu_memory_mb=[visit.gpu_memory_mb for visit in visits],
        ),
        details={
            "order": order,
            "profile": profile.model_dump(mode="json", exclude={"enabled", "blocks", "traces"}),
            "idle": None if last.idle is None else asdict(last.idle),
            "gates": [gate.model_dump() for gate in last.gates],
            "rejected": [[gate.model_dump() for gate in one.tripped] for one in attempts[:-1]],
            "visits": [visit.evidence(profile) for visit in visits],
        },
        attempts=len(attempts),
        warnings=[*_warnings(visits, last.gates, profile), *places.current().warnings],
    )


def _why_invalid(attempts: Sequence[_Attempt], failure: str | None) -> str:
    reasons = [f"{gate.name}: {gate.message}" for gate in attempts[-1].tripped]
    times = "attempt" if len(attempts) == 1 else "attempts"
    text = f"not valid after {len(attempts)} {times}: {'; '.join(reasons)}"
    return text if failure is None else f"{text}; and {failure}"


def _visit(request: dict[str, Any], watch: Watch, resting: Idle | None, settled: float | None) -> _Visit:
    """Start a process for one visit and wait for its end; it dies with this one if that is interrupted."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    machine = Machine(os.getpid())
    with tempfile.TemporaryDirectory(prefix="assay-visit-") as folder:
        path = Path(folder) / "result.json"
        # What one visit compiled, the next one is not to find: each starts cold. PyTorch leaves temporary files behind.
        environment |= {name: f"{folder}/{name}" for name in _COMPILED} | {"TMPDIR": folder}
        started, before, launched = now(), machine.read(), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "assay.profiling.visit"],
            stdin=subprocess.PIPE,
            env=environment,
            preexec_fn=watch.containment.enter if watch.containment.by_namespace else None,
        )
        try:
            assert process.stdin is not None
            watch.containment.admit(process.pid)
            with contextlib.suppress(BrokenPipeError), process.stdin as requests:
                requests.write(json.dumps(request | {"result": str(path), "launched": launched}).encode())
            crossing = _wait(process, path, watch)
        finally:
            watch.containment.forbid_forks()
            process.kill()
            process.wait()
            end_descendants(os.getpid())
            watch.containment.remove()
        seconds = time.monotonic() - launched
        if crossing is not None:
            result = Result(outcome=crossing.outcome, message=crossing.message)
        elif path.exists():
            result = _result(path)
        else:
            result = Result(outcome="failed", message=_ending(process.returncode))
    watts = {} if resting is None or resting.watts is None else {resting.uuid: resting.watts}
    identity = {name: request[name] for name in ("visit", "attempt")}
    telemetry = Window(Path(request["telemetry"]), identity, watts).summary()
    return _Visit(
        position=request["visit"],
        started=started,
        finished=now(),
        pid=process.pid,
        before=before,
        after=machine.read(),
        seconds=seconds,
        result=result,
        telemetry=telemetry,
        settled_s=settled,
    )


def _wait(process: "subprocess.Popen[bytes]", path: Path, watch: Watch) -> Crossing | None:
    """Until a visit ends or crosses a bound. Raises: MemoryError if that is to be cured by starting it again."""
    ended = os.pidfd_open(process.pid)
    crossing = None
    try:
        while crossing is None and not select.select([ended], [], [], watch.interval)[0]:
            crossing = watch.look()
        if crossing is None and not (path.exists() and _result(path).outcome == "completed"):
            crossing = watch.look()  # a refused process or a kill for memory may be what it ended by
    finally:
        os.close(ended)
    if crossing is None:
        return None
    print(crossing.message, file=sys.stderr, flush=True)
    if crossing.ended == "out_of_memory" and watch.bounds.retry_memory:
        watch.evidence.end(crossing.ended, signal.SIGKILL)
        raise MemoryError(crossing.message)
    return crossing


def _result(path: Path) -> Result:
    return Result.model_validate_json(path.read_bytes())


def _ending(status: int) -> str:
    if status >= 0:
        return f"the visit's process ended with status {status} and left no result; its log says why"
    name = signal.Signals(-status).name
    hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"the visit's process was ended by {name}{hint}"


def _warnings(visits: Sequence[_Visit], gates: Sequence[Gate], profile: Profile) -> list[str]:
    """What may have touched the timings from outside, and what they do not tell."""

    def growth(visit: _Visit, name: str) -> float:
        before, after = visit.before[name], visit.after[name]
        return 0.0 if before is None or after is None else after - before

    warnings = [
        text
        for visit in visits
        for text in (
            *visit.result.telemetry_notes,
            *visit.result.notes,
            *(visit.telemetry.warnings if visit.telemetry else []),
        )
    ]
    warnings += [
        f"a visit's process ended in {visit.result.unfinished}, which is not measured"
        for visit in visits
        if visit.result.outcome == "completed" and visit.result.unfinished
    ]
    if any(wide(visit.result, profile) for visit in visits):
        warnings.append(
            f"medians of some measurements are not known as well as profile.width ({profile.width}) asks after "
            f"{profile.seconds:g} s; details.visits lists them (wide)"
        )
    if any(growth(visit, "throttled_s") > 0 for visit in visits):
        warnings.append("the control group held CPU time back during a visit: timings may be too long")
    if any(growth(visit, "steal_s") > _REPORTED_STEAL * visit.seconds for visit in visits):
        warnings.append("other guests of the host took CPU time during a visit: timings may be too long")
    waited = next((gate.found for gate in gates if gate.name == "cpu_contention"), None)
    if waited is not None and waited > _REPORTED_CONTENTION:
        warnings.append(
            "a visit had to wait for a CPU: other work ran beside it, and timings may be too long"
        )
    return warnings
