"""Resolve requirements anew into hash-locked files: names, versions and hashes, no addresses.

    make lock                  keep every version that still fits
    make lock UPGRADE=--upgrade    take the newest of each

`bootstrap.txt` installs and builds the rest, `run.txt` runs experiments, `dev.txt` also tests and lints;
`programs.txt` holds the programs that integration tests start; `serve.txt` what the server of
a released model imports, in the versions of `run.txt`, and `serving-peers.txt` what its speed is measured against; `torch-oldest.txt` and `torch-newest.txt` are for the short checks against the oldest and the newest
supported PyTorch.
For the image, `containers/torch.txt` holds PyTorch, for bases without one, and `containers/requirements.txt` the rest, in the
versions of `run.txt`.
"""

import re
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


CONTAINERS = ROOT / "containers"


def compile_lock(name: str, requirements: list[str], *, folder: Path = REQUIREMENTS, like: str = "") -> None:
    """Write `name`, keeping its versions unless told to upgrade; like: a lock file whose versions hold."""
    options = ["--universal", "--python-version", "3.11", "--generate-hashes"]
    options += ["--constraints", str(REQUIREMENTS / like)] if like else []
    quiet = ["--no-emit-index-url", "--no-header", "--no-annotate", "--quiet", *sys.argv[1:]]
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("\n".join(requirements) + "\n")
        source.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", source.name, "-o", str(folder / name)]
        subprocess.run([*command, *options, *quiet], check=True)


def split_torch() -> None:
    """Move what a base with PyTorch brings along into a file of its own."""
    entries = re.split(r"(?m)^(?=[a-z0-9])", (CONTAINERS / "requirements.txt").read_text())
    torch = [
        entry
        for entry in entries
        if re.match(r"(torch|torchvision|triton|nvidia-(?!ml-py)[a-z0-9-]+)==", entry)
    ]
    (CONTAINERS / "torch.txt").write_text("".join(torch))
    (CONTAINERS / "requirements.txt").write_text("".join(entry for entry in entries if entry not in torch))


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = [line for line in project["project"]["dependencies"] if not line.startswith("torch")]
    groups = project["dependency-groups"]
    test = groups["test"]
    dev = [line for line in groups["dev"] if isinstance(line, str)] + test
    compile_lock("bootstrap.txt", ["uv", "setuptools"])
    compile_lock("run.txt", [*run, *DEFAULT_TORCH])
    compile_lock("dev.txt", [*run, *DEFAULT_TORCH, *dev])
    compile_lock("programs.txt", groups["programs"])
    compile_lock("serve.txt", [*groups["serve"], *DEFAULT_TORCH], like="run.txt")
    compile_lock("serving-peers.txt", [*groups["serving-peers"], DEFAULT_TORCH[0]])
    compile_lock("torch-oldest.txt", [*run, *OLDEST_TORCH, *test])
    compile_lock("torch-newest.txt", [*run, *NEWEST_TORCH, *test])
    lock_image(run)


def lock_image(run: list[str]) -> None:
    """The files that `containers/install.sh` installs."""
    (CONTAINERS / "bootstrap.txt").write_bytes((REQUIREMENTS / "bootstrap.txt").read_bytes())
    image = [*run, *DEFAULT_TORCH, "jupyterlab"]
    compile_lock("requirements.txt", image, folder=CONTAINERS, like="run.txt")
    split_torch()


if __name__ == "__main__":
    main()
