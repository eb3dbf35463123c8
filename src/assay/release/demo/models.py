"""The demonstration's two bundles: trained, evaluated, compared and bundled as any others."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import yaml

HERE = Path(__file__).parent
Bad = Literal["", "slow", "errors", "nan", "drift"]
SMALL, CANDIDATE = "small", "candidate"


def experiment(name: str, model: str, data: str) -> dict[str, object]:
    """Two small networks, seconds each."""
    return {
        "name": name,
        "question": "May the candidate follow?",
        "factors": ["model"],
        "baseline": SMALL,
        "arms": {
            SMALL: {"model": {"source": "builtin:mlp", "options": {"hidden": [48]}}},
            CANDIDATE: {"model": {"source": f"candidate:{model}"}},
        },
        "data": {"source": data},
        "seeds": 2,
        "execution": {"device": "cpu"},
        "training": {
            "epochs": 8,
            "batch_size": 64,
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        },
        "metrics": [{"name": "accuracy", "margin": 0.05}],
        "profile": {"enabled": False},
        "telemetry": {"enabled": False},
    }


def bundles(work: Path, bad: Bad) -> tuple[Path, Path]:
    """Stable and candidate, below `work`. What is there from an earlier call is taken. Raises: ValueError."""
    digits = run(
        work,
        experiment(
            "demo" if bad in ("", "drift") else f"demo-{bad}",
            bad if bad not in ("", "drift") else "good",
            "digits",
        ),
    )
    other = digits if bad != "drift" else run(work, experiment("demo-halved", "good", "halved:digits"))
    return bundle(work, digits, SMALL), bundle(work, other, CANDIDATE)


def run(work: Path, content: dict[str, object]) -> str:
    """The experiment up to its comparison; returns its name."""
    work.mkdir(parents=True, exist_ok=True)
    for module in ("candidate.py", "halved.py"):
        shutil.copyfile(HERE / module, work / module)
    file = work / f"{content['name']}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    target = f"results/{content['name']}/comparison/comparison.json"
    _assay(work, "run", file.name, "--", target)
    return str(content["name"])


def bundle(work: Path, name: str, arm: str) -> Path:
    folder = work / "results" / name / "bundle" / arm
    if not (folder / "bundle.json").is_file():
        _assay(work, "release", "bundle", f"results/{name}", "--arm", arm, "--module-root", ".")
    return folder


def _assay(work: Path, *words: str) -> None:
    """Quietly; what it printed is told where it fails. Raises: ValueError."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "assay.cli", *words],
        cwd=work,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": _paths()},
    )
    if done.returncode != 0:
        with contextlib.suppress(OSError):
            (work / "failed.log").write_text(done.stdout + done.stderr)
        raise ValueError(
            f"assay {' '.join(words)} ended with {done.returncode}; it printed, in {work / 'failed.log'}:\n"
            + "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        )


def _paths() -> str:
    source = str(Path(__file__).parents[3])
    return os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
