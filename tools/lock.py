"""Resolve requirements anew into hash-locked files: names, versions and hashes, no addresses.

    make lock

`bootstrap.txt` installs and builds the rest, `run.txt` runs experiments, `dev.txt` also tests and lints;
`torch-oldest.txt` and `torch-newest.txt` are for the short checks against the oldest and the newest supported PyTorch.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
DEFAULT_TORCH = ["torch==2.9.1", "torchvision==0.24.1"]
OLDEST_TORCH = ["torch==2.6.0", "torchvision==0.21.0"]
NEWEST_TORCH = ["torch==2.15.0", "torchvision==0.29.2"]


def compile_lock(name: str, requirements: list[str]) -> None:
    options = ["--universal", "--python-version", "3.11", "--generate-hashes"]
    quiet = ["--no-emit-index-url", "--no-header", "--no-annotate", "--quiet", "--upgrade"]
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("\n".join(requirements) + "\n")
        source.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", source.name, "-o", str(REQUIREMENTS / name)]
        subprocess.run([*command, *options, *quiet], check=True)


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = [line for line in project["project"]["dependencies"] if not line.startswith("torch")]
    groups = project["dependency-groups"]
    test = groups["test"]
    dev = [line for line in groups["dev"] if isinstance(line, str)] + test
    compile_lock("bootstrap.txt", ["uv", "setuptools"])
    compile_lock("run.txt", [*run, *DEFAULT_TORCH])
    compile_lock("dev.txt", [*run, *DEFAULT_TORCH, *dev])
    compile_lock("torch-oldest.txt", [*run, *OLDEST_TORCH, *test])
    compile_lock("torch-newest.txt", [*run, *NEWEST_TORCH, *test])


if __name__ == "__main__":
    main()
