"""The kernel traces of one arm: one of inference, one of a training step, and a record of what they show.

No number of a comparison comes from here. The work is done in a process of its own, so that an arm whose model, or whose
profiler, takes it down is a result that says so.
"""

import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.config.arm import Arm
from assay.data.store import MANIFEST, Store, open_store
from assay.environment import capture, code
from assay.isolation import places
from assay.isolation.processes import end_with
from assay.isolation.supervisor import Crossing
from assay.models.sources import source_files
from assay.profiling.subject import Subject
from assay.profiling.training_step import TrainingStep
from assay.records import (
    Code,
    Environment,
    Outcome,
    Record,
    Typed,
    canonical_json,
    now,
    sha256_file,
    sha256_text,
    write_atomically,
)
from assay.tracing.chrome import packed, record
from assay.tracing.kernels import summarise
from assay.tracing.model import MODES, Mode, Traced
from assay.training.checkpoint import sole_writer
from assay.training.execution import apply
from assay.training.outcomes import first_line, out_of_memory


@dataclass(frozen=True)
class Run:
    """What is traced, and where its files are."""

    experiment: str
    arm: str
    settings: Arm
    batch_size: int
    """Of inference; a training step has that of the arm."""
    data: Path
    output: Path
    module_roots: Sequence[Path] = ()


RESULT = "result.json"


class Result(Typed):
    """What the process found; null where it did not get so far."""

    outcome: Outcome = "completed"
    message: str | None = None
    traces: dict[Mode, Traced] = {}
    environment: Environment | None = None


def trace(run: Run, crossing: Crossing | None = None) -> None:
    """Leave `inference.json.gz`, `training.json.gz` and, last, `record.json`; of an arm that fails, what it came to.

    crossing: the bound that this very job crossed.

    Raises: ValueError for data that cannot be read or a user's module that does not exist.
    """
    started = now()
    store = open_store(run.data)
    origin = code("trace", source_files(run.settings.model.source, run.module_roots))
    with sole_writer(run.output / ".lock"):
        result = _result(run, store, crossing)
        _write(run, result, origin, started)


def _result(run: Run, store: Store, crossing: Crossing | None) -> Result:
    """Of the traces; their files are beside the record then, and none of an earlier time."""
    scratch = run.output / ".scratch"
    for mode in MODES:
        _file(run.output, mode).unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    if crossing is not None:
        return Result(outcome=crossing.outcome, message=crossing.message)
    scratch.mkdir()
    try:
        result = _apart(lambda: _measure(run, store, scratch), scratch / RESULT)
        for mode in result.traces:
            write_atomically(_file(run.output, mode), _file(scratch, mode).read_bytes())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def _write(run: Run, result: Result, origin: Code, started: str) -> None:
    # Settings that cost nothing may have been left out: their defaults are not what this arm is trained with.
    spec = run.settings.model_dump(mode="json", exclude_unset=True)
    Record(
        stage="trace",
        experiment=run.experiment,
        arm=run.arm,
        outcome=result.outcome,
        message=result.message,
        started=started,
        finished=now(),
        spec=spec,
        spec_sha256=sha256_text(canonical_json(spec)),
        data_sha256=sha256_file(run.data / MANIFEST),
        code=origin,
        environment=result.environment or capture(threads=run.settings.execution.threads, device=None),
        details={
            mode: None if (one := result.traces.get(mode)) is None else one.model_dump() for mode in MODES
        },
        warnings=places.current().warnings,
    ).write(run.output / "record.json")


def _file(folder: Path, mode: Mode) -> Path:
    return folder / f"{mode}.json.gz"


def _apart(work: Callable[[], None], path: Path) -> Result:
    """Do it in a fork of this process, which has computed nothing yet, and read the result that it leaves."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        end_with(parent)
        _end(work)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if path.exists():
        return Result.model_validate_json(path.read_bytes())
    return Result(outcome="failed", message=_ending(os.waitstatus_to_exitcode(status)))


def _end(work: Callable[[], None]) -> None:
    """In the fork: nothing of what this process was doing goes on behind the work."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _ending(status: int) -> str:
    if status >= 0:
        return f"the process that was traced ended with status {status} and left no result; its log says why"
    return f"the process that was traced was ended by {signal.Signals(-status).name}"


def _measure(run: Run, store: Store, folder: Path) -> None:
    """Both traces, the result, and what PyTorch makes of temporary files, into a folder; a model that cannot do the one may have done the other."""
    tempfile.tempdir = str(folder)
    result, what = Result(), "building the model"
    try:
        device = apply(run.settings.execution)
        result.environment = capture(threads=run.settings.execution.threads, device=device)
        subject = Subject(run.settings, store, run.module_roots, device)
        for mode in MODES:
            what = mode
            result.traces[mode] = _traced(run, mode, subject, folder)
    except Exception as error:
        result.outcome = "out_of_memory" if out_of_memory(error) else "failed"
        result.message = f"{what}: {type(error).__name__}: {first_line(error)}"
        if result.outcome == "failed":
            traceback.print_exc()
    write_atomically(folder / RESULT, result.model_dump_json().encode())


def _traced(run: Run, mode: Mode, subject: Subject, folder: Path) -> Traced:
    training = run.settings.training
    call: Callable[[], object]
    if mode == "inference":
        images = run.batch_size
        subject.model.eval()
        call = subject.inference(subject.batch(images)[0])
    else:
        images = training.batch_size * training.accumulate
        batch = subject.batch(training.batch_size)
        call = TrainingStep(subject.model, subject.called, run.settings, *batch)
    found = record(call, subject.device)
    kernels = summarise(found["traceEvents"], on_gpu=subject.device.type == "cuda")
    path = _file(folder, mode)
    write_atomically(path, packed(found))
    return Traced(
        file=path.name,
        sha256=sha256_file(path),
        bytes=path.stat().st_size,
        images=images,
        kernels=kernels,
    )
