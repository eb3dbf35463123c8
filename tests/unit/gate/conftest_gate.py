"""Results of a baseline and a candidate, written as the stages write them."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import gate as simulation

sys.path.pop(0)

METRICS = [{"name": "accuracy", "margin": 0.01}]
GOOD = {"accuracy": [0.90, 0.91, 0.92, 0.90, 0.91, 0.92]}
DAYS = {"baseline": "2026-01-01T00:00:00Z", "candidate": "2026-01-02T00:00:00Z"}


def moved(numbers: dict[str, list[float]], by: float) -> dict[str, list[float]]:
    return {name: [value + by for value in values] for name, values in numbers.items()}


@pytest.fixture(scope="session")
def gates() -> ModuleType:
    return simulation


@pytest.fixture
def side(tmp_path: Path) -> Callable[..., Path]:
    """side("candidate", numbers, **what is unusual): a folder of results."""

    def write(who: str, numbers: dict[str, Any] | None = None, **options: Any) -> Path:
        arms = options.pop("arms", ("model",))
        options.setdefault("metrics", METRICS)
        options.setdefault("started", DAYS.get(who, f"2026-02-{len(who):02d}T00:00:00Z"))
        made = simulation.Results(tmp_path / who, **options)
        return made.write(GOOD if numbers is None else numbers, arms)

    return write
