"""`assay watch` as a command: quick, without PyTorch, and a clean terminal afterwards."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from watched_runs import EXPERIMENT, Live, experiment_of, resolve

from assay.cli import main

SOURCES = str(Path(__file__).parents[3] / "src")
SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"


@pytest.fixture
def folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of an experiment under way, in `results/e` of the current folder."""
    folder = trained.parents[2]
    resolve(experiment_of(), folder)
    Live(folder / "runs" / "large" / "seed-0").step()
    monkeypatch.chdir(folder.parents[1])
    return folder


def test_nothing_heavy_is_imported(folder: Path) -> None:
    program = (
        "import sys; from assay.cli import main; status = main(['watch', 'results/e', '--once']); "
        "heavy = {'torch', 'snakemake', 'numpy', 'polars', 'scipy', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(status)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": SOURCES}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 of 4 runs completed" in done.stdout and re.search(r"large +0 +0/10", done.stdout)


def test_other_commands_do_not_pay_for_it() -> None:
    program = (
        "import sys; from assay.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "assert not {'rich', 'assay.monitoring.watcher'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": SOURCES}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_snapshot_for_machines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "results/e", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["experiment"] == "e" and [run["state"] for run in told["runs"]].count("running") == 1


def test_without_an_argument_it_is_what_was_begun_last(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".lock").write_text("1 on elsewhere\n")
    (folder.parent / "older").mkdir()
    (folder.parent / "older" / ".lock").write_text("1 on elsewhere\n")
    os.utime(folder.parent / "older" / ".lock", (0, 0))
    assert main(["watch", "--once"]) == 0
    assert "(results/e)" in capsys.readouterr().out


def test_an_experiment_file_is_watched_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    assert main(["watch", "e.yaml", "--once"]) == 0
    assert "e has not begun" in capsys.readouterr().out
    assert not Path("results").exists(), "a watcher writes nothing"


def test_the_resolved_file_stands_for_its_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "results/e/experiment.yaml", "--once"]) == 0
    assert "(results/e)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["results"], "results: is no folder of results; name one of results/e"),
        (["nowhere"], "nowhere: no such file or folder; to watch an experiment from before it begins"),
        (["empty"], "empty: is no folder of results; name one, e.g. results/digits"),
    ],
)
def test_mistakes_end_with_2_and_say_what_to_write(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    Path("empty").mkdir()
    assert main(["watch", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("word", ["0", "-1", "nan", "soon", "1e9"])
def test_intervals_are_seconds(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["watch", "--interval", word])
    assert stop.value.code == 2 and "write seconds" in capsys.readouterr().err


class Terminal:
    """A terminal of 80 columns and 24 lines, on which the command runs."""

    def __init__(self, *words: str) -> None:
        self._main, child = pty.openpty()
        environment = os.environ | {"PYTHONPATH": SOURCES, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        command = [sys.executable, "-m", "assay", "watch", *words]
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True
        )
        os.close(child)
        self.shown = b""

    def read_until(self, pattern: bytes, seconds: float = 300.0) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.shown):
            assert time.monotonic() < end, self.shown.decode(errors="replace")
            self._read(0.1)

    def end(self, seconds: float = 300.0) -> int:
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.shown.decode(errors="replace")
            self._read(0.1)
        self._read(0.1)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        while select.select([self._main], [], [], seconds)[0]:
            try:
                content = os.read(self._main, 65536)
            except OSError:  # the other side is closed
                return
            self.shown += content
            seconds = 0.0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_end_it_leaves_a_clean_terminal(folder: Path, number: int, status: int) -> None:
    terminal = Terminal("results/e", "--interval", "0.1")
    terminal.read_until(rb"large +0 +0/10")
    assert HIDE_CURSOR in terminal.shown
    os.kill(terminal.process.pid, number)
    assert terminal.end() == status
    assert terminal.shown.rindex(SHOW_CURSOR) > terminal.shown.rindex(HIDE_CURSOR)
    assert b"Traceback" not in terminal.shown


def test_it_follows_what_happens(folder: Path) -> None:
    terminal = Terminal("results/e", "--interval", "0.1")
    terminal.read_until(rb"large +0 +0/10")
    Live(folder / "runs" / "large" / "seed-1").step()
    terminal.read_until(rb"large +1 +0/10")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130
