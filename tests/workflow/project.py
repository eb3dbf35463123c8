"""A copy of the project that a test may edit, with a tiny experiment on real data."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]

TINY = {
    "name": "tiny",
    "question": "Does the workflow hold?",
    "factors": ["model", "training.optimizer.learning_rate"],
    "arms": {
        "mlp": {"model": {"source": "builtin:mlp"}},
        "cnn": {"model": {"source": "builtin:cnn"}},
    },
    "data": {"source": "digits"},
    "seeds": 2,
    "training": {"epochs": 2, "batch_size": 64, "optimizer": {"name": "sgd", "learning_rate": 0.05}},
    "metrics": ["accuracy", "latency_ms"],
    "profile": {
        "blocks": 1,
        "batch_sizes": [1, 8],
        "warmup_seconds": 0.01,
        "seconds": 0.02,
        "min_samples": 5,
        "training_steps": 2,
        # Bounds that hold whoever computes beside a test.
        "gates": {"cpu_contention": 1.0, "cpu_throttled": 1000.0},
    },
}


@dataclass
class Project:
    """A working folder with its own copy of the code."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results" / "tiny"

    def write(self, experiment: dict[str, object]) -> None:
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake"),
            *("--snakefile", str(self.folder / "Snakefile")),
            *("--configfile", "tiny.yaml", "--cores", "4", *arguments),
        ]

    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.folder / "src"), "HOME": str(self.folder / "home")}

    def snakemake(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=900,
        )

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """In a session of its own, with these variables; what it says goes into `output`."""
        with self.output.open("w") as output:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env=self.environment() | variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def run(self, *arguments: str) -> str:
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout + done.stderr

    def planned(self, *targets: str) -> dict[str, int]:
        """Jobs by rule that the same command would run now, by dry run."""
        output = self.run("--dry-run", *targets)
        jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE))
        assert jobs or "Nothing to be done" in output, output
        return {rule: int(count) for rule, count in jobs.items() if rule not in {"total", "all"}}

    def logs(self) -> str:
        return "\n".join(
            f"--- {path}\n{path.read_text()}" for path in sorted((self.folder / "logs").rglob("*.log"))
        )


def copy_project(folder: Path) -> Project:
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("src", "workflow", "profiles", "containers", "requirements"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    project = Project(folder)
    project.write(TINY)
    return project


def assay(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Assay of this checkout, in a folder that has nothing of the experiment's."""
    return subprocess.run(
        [sys.executable, "-m", "assay.cli", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=900,
    )
