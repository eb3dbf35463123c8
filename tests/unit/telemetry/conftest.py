"""The library that stands in for NVML, built once, and samplers that run beside this process.

A card's changes come with a reading (`at(10, …)`: with the tenth), not at a time: whatever is stopped for how long, each
state is sampled. The times of a card whose energy is told by its counter are seconds.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import standin

from assay.telemetry.beside import Sampler
from assay.telemetry.window import Window, lines


@pytest.fixture(scope="session")
def nvml(tmp_path_factory):
    return standin.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_nvml(tmp_path_factory):
    return standin.build(tmp_path_factory.mktemp("old-nvml"), old_driver=True)


class Sampled:
    """What a sampler left."""

    def __init__(self, path: Path, notes: list[str]) -> None:
        self.path, self.notes = path, notes
        self.lines = list(lines(path))
        self.samples = [line for line in self.lines if line["event"] == "sample"]
        self.window = Window(path)
        self.summary = self.window.summary()

    def gpu(self, index: int = 0) -> list[dict]:
        return [line["gpus"][index] for line in self.samples]

    def column(self, name: str, index: int = 0) -> list:
        return [sample.get(name) for sample in self.gpu(index)]


@pytest.fixture
def sample(tmp_path, monkeypatch, nvml) -> Callable[..., Sampled]:
    """Samples a scenario for some time with a real sampler process."""

    def run(
        *directives: str, samples: int = 2, interval: float = 0.02, gpus=(standin.UUID,), library=nvml
    ) -> Sampled:
        path = tmp_path / "telemetry.jsonl"
        path.unlink(missing_ok=True)
        standin.install(monkeypatch, library, tmp_path / "scenario", *directives)
        with Sampler(path, interval=interval, gpus=gpus) as sampler:
            standin.wait_for_samples(path, samples)
        return Sampled(path, sampler.notes)

    return run
