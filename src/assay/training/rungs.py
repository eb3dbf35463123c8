"""A trial from one comparison of its sweep to the next: what it was until then goes on, or is what it ends as."""

from pathlib import Path

from assay.records import Record, write_atomically
from assay.training.checkpoint import sole_writer
from assay.training.folder import LOG, TELEMETRY, Run, lock, tidy, write_weights

_WATCHED = (LOG, TELEMETRY)
"""What a trial writes while it goes, beside its record."""


def take_up(run: Run, earlier: Path) -> None:
    """Begin the run's log and telemetry with those of before, where the run has not gone on from them already.

    earlier: the record of the trial when it was compared.
    """
    with sole_writer(lock(run)):
        for name in _WATCHED:
            source, own = earlier.with_name(name), run.output / name
            before = source.read_bytes() if source.exists() else b""
            if not own.exists() or not own.read_bytes().startswith(before):
                write_atomically(own, before)


def leave_stopped(run: Run, earlier: Path) -> int:
    """The result of a trial that its sweep did not let go on: what it was when it was stopped, and no weights.

    Returns the exit status. Raises: RecordError for a record that is missing or damaged.
    """
    Record.read(earlier)
    with sole_writer(lock(run)):
        for name in _WATCHED:
            (run.output / name).unlink(missing_ok=True)
            if (source := earlier.with_name(name)).exists():
                write_atomically(run.output / name, source.read_bytes())
        write_weights({}, run.output / "model.safetensors")
        write_atomically(run.output / "record.json", earlier.read_bytes())
        tidy(run)
    print(f"{run.output}: not trained further: {earlier}")
    return 0
