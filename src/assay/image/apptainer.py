"""Apptainer, as a program."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from assay.image import index
from assay.image.lock import ImageError

ISOLATED = ("--cleanenv", "--no-home", "--contain")
"""Nothing of the user's and little of the machine's gets in."""


def program() -> str:
    """Where Apptainer is. Raises: ImageError saying how to get it."""
    found = shutil.which("apptainer")
    if found is None:
        raise ImageError(
            "apptainer is not on the path; install it, or load your site's module (module load apptainer). "
            "Without it the experiment runs on the host, and every record says so"
        )
    return found


def version() -> str:
    return subprocess.run([program(), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def build(definition: Path, sif: Path, arguments: Mapping[str, str]) -> None:
    """Build a SIF, showing what Apptainer says. Raises: ImageError."""
    # --fakeroot: a user may build, and root may where it lacks some of root's rights.
    command = [program(), "build", "--fakeroot"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    with index.mounted() as bind:
        command += ["--bind", bind, str(sif.absolute()), definition.name]
        # What it says goes to standard error, so that a command's own output stays alone.
        built = subprocess.run(command, cwd=definition.parent, stdout=2, env=_environment())
    if built.returncode != 0:
        raise ImageError(f"{definition}: apptainer build ended with status {built.returncode}; see above")


def output(sif: Path, *command: str, script: Path | None = None) -> str:
    """What a command in the image prints; script: its standard input. Raises: ImageError."""
    text = None if script is None else script.read_text(encoding="utf-8")
    called = [program(), "--silent", "exec", *ISOLATED, str(sif), *command]
    done = subprocess.run(called, input=text, capture_output=True, text=True, cwd="/", env=_environment())
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ImageError(f"{sif}: cannot run {command[0]}: {last}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Without variables that Apptainer would carry into the image."""
    foreign = ("APPTAINERENV_", "SINGULARITYENV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
