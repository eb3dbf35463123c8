"""A real experiment, watched while it runs: what happens to its runs is seen, and by name."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from project import TINY, Project

from assay.config.load import load
from assay.monitoring.state import Run, Snapshot
from assay.monitoring.watcher import Watcher

SILENCE = 2.0
"""Below it nobody is called stalled or killed: a minute is for file servers."""
WATCHED = deepcopy(TINY) | {"seeds": 1}
WATCHED["training"] = TINY["training"] | {"epochs": 400, "checkpoint_seconds": 0.5}  # type: ignore[operator]
WATCHED["arms"] = {
    "mlp": {"model": {"source": "paced:net"}},
    "bad": {"model": {"source": "builtin:mlp"}, "training": {"optimizer": {"learning_rate": 1e30}}},
}


NETS = """
import time
from pathlib import Path

from torch import nn

def net(num_classes, in_channels, image_size):
    if b"profiling.visit" in Path("/proc/self/cmdline").read_bytes():
        while not Path("seen-visits").exists():
            time.sleep(0.02)
    return Paced(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

class Paced(nn.Sequential):
    def forward(self, images):
        if self.training and Path("slowly").exists():
            time.sleep(0.05)
        return super().forward(images)
"""
"""Trains slowly as long as a test has it, and is not profiled before somebody has seen that it is."""


class Seen:
    """Looks on, and keeps every state that each run and block was in."""

    def __init__(self, project: Project) -> None:
        file = project.folder / "tiny.yaml"
        self.watcher = Watcher(project.results, load(file), file.stat().st_mtime, SILENCE)
        self.project = project
        self.states: dict[str, list[str]] = {}
        self.snapshot: Snapshot = self.look()

    def look(self) -> Snapshot:
        self.snapshot = self.watcher.look()
        for one in (*self.snapshot.runs, *self.snapshot.blocks):
            kept = self.states.setdefault(one.name, [])
            if kept[-1:] != [one.state]:
                kept.append(one.state)
        if "running" in self.states["block 0"]:
            (self.project.folder / "seen-visits").touch()
        return self.snapshot

    def until(self, true: Callable[[Snapshot], bool], seconds: float = 400.0) -> Snapshot:
        end = time.monotonic() + seconds
        while not true(self.look()):
            output = self.project.output.read_text()
            assert time.monotonic() < end, f"{self.states}\n{self.snapshot}\n{output}\n{self.project.logs()}"
            time.sleep(0.02)
        return self.snapshot

    def run(self, arm: str) -> Run:
        return next(run for run in self.snapshot.runs if run.arm == arm)

    def process_of(self, arm: str) -> int:
        """The training's own, as its sampler tells it."""
        path = self.project.results / "runs" / arm / "seed-0" / "train" / "telemetry.jsonl"
        starts = [line for line in path.read_text().splitlines() if '"event": "start"' in line]
        return int(json.loads(starts[-1])["job"])


@contextmanager
def watching(project: Project) -> "Iterator[subprocess.Popen[bytes]]":
    """`assay watch` on a terminal."""
    main, child = pty.openpty()
    command = [sys.executable, "-m", "assay", "watch", "tiny.yaml", "--interval", "0.2"]
    environment = project.environment() | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        command, cwd=project.folder, env=environment, stdin=child, stdout=child, stderr=child
    )
    os.close(child)
    os.set_blocking(main, False)
    try:
        yield process
        end = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                os.read(main, 1 << 20)
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(main)


def test_stalled_killed_resumed_diverged_and_completed_are_seen(project: Project) -> None:
    project.write(WATCHED)
    (project.folder / "paced.py").write_text(NETS)
    slowly = project.folder / "slowly"
    slowly.touch()
    watched = subprocess.run(
        [sys.executable, "-m", "assay", "watch", "tiny.yaml", "--once"],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert watched.returncode == 0 and "tiny has not begun" in watched.stdout, watched.stderr
    seen = Seen(project)
    assert seen.snapshot.phase == "not begun"
    running = project.start()

    seen.until(lambda _: (seen.run("mlp").epoch or 0) >= 5 and seen.run("mlp").state == "running")
    mlp = seen.run("mlp")
    assert mlp.epochs == 400 and mlp.loss is not None
    assert mlp.throughput is not None and mlp.seconds_left is not None and mlp.gpu_memory_mb is None
    assert seen.snapshot.session is not None and seen.snapshot.session.alive
    assert seen.snapshot.hosts and seen.snapshot.hosts[0].values["load"] is not None

    process = seen.process_of("mlp")
    os.kill(process, signal.SIGSTOP)
    seen.until(lambda _: seen.run("mlp").state == "stalled")
    seen.until(lambda _: "its process lives, CPU 0%" in str(seen.run("mlp").why))
    os.kill(process, signal.SIGCONT)
    seen.until(lambda _: seen.run("mlp").state == "running")
    checkpoint = project.results / "runs" / "mlp" / "seed-0" / "checkpoint" / "state.pt"
    seen.until(lambda _: checkpoint.exists())

    os.kill(running.pid, signal.SIGSTOP)  # it starts the run again as soon as it hears of its end
    os.kill(process, signal.SIGKILL)
    seen.until(lambda _: seen.run("mlp").state == "killed" and seen.run("mlp").why == "ended by SIGKILL")
    os.kill(running.pid, signal.SIGCONT)
    seen.until(lambda _: seen.run("mlp").state == "running" and bool(seen.run("mlp").resumed))
    assert seen.run("mlp").attempt == 2

    slowly.unlink()
    seen.until(lambda now: now.phase == "finished")
    assert running.wait(timeout=300) == 0
    mlp_states = seen.states["mlp seed 0"]
    assert mlp_states[0] == "waiting" and mlp_states[-1] == "completed", mlp_states
    assert seen.states["bad seed 0"][-1] == "diverged"
    assert seen.run("bad").why is not None and "loss is nan" in str(seen.run("bad").why)
    assert "running" in seen.states["block 0"] and seen.snapshot.blocks[0].visits == 4
    assert seen.run("mlp").test_accuracy is not None and seen.snapshot.headline

    with watching(project) as watcher:
        pass
    assert watcher.returncode == 0, "finished before it looked"


def test_it_ends_with_1_when_the_workflow_ends_before_the_experiment(project: Project) -> None:
    project.write(WATCHED | {"training": WATCHED["training"] | {"epochs": 100_000}})  # type: ignore[operator]
    (project.folder / "paced.py").write_text(NETS)
    running = project.start()
    seen = Seen(project)
    seen.until(lambda _: (seen.run("mlp").epoch or 0) >= 2)
    with watching(project) as watcher:
        time.sleep(3)
        assert watcher.poll() is None
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        seen.until(lambda now: now.phase == "ended" and seen.run("mlp").state in ("interrupted", "killed"))
    assert watcher.returncode == 1
    end = time.monotonic() + 300
    while any(_is(path, project.folder) for path in Path("/proc").glob("[0-9]*/cwd")):
        assert time.monotonic() < end, "something goes on behind it"
        time.sleep(0.1)


def _is(path: Path, folder: Path) -> bool:
    try:
        return path.resolve() == folder
    except OSError:
        return False
