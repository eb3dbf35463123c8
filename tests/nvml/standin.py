"""The library of nvml.c, built by the system's C compiler, and scenarios for it."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml.c")
UUID = "GPU-11111111-2222-3333-4444-555555555555"
OTHER = "GPU-99999999-2222-3333-4444-555555555555"
PART = "MIG-77777777-2222-3333-4444-555555555555"
VALUES = {
    "utilization": 97,
    "memory_utilization": 40,
    "memory": 3000,
    "memory_total": 81920,
    "temperature": 55,
    "memory_temperature": 60,
    "sm": 1980,
    "mem": 2619,
    "power": 400_000,
    "limit": 700_000,
    "reasons": 0,
    "fan": 30,
    "pcie_tx": 12_000,
    "pcie_rx": 34_000,
    "replays": 0,
    "ecc": 0,
    "ecc_corrected": 0,
    "mig": 0,
    "processes": "parent:2500",
}
"""A healthy card at work: its only process is the one that started the sampler."""


def build(folder: Path, *, old_driver: bool = False) -> Path:
    """The folder that holds libnvidia-ml.so.1. Skips where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: install gcc and libc6-dev to build the library that stands in for NVML")
    library = folder / "libnvidia-ml.so.1"
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    options += ["-DOLD_DRIVER"] if old_driver else []
    subprocess.run([compiler, *options, "-o", str(library), str(SOURCE)], check=True)
    return folder


def card(uuid: str = UUID, **changes: object) -> str:
    """A `gpu` directive: a healthy card with changes; None leaves a value out, so that it is not supported."""
    values = {key: value for key, value in (VALUES | changes).items() if value is not None}
    return f"gpu {uuid} {_words(values)}"


def at(time: float, uuid: str = "", **changes: object) -> str:
    """An `at` directive. A key's `__` stands for the dot of `fail.FUNCTION`."""
    return f"at {time} {uuid} {_words(changes)}"


def _words(values: dict[str, object]) -> str:
    return " ".join(f"{key.replace('__', '.')}={value}" for key, value in values.items())


BY_READINGS = "clock nvmlDeviceGetUtilizationRates"
"""A directive: the times of `at` count readings of cards from here on, of all of them together."""


def wait_for_samples(path: Path, count: int) -> None:
    """Until a sampler has written so many; it writes the first at once, the others once a second."""
    end = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b'"event": "sample"') < count:
        assert time.monotonic() < end, f"{path}: fewer than {count} samples"
        time.sleep(0.01)


def install(monkeypatch: pytest.MonkeyPatch, library: Path, scenario: Path, *directives: str) -> None:
    """Processes that are started from here on find this library and play this scenario."""
    scenario.write_text("\n".join(directives) + "\n")
    paths = [str(library), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(paths))
    monkeypatch.setenv("ASSAY_NVML_SCENARIO", str(scenario))
