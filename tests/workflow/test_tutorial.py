"""The tutorial, as it stands: its files are written and its commands run, from an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def test_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "assay").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m assay "$@"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY / "src"),
        "HOME": str(tmp_path),
    }
    outputs = []
    for language, name, content in BLOCK.findall(TUTORIAL.read_text()):
        if name:
            (folder / name).write_text(content)
            continue
        assert language == "sh", f"the tutorial has a block that is neither a file nor commands: {content}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", content],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{content}\n{done.stdout}{done.stderr}"
        outputs.append(done.stdout + done.stderr)
    _, images, check, first, plan, second = outputs
    assert len(images.split()) == 10
    assert "model" in check
    assert "convolutional" in first and "report/index.html" in first
    assert re.search(r"^train +6$", plan, flags=re.MULTILINE), plan
    assert "report/index.html" in second
    assert (folder / "results/my-images/report/index.html").stat().st_size > 10_000
