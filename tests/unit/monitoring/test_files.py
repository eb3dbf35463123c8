"""Reading on in files that others write, cut and replace meanwhile."""

from pathlib import Path

from watched_runs import Clock

from assay.monitoring.files import MOST_BYTES, Tail, number
from assay.monitoring.training_log import TrainingLog
from assay.records import Log


def log_of(path: Path) -> Log:
    return Log(path, identity={"experiment": "e", "arm": "a", "seed": 0, "stage": "train"})


def bytes_read() -> int:
    """By this process so far, as the kernel counts them."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def test_every_line_comes_once_and_a_half_one_when_it_is_whole(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "log.jsonl"
    tail = Tail(path)
    assert tail.read(clock.moment) == []
    with log_of(path) as log:
        log.write("step", step=1)
        log.flush()
        assert [line["step"] for line in tail.read(clock.moment)] == [1]
        log.write("step", step=2)
        log.write("step", step=3)
        log.flush()
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert [line["step"] for line in tail.read(clock.moment)] == [2]
    path.write_bytes(content)
    assert [line["step"] for line in tail.read(clock.moment)] == [3]
    assert tail.read(clock.moment) == [] and tail.generation == 0


def test_lines_that_are_no_objects_are_left_out(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "log.jsonl"
    with log_of(path) as log:
        log.write("step", step=1, loss=float("nan"))
    with path.open("ab") as file:
        file.write(b'\0\0\0\0\nnull\n[1]\n{"a"\n' + b"[" * 100_000 + b"\n")
    with log_of(path) as log:
        log.write("step", step=2)
    lines = Tail(path).read(clock.moment)
    assert [line["step"] for line in lines] == [1, 2]
    assert str(number(lines[0]["loss"])) == "nan", "the log tells it as text"


def test_a_file_that_is_cut_replaced_or_written_over_is_read_anew(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "log.jsonl"
    tail = Tail(path)

    def write(steps: range, where: Path = path) -> None:
        with log_of(where) as log:
            for step in steps:
                log.write("step", step=step)

    write(range(5))
    assert len(tail.read(clock.moment)) == 5
    path.write_bytes(b"")
    write(range(2))
    assert len(tail.read(clock.moment)) == 2 and tail.generation == 1
    write(range(7), tmp_path / "other")
    (tmp_path / "other").replace(path)
    assert len(tail.read(clock.moment)) == 7 and tail.generation == 2
    # The same file, written over with more than there was: only its beginning tells.
    with path.open("r+b") as file:
        file.truncate(0)
    write(range(9))
    assert len(tail.read(clock.moment)) == 9 and tail.generation == 3
    path.unlink()
    assert tail.read(clock.moment) == [] and tail.pulse.age(clock.moment) is None
    write(range(1))
    assert len(tail.read(clock.moment)) == 1 and tail.generation == 4


def test_of_a_large_file_the_beginning_and_the_end_are_read_and_then_what_is_new(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "log.jsonl"
    steps, epoch = 40_000, 10_000
    with log_of(path) as log:
        log.write("started", epochs=9, steps_per_epoch=epoch)
        for step in range(1, steps + 1):
            log.write("step", step=step, epoch=(step - 1) // epoch, loss=1.0)
            if step == epoch:
                log.write("epoch", step=step, epoch=0, validation_accuracy=0.5)
    assert path.stat().st_size > 2 * MOST_BYTES
    before = bytes_read()
    watched = TrainingLog(path)
    watched.look(clock.moment)
    assert bytes_read() - before < path.stat().st_size + MOST_BYTES, "searched at most once"
    assert watched.steps_done == steps and watched.epochs == 9 and watched.steps == 9 * epoch
    assert watched.epoch_value("validation_accuracy") == 0.5, "found in what was not read"
    before = bytes_read()
    watched.look(clock.moment)
    assert bytes_read() - before < 1000, "nothing new costs nothing"
    with log_of(path) as log:
        log.write("step", step=steps + 1, epoch=4, loss=2.0)
    before = bytes_read()
    watched.look(clock.moment)
    assert bytes_read() - before < 20_000
    assert watched.steps_done == steps + 1 and watched.value("loss") == 2.0


def test_a_file_that_may_not_be_read_is_no_error(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "log.jsonl"
    folder.mkdir()
    assert Tail(folder).read(clock.moment) == []
    folder.rmdir()
    folder.symlink_to("log.jsonl")
    assert Tail(folder).read(clock.moment) == []
