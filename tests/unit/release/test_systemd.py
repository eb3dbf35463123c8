"""The units for systemd are taken by systemd, and call what there is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from assay.release.command import ACTIONS
from assay.release.ramp import start_command

ROOT = Path(__file__).parents[3]
UNITS = sorted((ROOT / "release" / "systemd").glob("*.service"))


def test_units_call_what_there_is() -> None:
    assert len(UNITS) == 2
    for unit in UNITS:
        (command,) = re.findall(
            r"^ExecStart=/opt/assay/\.venv/bin/assay release (\w+)", unit.read_text(), re.M
        )
        assert command in ACTIONS
    text = (ROOT / "release" / "systemd" / "assay-release@.service").read_text()
    stated = set(re.findall(r"^  (\d)  ", start_command.EXIT_CODES, re.M))
    assert stated == {"0", "1", "2", "3", "4", "5"}
    kept = set(re.search(r"RestartPreventExitStatus=(.*)", text)[1].split())  # type: ignore[index]
    assert kept == stated - {"0", "1"}, "only what Assay itself failed in is tried again"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="install systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/assay/.venv/bin/assay", sys.executable)
        (tmp_path / unit.name).write_text(text)
    files = [str(tmp_path / unit.name) for unit in UNITS]

    def verified() -> str:
        done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True)
        ours = [line for line in done.stderr.splitlines() if "assay-release" in line]
        return "\n".join(ours)

    assert verified() == ""
    broken = (tmp_path / UNITS[0].name).read_text().replace("Type=", "Tpye=")
    (tmp_path / UNITS[0].name).write_text(broken)
    assert "Tpye" in verified()
